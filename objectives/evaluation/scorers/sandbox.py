"""Runs a program that a model wrote, read from stdin; prints what it was told to if it ended well.

Run as a file, isolated, with nothing of ours imported. Before the program starts, the kernel is
told to refuse this process everything that leaves it: sockets, files opened for writing,
deletions, signals to others and their limits, processes of its own (seccomp, Linux on x86-64 and
AArch64). Without that nothing is run.
"""

import ctypes
import os
import platform
import resource
import struct
import sys
import types

# System calls that are refused, by machine: (audit architecture, numbers, open's number).
_SOCKETS = {"x86_64": [41, 42, 43, 49, 53], "aarch64": [198, 199, 200, 202, 203]}
_FILES = {
    "x86_64": [
        *(76, 77, 82, 83, 84, 85, 86, 87, 88, 90, 91, 92, 93, 94, 132, 133, 165, 188, 189, 190),
        *(197, 198, 199, 235, 258, 259, 260, 261, 263, 264, 265, 266, 268, 280, 316, 437, 452),
    ],
    "aarch64": [
        *(5, 6, 7, 14, 15, 16, 33, 34, 35, 36, 37, 38, 40, 45, 46, 52, 53, 54, 55, 88, 276, 437),
        452,
    ],
}
# Signals to others, sessions, debugging, interfaces that do any of this by other ways.
_OTHERS = {
    "x86_64": [
        *(62, 101, 109, 112, 129, 200, 234, 272, 298, 308, 310, 311, 321, 323, 424, 425, 426, 427),
        *(434, 438),
    ],
    "aarch64": [
        *(97, 117, 129, 130, 131, 138, 154, 157, 240, 241, 268, 270, 271, 280, 282, 424, 425, 426),
        *(427, 434, 438),
    ],
}
# Shared memory, semaphores, queues of messages and keys: the kernel keeps them when a process
# ends, and finds those of others by numbers that can be guessed.
_KEPT = {
    "x86_64": [29, 30, 31, *range(64, 72), 220, 240, 241, 248, 249, 250],
    "aarch64": [180, 181, *range(186, 198), 217, 218, 219],
}
# How processes are made; `clone` makes threads too, which is in its flags.
_FORKS: dict[str, list[int]] = {"x86_64": [57, 58], "aarch64": []}
_CLONE, _THREAD = {"x86_64": 56, "aarch64": 220}, 0x10000
# Its flags are in memory, where the filter cannot look. Told that there is none, libc clones.
_CLONE3, _NO_SUCH = 435, 0x00050000 | 38
# Limits: of this process, which is number 0 for itself; another number may be the worker's.
_LIMITS = {"x86_64": 302, "aarch64": 261}
_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_OPEN = {"x86_64": [(2, 1), (257, 2)], "aarch64": [(56, 2)]}  # open(2)s and where their flags are
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_LOAD, _EQUAL, _ANY_BIT, _RETURN, _AT_LEAST = 0x20, 0x15, 0x45, 0x06, 0x35
_ALLOW, _DENY, _KILL = 0x7FFF0000, 0x00050001, 0x80000000


def _rules(machine: str) -> list[tuple[int, int, int, int]]:
    """Return the filter: (operation, skip if true, skip if false, operand)."""
    rules = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, _ARCHITECTURE[machine]), (_RETURN, 0, 0, _KILL)]
    rules += [(_LOAD, 0, 0, 0), (_AT_LEAST, 0, 1, 0x40000000), (_RETURN, 0, 0, _KILL)]
    refused = (_SOCKETS, _FILES, _OTHERS, _KEPT, _FORKS)
    for number in (number for numbers in refused for number in numbers[machine]):
        rules += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _DENY)]
    rules += [(_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _NO_SUCH)]
    rules += [
        (_EQUAL, 0, 4, _CLONE[machine]),
        (_LOAD, 0, 0, 16),
        (_ANY_BIT, 1, 0, _THREAD),
        (_RETURN, 0, 0, _DENY),
        (_RETURN, 0, 0, _ALLOW),
    ]
    rules += [
        (_EQUAL, 0, 6, _LIMITS[machine]),
        (_LOAD, 0, 0, 16),
        (_EQUAL, 0, 2, 0),
        (_LOAD, 0, 0, 20),
        (_EQUAL, 1, 0, 0),
        (_RETURN, 0, 0, _DENY),
        (_RETURN, 0, 0, _ALLOW),
    ]
    for number, place in _OPEN[machine]:
        rules += [
            (_EQUAL, 0, 4, number),
            (_LOAD, 0, 0, 16 + 8 * place),
            (_ANY_BIT, 0, 1, _WRITING),
            (_RETURN, 0, 0, _DENY),
            (_RETURN, 0, 0, _ALLOW),
        ]
    return [*rules, (_RETURN, 0, 0, _ALLOW)]


def confine() -> None:
    """Take from this process, and from all it starts, everything that leaves it.

    Raises:
        OSError: If the kernel does not do it.
    """
    machine = platform.machine()
    if sys.platform != "linux" or machine not in _ARCHITECTURE:
        raise OSError(f"programs are confined on Linux alone, on x86_64 or aarch64, not {machine}")
    code = b"".join(struct.pack("HBBI", *rule) for rule in _rules(machine))
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.c_char_p(program), 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel refuses to confine programs")


def _run(program: bytes, tests: bytes) -> None:
    """Run a program as a module that is imported, then its tests in it as a script's."""
    codes = [compile(text, "answer", "exec") for text in (program, tests)]
    module = types.ModuleType("answer")
    # There what is defined in it is looked up, by dataclasses for one.
    sys.modules["answer"] = sys.modules["__main__"] = module
    names = module.__dict__
    exec("from typing import *", names)  # answers use names of annotations that prompts import
    exec(codes[0], names)
    names["__name__"] = "__main__"
    exec(codes[1], names)


def main(seconds: int, memory: int) -> None:
    """Run the program and its tests: stdin is a word, the program, the word again, the tests."""
    word, _, given = sys.stdin.buffer.read().partition(b"\n")
    program, _, tests = given.partition(b"\n" + word + b"\n")
    out, errors = os.dup(1), os.dup(2)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    for limit, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        resource.setrlimit(limit, (most, most))
    try:
        confine()
    except OSError as error:
        os.write(errors, f"no sandbox: {error}".encode())
        os._exit(3)
    os.close(errors)  # what a program said there would be taken for ours
    try:
        _run(program, tests)
    except BaseException:
        os._exit(1)
    os.write(out, word)
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
