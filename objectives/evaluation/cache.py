"""Answers kept on local disk, so that no candidate answers a question twice.

An evaluation that was cut off goes on where it stopped, and one that is repeated (another study
over the same questions, a validation, a replay) costs nothing. Answers are greedy: what is kept
is what would be generated again.
"""

import hashlib
import json
import sqlite3
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from .backend import Completion, Sampling

_COMMIT_SECONDS = 1.0
_WAIT_SECONDS = 60.0
_TABLE = """CREATE TABLE IF NOT EXISTS answers (
    candidate BLOB, question BLOB, completion BLOB, PRIMARY KEY (candidate, question)
) WITHOUT ROWID"""


class AnswerCache:
    """Answers by weights, question and generation settings, in an SQLite file.

    Any number of processes of one machine may share the file.

    Args:
        path: Created when needed.
        scope: Names everything else an answer depends on: models, operator, precision, engine.
    """

    def __init__(self, path: Path, scope: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._scope = scope
        self._connection = sqlite3.connect(path, timeout=_WAIT_SECONDS, isolation_level=None)
        # Losing the last second to a power cut costs a second's answers; the file stays whole.
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute(_TABLE)
        self._unwritten: list[tuple[bytes, bytes, bytes]] = []
        self._written = time.monotonic()

    def candidate(self, weights: Mapping[str, Sequence[float]], sampling: Sampling) -> bytes:
        """Return the key of a candidate under generation settings."""
        groups = {name: list(numbers) for name, numbers in weights.items()}
        return _hash([self._scope, sorted(groups.items()), asdict(sampling)])

    def known(self, candidate: bytes, prompts: Sequence[str]) -> dict[int, Completion]:
        """Return the answers that are known, by their prompts' places."""
        rows = dict(
            self._connection.execute(
                "SELECT question, completion FROM answers WHERE candidate = ?", (candidate,)
            ).fetchall()
        )
        keys = [_hash(prompt) for prompt in prompts] if rows else []
        return {i: _unpack(rows[key]) for i, key in enumerate(keys) if key in rows}

    def keep(self, candidate: bytes, prompt: str, completion: Completion) -> None:
        """Add an answer; it reaches the disk within about a second of work, or by `flush`."""
        self._unwritten.append((candidate, _hash(prompt), _pack(completion)))
        if time.monotonic() - self._written > _COMMIT_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was added."""
        if self._unwritten:
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany(
                    "INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", self._unwritten
                )
        self._unwritten, self._written = [], time.monotonic()

    def close(self) -> None:
        """Write what was added and close the file."""
        self.flush()
        self._connection.close()


def _hash(content: object) -> bytes:
    return hashlib.sha256(json.dumps(content).encode()).digest()[:16]


def _pack(completion: Completion) -> bytes:
    return zlib.compress(json.dumps(asdict(completion)).encode())


def _unpack(data: bytes) -> Completion:
    return Completion(**json.loads(zlib.decompress(data)))
