"""No candidate answers a question twice."""

import sqlite3
import subprocess
import sys
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mergefront.examples.demo import BASE, QUESTIONS
from mergefront.objectives import MergeObjective, questions_of
from mergefront.objectives.checkpoints import Checkpoint, is_tied
from mergefront.objectives.evaluation import (
    METRICS,
    Completion,
    Finished,
    Models,
    Sampling,
    TaskSource,
    load_task,
)
from mergefront.objectives.evaluation.backends.backend import Conversation
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
from mergefront.objectives.evaluation.cache import AnswerCache
from mergefront.objectives.merging import MergePlan, MergeSettings

WEIGHTS = {"layer_000": [0.5], "layer_001": [0.25]}
ANSWER = Completion("<think>é</think>7", 12, "stop", 10, 0.25)


def test_what_is_kept_is_found_by_any_process(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "c" / "answers.db", "scope")
    key = cache.candidate(WEIGHTS, Sampling(8))
    cache.keep(key, "a", ANSWER)
    cache.flush()
    other = AnswerCache(tmp_path / "c" / "answers.db", "scope")
    found = other.known(other.candidate(WEIGHTS, Sampling(8)), ["b", "a"])
    assert found == {1: ANSWER}
    assert found[1].seconds == 0.25


@pytest.mark.parametrize(
    ("scope", "weights", "sampling"),
    [
        ("other", WEIGHTS, Sampling(8)),
        ("scope", {**WEIGHTS, "layer_001": [0.2500001]}, Sampling(8)),
        ("scope", WEIGHTS, Sampling(9)),
        ("scope", WEIGHTS, Sampling(8, chat=False)),
        ("scope", WEIGHTS, Sampling(8, stop=("x",))),
    ],
)
def test_everything_that_changes_an_answer_changes_its_key(
    tmp_path: Path, scope: str, weights: dict[str, list[float]], sampling: Sampling
) -> None:
    path = tmp_path / "answers.db"
    known = AnswerCache(path, "scope").candidate(WEIGHTS, Sampling(8))
    assert AnswerCache(path, scope).candidate(weights, sampling) != known


class _Interrupted(TransformersBackend):
    """Stops after some answers, once."""

    left: int = 10**6
    n_generated: int = 0

    def generate(
        self,
        prompts: Sequence[str | Conversation],
        sampling: Sampling,
        finished: Finished | None = None,
        seeds: Sequence[int] = (),
    ) -> list[Completion]:
        def counted(index: int, completion: Completion) -> None:
            self.n_generated += 1
            self.left -= 1
            assert finished is not None
            finished(index, completion)
            if self.left == 0:
                raise KeyboardInterrupt

        return super().generate(prompts, sampling, counted, seeds)


@pytest.fixture(scope="module")
def backend() -> _Interrupted:
    backend = _Interrupted(batch_size=16, device="cpu")
    backend.load(Models(BASE, (BASE,), "float32"))
    return backend


def _objective(backend: _Interrupted, path: Path) -> MergeObjective:
    task = load_task(TaskSource("demo", {"search": QUESTIONS / "importance.jsonl"}))
    base = Checkpoint(BASE)
    plan = MergePlan(base.layout, MergeSettings(), is_tied(base))
    return MergeObjective(
        backend,
        plan,
        questions_of([task], "search")[:50],
        [METRICS["accuracy"], METRICS["tokens"]],
        Sampling(32),
        cache=AnswerCache(path, "scope"),
    )


def _values(measurement: Any) -> Mapping[str, Any]:
    attributes = measurement.attributes()
    kept = {k: attributes[k] for k in ("standard_errors", "generated_tokens", "finish_reasons")}
    return {**kept, "values": measurement.values, "answers": measurement.answers}


def test_an_interrupted_evaluation_goes_on_and_a_repeated_one_generates_nothing(
    backend: _Interrupted, tmp_path: Path
) -> None:
    objective = _objective(backend, tmp_path / "answers.db")
    params = objective.plan.uniform(0.5)
    backend.left, backend.n_generated = 20, 0
    with pytest.raises(KeyboardInterrupt):
        objective.measure(params)
    backend.left = 10**6
    resumed = _objective(backend, tmp_path / "answers.db").measure(params)
    assert backend.n_generated == 50
    assert resumed.n_cached == 20
    seen: list[int] = []
    again = objective.measure(params, seen.append)
    assert sum(seen) == 50
    assert (backend.n_generated, again.attributes()["n_cached"]) == (50, 50)
    assert _values(again) == _values(resumed)


@pytest.mark.parametrize("content", [b"not a database, but long enough" * 60, None])
def test_a_file_that_cannot_be_used_stops_nobody(
    tmp_path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "answers.db"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    cache = AnswerCache(path, "scope")
    key = cache.candidate(WEIGHTS, Sampling(8))
    cache.keep(key, "a", ANSWER)
    cache.flush()
    assert cache.known(key, ["a"]) == {}
    assert "answers are not kept" in caplog.text


def test_a_file_that_others_hold_is_used_again_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mergefront.objectives.evaluation.cache._WAIT_SECONDS", 0.1)
    cache = AnswerCache(tmp_path / "answers.db", "scope")
    key = cache.candidate(WEIGHTS, Sampling(8))
    other = sqlite3.connect(tmp_path / "answers.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    cache.keep(key, "a", ANSWER)
    cache.flush()
    assert "answers are not kept" in caplog.text
    other.execute("COMMIT")
    cache.keep(key, "b", ANSWER)
    cache.flush()
    assert cache.known(key, ["a", "b"]) == {1: ANSWER}


def test_what_cannot_be_written_is_still_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = AnswerCache(tmp_path / "answers.db", "scope")
    key = cache.candidate(WEIGHTS, Sampling(8))
    cache.keep(key, "a", ANSWER)
    cache.flush()
    assert cache._connection is not None
    pages = cache._connection.execute("PRAGMA page_count").fetchone()[0]
    cache._connection.execute(f"PRAGMA max_page_count = {pages}")
    for n in range(400):
        cache.keep(key, str(n), ANSWER)
    cache.flush()
    cache.keep(key, "c", ANSWER)
    cache.flush()
    assert caplog.text.count("database or disk is full") == 1
    assert cache.known(key, ["a", "c"]) == {0: ANSWER}


def test_many_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "answers.db"
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(path), str(number)])
        for number in range(2)
    ]
    assert [writer.wait() for writer in writers] == [0] * 2
    cache = AnswerCache(path, "scope")
    prompts = [f"{number}-{i}" for number in range(2) for i in range(30)]
    assert len(cache.known(cache.candidate(WEIGHTS, Sampling(8)), prompts)) == 60


_WRITER = """
import sys
from pathlib import Path
from mergefront.objectives.evaluation import Completion, Sampling
from mergefront.objectives.evaluation.cache import AnswerCache

cache = AnswerCache(Path(sys.argv[1]), "scope")
key = cache.candidate({"layer_000": [0.5], "layer_001": [0.25]}, Sampling(8))
for i in range(30):
    cache.keep(key, f"{sys.argv[2]}-{i}", Completion("x", 1, "stop"))
    cache.flush()
"""


@pytest.mark.parametrize("damaged", [b"", b"x" * 40, "json", "fields"])
def test_a_damaged_row_is_an_unknown_answer(tmp_path: Path, damaged: bytes | str) -> None:
    cache = AnswerCache(tmp_path / "answers.db", "scope")
    key = cache.candidate(WEIGHTS, Sampling(8))
    cache.keep(key, "a", ANSWER)
    cache.keep(key, "b", ANSWER)
    cache.flush()
    texts = {"json": b"[1]", "fields": b'{"logprob": 1, "markers": []}'}
    row = zlib.compress(texts[damaged]) if isinstance(damaged, str) else damaged
    with sqlite3.connect(tmp_path / "answers.db") as connection:
        connection.execute(
            "UPDATE answers SET completion = ? WHERE question = "
            "(SELECT min(question) FROM answers)",
            (row,),
        )
    assert len(cache.known(key, ["a", "b"])) == 1
    cache.keep(key, "a", ANSWER)
    cache.keep(key, "b", ANSWER)
    cache.flush()
    assert cache.known(key, ["a", "b"]) == {0: ANSWER, 1: ANSWER}
