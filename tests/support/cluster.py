"""Workers as a cluster runs them: processes that are killed, stopped and started again."""

import json
import signal
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from processes import Program

# A worker as `mergefront worker` starts it, which notes every result at the moment when it is
# safe on disk.
_WORKER = """
import json, sys
from mergefront.study.cli import app
from mergefront.study.workers.spool import Spool

write, log = Spool.write, sys.argv.pop()

def noted(self, result):
    path = write(self, result)
    with open(log, "a") as file:
        row = {"number": result.number, "worker": result.worker, "values": result.values}
        file.write(json.dumps(row) + "\\n")
    return path

Spool.write = noted
sys.argv[0] = "mergefront"
app()
"""


class Cluster:
    """Worker processes of one study.

    Args:
        spec: Its file; its storage exists.
        folder: Working directory of all workers.
    """

    def __init__(self, spec: Path, folder: Path) -> None:
        self._spec, self._folder = spec, folder
        self._log = folder / "measured.jsonl"
        self._log.touch()
        self.processes: list[Program] = []
        self._stopped: list[Program] = []

    def start(self, n: int) -> None:
        """Start more workers."""
        arguments = ["worker", str(self._spec), "--wait", "60", str(self._log)]
        for _ in range(n):
            self.processes.append(Program(_WORKER, *arguments, folder=self._folder))

    def working(self) -> list[Program]:
        """Return the workers that have measured something, and neither ended nor were stopped."""
        pids = {_pid(row["worker"]) for row in self.measured()}
        running = [p for p in self.processes if p.poll() is None and p not in self._stopped]
        return [p for p in running if p.pid in pids]

    def stop_at_work(self, study: optuna.Study) -> None:
        """Stop a worker in the middle of an evaluation (SIGSTOP)."""
        while not self._stopped:
            for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                process = self._process_of(trial.user_attrs["worker"])
                if process not in self.working():
                    continue
                process.send_signal(signal.SIGSTOP)
                if study.get_trials(deepcopy=False)[trial.number].state == TrialState.RUNNING:
                    self._stopped.append(process)
                    return
                process.send_signal(signal.SIGCONT)

    def _process_of(self, worker: str) -> Program:
        (process,) = [p for p in self.processes if p.pid == _pid(worker)]
        return process

    def go_on(self) -> None:
        """Let the stopped workers go on."""
        while self._stopped:
            self._stopped.pop().send_signal(signal.SIGCONT)

    def wait(self, seconds: float) -> list[int]:
        """Wait for all workers; return the exit codes of those that were not killed."""
        codes = [process.wait(timeout=seconds) for process in self.processes]
        return [code for code in codes if code != -signal.SIGKILL]

    def kill(self) -> None:
        """End everything."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()

    def measured(self) -> list[dict[str, Any]]:
        """Return every result that was ever safe on a worker's disk."""
        return [json.loads(line) for line in self._log.read_text().splitlines()]


def _pid(worker: str) -> int:
    return int(worker.split("-")[-2])
