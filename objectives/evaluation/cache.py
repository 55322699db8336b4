"""Answers kept on local disk, so that no candidate answers a question twice.

An evaluation that was cut off goes on where it stopped, and one that is repeated (another study
over the same questions, a validation, a replay) costs nothing. Answers are greedy, or drawn with
seeds of their own that are part of their keys: what is kept is what would be generated again.
"""

import hashlib
import json
import logging
import sqlite3
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path

from .backends.backend import Completion, Sampling

logger = logging.getLogger(__name__)

_COMMIT_SECONDS = 1.0
_WAIT_SECONDS = 60.0
# The same, once somebody held the file for so long.
_SHORT_WAIT = 1.0
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_CANNOT_WRITE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY)
# Part of every key: answers that another version kept, in other fields, are not known.
_FORMAT = 2
_INSERT = "INSERT OR REPLACE INTO answers VALUES (?, ?, ?)"
_TABLE = """CREATE TABLE IF NOT EXISTS answers (
    candidate BLOB, question BLOB, completion BLOB, PRIMARY KEY (candidate, question)
) WITHOUT ROWID"""


class AnswerCache:
    """Answers by weights, question and generation settings, in an SQLite file.

    Any number of processes may share the file, on a network's disk too: SQLite's rollback journal
    needs no shared memory. Where the file cannot be used, nothing is kept and work goes on: what
    others hold is tried again, what cannot be written is still read.

    Args:
        path: Created when needed.
        scope: Names everything else an answer depends on: models, operator, precision, engine.
    """

    def __init__(self, path: Path, scope: str) -> None:
        self._path, self._scope = path, scope
        self._connection: sqlite3.Connection | None = None
        self._writes = True
        self._unwritten: list[tuple[bytes, bytes, bytes]] = []
        self._written = time.monotonic()
        with self._tolerant():
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(path, timeout=_WAIT_SECONDS, isolation_level=None)
            connection.execute(_TABLE)
            self._connection = connection

    def candidate(self, weights: Mapping[str, Sequence[float]], sampling: Sampling) -> bytes:
        """Return the key of a candidate under generation settings."""
        groups = {name: list(numbers) for name, numbers in weights.items()}
        # More repeats, or another seed, are other answers of the same candidate: their own keys.
        limit = {"max_new_tokens", "stop", "chat"}
        settings = {k: v for k, v in asdict(sampling).items() if k in limit} | sampling.drawing
        return _hash([_FORMAT, self._scope, sorted(groups.items()), settings])

    def known(
        self, candidate: bytes, prompts: Sequence[str], seeds: Sequence[int] = ()
    ) -> dict[int, Completion]:
        """Return the answers that are known, by their prompts' places.

        Args:
            candidate: From `candidate`.
            prompts: Asked.
            seeds: Of each answer; none if they are greedy.
        """
        rows: dict[bytes, bytes] = {}
        with self._tolerant():
            if self._connection is not None:
                query = "SELECT question, completion FROM answers WHERE candidate = ?"
                rows = dict(self._connection.execute(query, (candidate,)).fetchall())
        seen = zip_longest(prompts, seeds) if rows else ()
        keys = [_question(prompt, seed) for prompt, seed in seen]
        found = {i: _unpack(rows[key]) for i, key in enumerate(keys) if key in rows}
        return {i: completion for i, completion in found.items() if completion is not None}

    def keep(
        self, candidate: bytes, prompt: str, completion: Completion, seed: int | None = None
    ) -> None:
        """Add an answer; it reaches the disk within about a second of work, or by `flush`."""
        self._unwritten.append((candidate, _question(prompt, seed), _pack(completion)))
        if time.monotonic() - self._written > _COMMIT_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was added."""
        with self._tolerant():
            if self._unwritten and self._writes and self._connection is not None:
                with self._connection as connection:
                    connection.execute("BEGIN IMMEDIATE")
                    connection.executemany(_INSERT, self._unwritten)
        self._unwritten, self._written = [], time.monotonic()

    @contextmanager
    def _tolerant(self) -> Iterator[None]:
        """Go on without the file where it cannot be used: it saves work, and no more."""
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            logger.warning("answers are not kept in %s: %s", self._path, error)
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the finer reason
            if code in _BUSY and self._connection is not None:
                self._connection.execute(f"PRAGMA busy_timeout = {1000 * _SHORT_WAIT:.0f}")
            elif code in _CANNOT_WRITE and self._connection is not None:
                self._writes = False
            else:
                self._connection = None


def _question(prompt: str, seed: int | None) -> bytes:
    return _hash(prompt if seed is None else [prompt, seed])


def _hash(content: object) -> bytes:
    return hashlib.sha256(json.dumps(content).encode()).digest()[:16]


def _pack(completion: Completion) -> bytes:
    return zlib.compress(json.dumps(asdict(completion)).encode())


def _unpack(data: bytes) -> Completion | None:
    """Return an answer; None for a damaged row, which is generated again and replaced."""
    try:
        fields = json.loads(zlib.decompress(data))
        markers = tuple((opening, closing) for opening, closing in fields.pop("markers"))
        return Completion(**fields, markers=markers)
    except (zlib.error, ValueError, TypeError, KeyError, AttributeError):
        return None
