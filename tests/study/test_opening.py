"""Learned blocks are measured once, before the study, and every worker has the same."""

import json
from collections.abc import Iterator
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from command import invoke
from mergefront.errors import LayoutError, SpecError
from mergefront.examples.demo import QUESTIONS
from mergefront.study import StudySpec
from mergefront.study.dry_run import plan_study
from mergefront.study.opening import open_inputs, with_blocks, worker_inputs
from mergefront.study.seeding import init_study
from mergefront.study.selection.measured_merges import study_examples
from mergefront.study.spec.inputs import StudyInputs, load_inputs
from mergefront.study.storage.connection import load_study
from mergefront.study.storage.identity import FINGERPRINT
from postgres import Server, serve
from small_study import write_spec


def _spec(folder: Path, importance: bool = True, **merge: Any) -> Path:
    files = {"search": "search.jsonl", "validation": "validation.jsonl"}
    if importance:
        lines = (QUESTIONS / "importance.jsonl").read_text().splitlines(keepends=True)
        (folder / "importance.jsonl").write_text("".join(lines[:24]))
        files["importance"] = "importance.jsonl"
    keys = {"granularity": "learned-blocks", "n_blocks": 3, **merge}
    tasks = [{"name": "demo", "files": files}]
    return write_spec(folder, study={"trials": 3}, merge=keys, evaluation={"tasks": tasks})


def test_blocks_are_measured_once_and_kept_in_the_study(tmp_path: Path) -> None:
    spec = StudySpec.from_yaml(path := _spec(tmp_path))
    planned = dict(plan_study(spec))["search"]
    assert planned.startswith("5 variables") and "3 blocks, measured when" in planned
    inputs = open_inputs(spec)
    blocks = inputs.plan.settings.blocks
    # On the demo pair the first layers do most, each in its own measure; the others are alike.
    assert blocks == (0, 1, 2)
    assert inputs.plan.groups == ("block_000", "block_001", "block_002", "embeddings", "head")
    assert open_inputs(spec).plan.settings.blocks == blocks
    assert invoke("run", path).exit_code == 0
    study = load_study(spec)
    assert study.user_attrs[FINGERPRINT]["merge.blocks"] == [0, 1, 2]
    assert study.user_attrs["mergefront:spec"]["merge"]["blocks"] == [0, 1, 2]
    base, expert, half = (trial.values[0] for trial in study.trials)
    assert study_examples(spec)[0].gain == pytest.approx(half - (base + expert) / 2)
    # What another machine would measure does not count.
    kept = study.user_attrs[FINGERPRINT] | {"merge.blocks": [0, 2, 5]}
    study._storage.set_study_user_attr(study._study_id, FINGERPRINT, kept)
    assert open_inputs(spec).plan.settings.blocks == (0, 2, 5)
    assert "blocks from layers 0 2 5" in dict(plan_study(spec))["search"]
    init_study(open_inputs(spec))


def test_a_worker_waits_for_the_blocks_of_its_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _spec(tmp_path)
    monkeypatch.setattr("mergefront.study.opening.layer_effects", _never)
    done = invoke("worker", path, "--wait", "0.1")
    assert (done.exit_code, "small" in done.stderr) == (1, True)
    spec = StudySpec.from_yaml(path)
    # The study of another machine, which measured other blocks and creates it while one waits.
    created = Timer(1.0, lambda: init_study(StudyInputs.of(with_blocks(spec, (0, 2, 5)))))
    created.start()
    assert worker_inputs(spec, 60.0).plan.settings.blocks == (0, 2, 5)
    created.join()


@pytest.mark.parametrize("command", ["init", "run"])
def test_of_two_creators_at_the_same_moment_the_firsts_blocks_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    path = _spec(tmp_path)
    spec = StudySpec.from_yaml(path)

    def measured_meanwhile(inputs: StudyInputs) -> tuple[int, ...]:
        # While this process measures, another machine creates the study with what it found.
        init_study(StudyInputs.of(with_blocks(spec, (0, 2, 5))))
        return (0, 1, 2)

    monkeypatch.setattr("mergefront.study.opening.measured_blocks", measured_meanwhile)
    done = invoke(command, path)
    assert done.exit_code == 0, done.stderr
    study = load_study(spec)
    assert study.user_attrs[FINGERPRINT]["merge.blocks"] == [0, 2, 5]
    names = {name for trial in study.trials for name in trial.params}
    expected = {"block_000", "block_001", "block_002", "embeddings", "head"}
    assert names == expected


def test_other_settings_are_refused_whoever_measured_the_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = StudySpec.from_yaml(path := _spec(tmp_path))

    def measured_meanwhile(inputs: StudyInputs) -> tuple[int, ...]:
        other = with_blocks(spec, (0, 2, 5)).model_dump(mode="json")
        other["evaluation"]["max_new_tokens"] = 40
        init_study(StudyInputs.of(StudySpec.parse(other, spec.folder)))
        return (0, 1, 2)

    monkeypatch.setattr("mergefront.study.opening.measured_blocks", measured_meanwhile)
    done = invoke("init", path)
    assert done.exit_code == 1
    assert "max_new_tokens was 40, is 48. " in done.stderr and "blocks" not in done.stderr


def test_nothing_is_measured_while_the_database_may_have_the_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    storage = server.new_database()
    path = _spec(tmp_path)
    spec = StudySpec.from_yaml(path).with_overrides(storage)
    init_study(StudyInputs.of(with_blocks(spec, (0, 2, 5))))
    monkeypatch.setattr("mergefront.study.opening.layer_effects", _never)
    server.stop()
    done = invoke("run", path, "--storage", storage)
    assert (done.exit_code, "cannot be opened" in done.stderr) == (1, True)
    start = Timer(1.0, server.start)
    start.start()
    done = invoke("init", path, "--storage", storage, "--wait", "60")
    start.join()
    assert (done.exit_code, done.output) == (0, "Study 'small' has 3 trials.\n")
    assert open_inputs(spec).plan.settings.blocks == (0, 2, 5)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server to be stopped, of this module alone."""
    with serve() as server:
        yield server


def _never(*_: Any, **__: Any) -> None:
    raise AssertionError("blocks are measured where the study is created, and nowhere else")


def test_blocks_may_be_named(tmp_path: Path) -> None:
    for granularity in ("blocks", "learned-blocks"):
        path = _spec(tmp_path, importance=False, granularity=granularity, blocks=[0, 4])
        inputs = load_inputs(path)
        assert inputs.plan.groups[:2] == ("block_000", "block_001")
        assert inputs.fingerprint()["merge.blocks"] == [0, 4]
    with pytest.raises(LayoutError, match=r"increasing layers from 0 to 7, but got \[0, 8\]"):
        load_inputs(_spec(tmp_path, blocks=[0, 8]))
    with pytest.raises(SpecError, match="blocks belong to granularity blocks or learned-blocks"):
        load_inputs(_spec(tmp_path, granularity="layer", blocks=[0, 4]))
    with pytest.raises(SpecError, match=r"merge.blocks: .* at least 1 item.*, but got \[\]"):
        load_inputs(_spec(tmp_path, blocks=[]))


def test_a_study_of_other_granularity_has_the_fingerprint_that_it_had(tmp_path: Path) -> None:
    inputs = load_inputs(_spec(tmp_path, granularity="blocks"))
    assert "merge.blocks" not in json.loads(json.dumps(inputs.fingerprint()))


def test_learning_needs_questions_of_its_own(tmp_path: Path) -> None:
    spec = StudySpec.from_yaml(_spec(tmp_path, importance=False))
    for refused in (open_inputs, plan_study):
        with pytest.raises(SpecError, match=r"'learned-blocks' needs .*or use granularity 'bl"):
            refused(spec)
    with pytest.raises(SpecError, match="measured when a study is created"):
        load_inputs(tmp_path / "spec.yaml")
