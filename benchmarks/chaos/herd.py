"""Worker processes, and what happens to them."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Self

from postgres import Server
from processes import Program

if TYPE_CHECKING:
    from chaos import Weather

_Process = Program | subprocess.Popen[bytes]
_WORKER = Path(__file__).with_name("light_worker.py")
_FILLER = "filler"
_CLOCK = Path(__file__).with_name("hour_ahead.c")
# After which a supervisor starts a worker again, where it was; 0 is the end of the study.
_RESTARTED = (1, 143, -signal.SIGKILL)


class Herd:
    """Keeps workers running until the study is complete, through everything.

    Args:
        spec: Of the study, which exists.
        folder: Of all workers but the one whose disk fills.
        server: The database's.
        rng: Decides when what happens.
        weather: How often.
    """

    def __init__(
        self, spec: Path, folder: Path, server: Server, rng: random.Random, weather: "Weather"
    ) -> None:
        self.folder, self.log = folder, folder / "measured.jsonl"
        self.log.touch()
        self.events: Counter[str] = Counter()
        self.codes: Counter[int] = Counter()
        self._spec, self._server, self._rng, self._weather = spec, server, rng, weather
        self._processes: list[_Process] = []
        self._places: dict[int, tuple[Path, dict[str, str] | None]] = {}
        self._stopped: set[int] = set()
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._finished = 0
        self._n_kills = 0
        self._is_away = False

    def __enter__(self) -> Self:
        self._disk = _small_disk(self.folder / "small")
        self._clock = _faked_clock(self.folder)
        w = self._weather
        self._at(self._rng.uniform(*w.outage_every), self._outage)
        self._at(w.kill_every, self._kill)
        self._at(w.stop_every / 2, self._stop)
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
        if self._disk:
            subprocess.run(["umount", "-l", str(self._disk)], check=False)

    def start(self, n: int) -> None:
        """Start the first workers: one with a clock of its own, one with a disk of its own."""
        for index in range(n):
            clock = self._clock if index == 0 else None
            folder = self._disk if index == 1 and self._disk else self.folder
            self._start(folder, clock)
        if self._disk:
            self._at(self._weather.stop_every / 3, self._fill_disk)

    def done(self) -> bool:
        """Whether every worker ended with the study."""
        return not self._processes

    def tick(self) -> None:
        """Let happen what is due, and start again what ended with an error."""
        now = time.monotonic()
        due = [action for moment, action in self._later if moment <= now]
        self._later = [(moment, action) for moment, action in self._later if moment > now]
        for action in due:
            action()
        for process in list(self._processes):
            if (code := process.poll()) is None:
                continue
            self._processes.remove(process)
            self.codes[code] += 1
            self._finished += code == 0
            if code in _RESTARTED and not self._finished:
                self._start(*self._places.pop(process.pid))

    def finish(self) -> None:
        """Let every disk's results be delivered: a last worker starts on each, as on a restart."""
        if self._is_away:
            self._back()
        if self._disk:
            (self._disk / _FILLER).unlink(missing_ok=True)
        for folder in {self.folder, self._disk or self.folder}:
            process = self._start(folder, None)
            assert process.wait(timeout=300) == 0
            self._processes.remove(process)

    def _start(self, folder: Path, clock: dict[str, str] | None) -> _Process:
        arguments = [str(self.log), "worker", str(self._spec), "--wait", "120"]
        log = self.folder / "workers.log"
        process: _Process
        if clock is None:  # two cores cannot import everything anew for each that is killed
            process = Program(_WORKER.read_text(), *arguments, folder=folder, streams=(log, log))
        else:
            line = [sys.executable, str(_WORKER), *arguments]
            with log.open("ab") as stream:
                environment = {**os.environ, **clock}
                process = subprocess.Popen(line, cwd=folder, env=environment, stderr=stream)
        self._processes.append(process)
        self._places[process.pid] = (folder, clock)
        return process

    def _at(self, seconds: float, action: Callable[[], None]) -> None:
        self._later.append((time.monotonic() + seconds, action))

    def _outage(self) -> None:
        kind = self._rng.choice(["immediate", "fast"])
        self._server.stop(kind)
        self.events[f"database stopped ({kind})"] += 1
        self._is_away = True
        self._at(self._rng.uniform(0.1, self._weather.outage_longest), self._back)
        self._at(self._rng.uniform(*self._weather.outage_every) + 5.0, self._outage)

    def _back(self) -> None:
        if self._is_away:
            self._server.start()
            self._is_away = False

    def _running(self) -> list[_Process]:
        return [p for p in self._processes if p.poll() is None and p.pid not in self._stopped]

    def _kill(self) -> None:
        self._n_kills += 1
        if running := self._running():
            self._rng.choice(running).kill()
            self.events["worker killed"] += 1
            if self._n_kills % self._weather.kill_successor_every == 0:
                self._at(2.0, self._kill_newest)
        self._at(self._weather.kill_every, self._kill)

    def _kill_newest(self) -> None:
        if running := self._running():
            running[-1].kill()
            self.events["its successor killed"] += 1

    def _stop(self) -> None:
        if running := self._running():
            process = self._rng.choice(running)
            process.send_signal(signal.SIGSTOP)
            self._stopped.add(process.pid)
            self.events["worker stopped past its grace"] += 1
            self._at(15.0, lambda: self._go_on(process))
        self._at(self._weather.stop_every, self._stop)

    def _go_on(self, process: _Process) -> None:
        self._stopped.discard(process.pid)
        process.send_signal(signal.SIGCONT)

    def _fill_disk(self) -> None:
        if self._disk is None:
            return
        filler = self._disk / _FILLER
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(1 << 20)):
                pass
        self.events["disk full"] += 1
        self._at(self._weather.full_disk_for, lambda: filler.unlink(missing_ok=True))
        self._at(self._weather.full_disk_for + self._weather.stop_every, self._fill_disk)


def _small_disk(folder: Path) -> Path | None:
    """Return a new disk of 48 MiB; None without the right to mount one."""
    folder.mkdir()
    if os.geteuid() != 0:
        return None
    line = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)]
    return folder if subprocess.run(line, capture_output=True).returncode == 0 else None


def _faked_clock(folder: Path) -> dict[str, str] | None:
    """Return an environment in which it is an hour later; None without a C compiler.

    libfaketime will not do: with it, Python's `time.sleep` fails with EINVAL.
    """
    if shutil.which("cc") is None:
        return None
    library = folder / "hour_ahead.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, _CLOCK, "-ldl"], check=True)
    return {"LD_PRELOAD": str(library)}
