"""Programs in an answer: found between fences, run against tests, kept in a sandbox."""

import os
import platform
import resource
import time
from pathlib import Path

import pytest

from mergefront.objectives.evaluation.scorers import passes_tests
from mergefront.objectives.evaluation.scorers.fences import blocks

TESTS = "assert f(2) == 4\nassert f(3) == 9"


def test_programs_are_run_against_tests() -> None:
    good = "I square it.\n```python\ndef f(x: int) -> Optional[int]:\n    return x * x\n```\nDone."
    assert passes_tests(good, TESTS)
    assert passes_tests("def f(x):\n    return x**2", TESTS)
    assert not passes_tests("def f(x):\n    return x", TESTS)
    assert not passes_tests("not Python at all", TESTS)


CODE = "def f(x):\n    return x * x\n"


@pytest.mark.parametrize(
    "answer",
    [
        f"```Python\n{CODE}```\nIt squares.",
        f"```python3\n{CODE}```\nIt squares.",
        f'```py title="f.py"\n{CODE}```\nIt squares.',
        f"~~~python\n{CODE}~~~\nIt squares.",
        f"````python\n{CODE}````\nIt squares.",
        f"```python\n{CODE}```\nIt squares.".replace("\n", "\r\n"),
        f"First:\n```bash\npip install x\n```\nThen:\n```python\n{CODE}```\nIt squares.",
        f"```python\n{CODE}```\nIt prints:\n```text\n4\n```\n",
        f"```\n{CODE}```\n```console\n$ python\n```\n",
        "1. Square it:\n   ```python\n   def f(x):\n\n       return x * x\n   ```\n2. Done.",
        "- ```python\n  def f(x):\n    return x * x\n  ```\nDone.",
        f"So: ```python\n{CODE}```\nUse ```f``` then.",
        f"```python\n{CODE.rstrip()}```\nDone.\n```bash\nls\n```",
        f"```python\n{CODE}",
        f"```python\n{CODE.rstrip()}``` It squares.",
        f"```python\n{CODE}```\n```\n",
        "```python\ndef f(x):\n    '''Square.\n\n    ```\n    f(2)\n    ```\n    '''\n"
        "    return x * x\n```\nDone.",
        "```python\ndef f(x):\n    # like ```x * x```\n    return x * x\n```\nDone.",
    ],
)
def test_programs_are_found_between_fences(answer: str) -> None:
    assert passes_tests(answer, TESTS)


@pytest.mark.parametrize(
    "program",
    [
        f"from __future__ import annotations\n{CODE}",
        f'"""Squares."""\nfrom __future__ import annotations\n{CODE}',
        f"{CODE}if __name__ == '__main__':\n    import unittest\n    unittest.main()",
        f"{CODE}if __name__ == '__main__':\n    print(f(int(input())))",
        "from __future__ import annotations\nimport dataclasses\n@dataclasses.dataclass\n"
        f"class A:\n    x: ClassVar[int]\n{CODE}assert not dataclasses.fields(A)",
        f"import pickle\nclass A: pass\n{CODE}pickle.loads(pickle.dumps(A()))",
    ],
)
def test_programs_are_imported_before_their_tests(program: str) -> None:
    assert passes_tests(program, TESTS)


def test_tests_are_run_as_a_scripts() -> None:
    guarded = "if __name__ == '__main__':\n    " + TESTS.replace("\n", "\n    ")
    assert passes_tests(CODE, guarded)
    assert not passes_tests("def f(x): return x", guarded)
    assert not passes_tests(f"{CODE}text = '''", f"{TESTS}\n''''''")
    lookup = "import pickle\nclass B: pass\npickle.loads(pickle.dumps([A(), B()]))"
    assert passes_tests("class A: pass", lookup)


def test_the_last_program_counts() -> None:
    wrong = "```python\ndef f(x): return 0\n```\n"
    assert passes_tests(f"{wrong}Better:\n```python\n{CODE}```\n", TESTS)
    assert not passes_tests(f"```python\n{CODE}```\nBetter:\n{wrong}", TESTS)
    assert not passes_tests(f"```java\n{CODE}```\n", TESTS)


@pytest.mark.parametrize(
    "part", ["```", "```\n", "``` ", "~~~`\n", "`" * 99 + "\n", " \n```a ```"]
)
def test_a_huge_answer_of_fences_takes_no_time(part: str) -> None:
    start = time.process_time()
    blocks(part * (3_000_000 // len(part)), ["", "a"])
    assert time.process_time() - start < 8


@pytest.mark.parametrize(
    "body",
    [
        "import socket; socket.create_connection(('127.0.0.1', 1))",
        "import os; os.remove(PATH)",
        "import os; os.rename(PATH, PATH + 'x')",
        "open(PATH, 'w').write('x')",
        "open(PATH, 'a').write('x')",
        "import os; os.truncate(PATH, 0)",
        "import os; os.chmod(PATH, 0)",
        "import os; os.mkdir(PATH + 'd')",
        "import os; os.kill(os.getppid(), 0)",
        "import subprocess; subprocess.run(['touch', PATH + 'n'], check=True)",
        "import os; os.fork()",
        "import os; os.posix_spawn('/bin/true', ['true'], {})",
        "import os, resource as r; r.prlimit(os.getppid(), r.RLIMIT_CORE)",
    ],
)
def test_a_program_reaches_nothing_outside(tmp_path: Path, body: str) -> None:
    path = tmp_path / "mine"
    path.write_text("kept")
    program = body.replace("PATH", repr(str(path)))
    assert not passes_tests(program, "")
    assert path.read_text() == "kept"
    assert os.listdir(tmp_path) == ["mine"]
    caught = f"try:\n    {program}\nexcept Exception:\n    pass"
    assert passes_tests(caught, "")  # refused, not killed


@pytest.mark.parametrize(
    "call",
    [
        "shmget(KEY, 1, 0o600)",
        "semget(KEY, 1, 0o600)",
        "msgget(KEY, 0o600)",
        "shmat(0, None, 0)",
        "msgctl(0, 2, None)",
        "mq_open(b'/none-of-this-name', 0)",
        "mq_unlink(b'/none-of-this-name')",
        "syscall(KEYS, 4, 0, 0, 0, 0)",
    ],
)
def test_a_program_reaches_nothing_that_the_kernel_keeps(call: str) -> None:
    """No number of these exists: without the sandbox the call fails by another error."""
    keys = {"x86_64": 250, "aarch64": 219}[platform.machine()]
    call = call.replace("KEYS", str(keys)).replace("KEY", "0x7a11ce")
    libc = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
    # libc says 13 where the kernel refuses to remove a queue.
    assert passes_tests(libc, f"assert libc.{call} == -1 and ctypes.get_errno() in (1, 13)")


@pytest.mark.parametrize(
    "program",
    [
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "raise SystemExit",
        "x = [0] * 10**10",
        "\x00",
        "(" * 100_000,
        "def f(): f()\nf()",
        "import os\nos.abort()",
    ],
)
def test_programs_that_end_early_fail(program: str) -> None:
    assert not passes_tests(program, "")


def test_programs_have_limits_of_time() -> None:
    start = time.monotonic()
    assert not passes_tests("while True: pass", "", seconds=1)
    assert not passes_tests("import time; time.sleep(100)", "", patience=2.0)
    assert time.monotonic() - start < 60


def test_what_programs_say_is_no_verdict_and_not_collected() -> None:
    said = (
        "import os\nfor place in range(3, 9):\n    try: os.write(place, {})\n    except OSError: 0"
    )
    assert not passes_tests(said.format("b'no sandbox: there is none'"), "")
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert not passes_tests(said.format("b'x' * 65536 * 4000"), "", seconds=1)
    assert time.monotonic() - start < 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_programs_may_read_and_lower_their_own_limits() -> None:
    own = "import resource as r\nsoft, hard = r.getrlimit(r.RLIMIT_CPU)\n"
    assert passes_tests(own + "r.setrlimit(r.RLIMIT_CPU, (soft - 1, hard))", "")
    assert passes_tests(own + "r.prlimit(0, r.RLIMIT_CPU, (soft - 1, hard))", "")


def test_programs_have_threads_and_no_processes() -> None:
    threads = "from concurrent.futures import ThreadPoolExecutor as P\n"
    assert passes_tests(threads + "assert sum(P(4).map(abs, [-1, -2])) == 3", "")
    start = time.monotonic()
    assert not passes_tests("import os\nwhile True: os.fork()", "")
    assert not passes_tests("import os\nif os.fork() == 0: os.setsid()\nelse: os.kill(0, 9)", "")
    assert time.monotonic() - start < 30
