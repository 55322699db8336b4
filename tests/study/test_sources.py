"""Studies that learn from earlier ones, as a spec asks for it."""

from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from command import invoke
from mergefront.errors import SpecError
from mergefront.samplers import has_sources
from mergefront.study import StudySpec
from mergefront.study.dry_run import plan_study
from mergefront.study.seeding import init_study
from mergefront.study.spec.inputs import StudyInputs
from mergefront.study.storage.connection import load_study
from mergefront.study.warm_start import shown_reference, sources_of
from small_study import write_spec


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the spec of a finished study."""
    path = write_spec(tmp_path_factory.mktemp("earlier"))
    assert invoke("run", str(path)).exit_code == 0
    return path


def _later(folder: Path, earlier: Path, *references: str, **changes: Any) -> Path:
    sampler = {"warm_start": list(references) or [str(earlier)]}
    storage = yaml.safe_load(earlier.read_text())["study"]["storage"]
    study = {"name": f"later-{folder.name}", "storage": storage, "trials": 10}
    return write_spec(folder, sampler=sampler, study=study, **changes)


def test_a_study_begins_with_what_another_found(earlier: Path, tmp_path: Path) -> None:
    path = _later(tmp_path, earlier, "small", merge={"embeddings": "merge", "head": "merge"})
    spec = StudySpec.from_yaml(path)
    told = dict(plan_study(spec))["warm start"]
    assert told == "10 trials of study small tell of accuracy, tokens, by 8 of its 10 weights"
    assert invoke("run", str(path)).exit_code == 0
    study = load_study(spec)
    assert len([t for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE]) == 10


def test_sources_are_read_once_and_may_be_named_later(earlier: Path, tmp_path: Path) -> None:
    storage = yaml.safe_load(earlier.read_text())["study"]["storage"]
    brief = optuna.create_study(
        study_name="brief", storage=storage, directions=["maximize", "minimize"]
    )
    brief.set_metric_names(["accuracy", "tokens"])
    brief.optimize(lambda trial: (trial.suggest_float("layer_000", 0, 1), 1.0), n_trials=3)
    path = _later(tmp_path, earlier, "brief")
    spec = StudySpec.from_yaml(path)
    without = spec.model_copy(
        update={"sampler": spec.sampler.model_copy(update={"warm_start": []})}
    )
    assert not has_sources(init_study(StudyInputs.of(without)))
    assert "warm start" in dict(plan_study(spec))
    assert has_sources(init_study(StudyInputs.of(spec)))
    optuna.delete_study(study_name="brief", storage=storage)
    assert has_sources(init_study(StudyInputs.of(spec)))
    told = dict(plan_study(spec))["warm start"]  # and the spec may name others: it is kept
    assert told.startswith("3 trials of study brief tell") and told.endswith("was first read")


@pytest.mark.parametrize("form", ["{spec}", "{storage}#small", "small"])
def test_a_source_is_named_in_three_ways(earlier: Path, tmp_path: Path, form: str) -> None:
    storage = yaml.safe_load(earlier.read_text())["study"]["storage"]
    path = _later(tmp_path, earlier, form.format(spec=earlier, storage=storage))
    (source,) = sources_of(StudyInputs.of(StudySpec.from_yaml(path)))
    assert (source.study, source.n_trials) == ("small", 10)


def test_what_cannot_be_read_is_said_before_anything_is_created(
    earlier: Path, tmp_path: Path
) -> None:
    path = _later(tmp_path, earlier, "smal")
    for ask in (("run", str(path), "--dry-run"), ("run", str(path))):
        result = invoke(*ask)
        assert result.exit_code != 0
        assert "sampler.warm_start[0]: It names the study 'smal'" in result.output
        assert "did you mean 'small'?" in result.output
    storage = yaml.safe_load(earlier.read_text())["study"]["storage"]
    assert optuna.get_all_study_names(storage).count(f"later-{tmp_path.name}") == 0


def test_a_new_study_is_no_source_of_itself(earlier: Path, tmp_path: Path) -> None:
    path = _later(tmp_path, earlier, f"later-{tmp_path.name}")
    content = yaml.safe_load(path.read_text())
    content["study"]["storage"] = f"sqlite:///{tmp_path}/new/study.db"
    path.write_text(yaml.safe_dump(content))
    result = invoke("run", str(path), "--dry-run")
    assert result.exit_code == 1
    assert "is this study itself, which has measured nothing yet" in result.output
    assert not (tmp_path / "new").exists()


def test_a_broken_source_leaves_no_database(earlier: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.db").write_text("not a database")
    path = _later(tmp_path, earlier, f"sqlite:///{tmp_path}/broken.db#x")
    content = yaml.safe_load(path.read_text())
    content["study"]["storage"] = f"sqlite:///{tmp_path}/new/study.db"
    path.write_text(yaml.safe_dump(content))
    result = invoke("run", str(path))
    assert result.exit_code != 0
    assert "sampler.warm_start[0]: The storage" in result.output
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("twice", [False, True])
def test_nothing_counts_twice(earlier: Path, tmp_path: Path, twice: bool) -> None:
    if twice:
        path = _later(tmp_path, earlier, str(earlier))
        content = yaml.safe_load(path.read_text())
        content["sampler"]["warm_start"].append("small")
        path.write_text(yaml.safe_dump(content))
    else:  # the earlier study's own spec, which gets the key now
        content = yaml.safe_load(earlier.read_text())
        content["sampler"] = {"warm_start": ["small"]}
        path = earlier.with_name("own.yaml")
        path.write_text(yaml.safe_dump(content))
    told = "is named already" if twice else "is this study itself"
    place = int(twice)
    for ask in (("run", str(path), "--dry-run"), ("run", str(path))):
        result = invoke(*ask)
        assert result.exit_code != 0
        assert f"sampler.warm_start[{place}]: study 'small' {told}" in result.output


def test_a_study_without_a_common_objective_is_refused(earlier: Path, tmp_path: Path) -> None:
    storage = yaml.safe_load(earlier.read_text())["study"]["storage"]
    other = optuna.create_study(study_name="other", storage=storage, direction="minimize")
    other.set_metric_names(["loss"])
    other.optimize(lambda trial: trial.suggest_float("layer_000", 0, 1), n_trials=2)
    path = _later(tmp_path, earlier, "other")
    says = "has the objectives minimize loss, and this one maximize accuracy"
    with pytest.raises(SpecError, match=says):
        plan_study(StudySpec.from_yaml(path))


def test_precisions_stand_for_no_weights(earlier: Path, tmp_path: Path) -> None:
    """Weights per layer tell nothing of one weight for the model."""
    precision = {"choose": ["int8", "int4"], "groups": 2}
    merge = {"granularity": "uniform", "precision": precision}
    merge |= {"embeddings": "merge", "head": "merge"}
    for rules in (merge, {**merge, "precision": None}):
        path = _later(tmp_path, earlier, models={"dtype": "bfloat16"}, merge=rules)
        with pytest.raises(SpecError, match=r"and this one uniform: none can be matched"):
            plan_study(StudySpec.from_yaml(path))


def test_other_presets_do_not_pretend_to_learn(earlier: Path, tmp_path: Path) -> None:
    path = _later(tmp_path, earlier)
    content = yaml.safe_load(path.read_text())
    content["sampler"]["preset"] = "tpe"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(SpecError, match="only the presets mergefront, qnehvi have warm_st"):
        StudySpec.from_yaml(path)


def test_passwords_of_sources_are_not_kept() -> None:
    assert (
        shown_reference("postgresql://me:secret@host/db#one") == "postgresql://me:***@host/db#one"
    )
    assert shown_reference("one") == "one"


@pytest.mark.parametrize("reference", ["", "#", "postgresql://me:secret@host/db#"])
def test_a_reference_names_a_study(earlier: Path, tmp_path: Path, reference: str) -> None:
    path = _later(tmp_path, earlier)
    content = yaml.safe_load(path.read_text())
    content["sampler"]["warm_start"] = [reference]
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(SpecError, match="must name a study") as refused:
        plan_study(StudySpec.from_yaml(path))
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("reference", ["sqlite:///none.db#small", "gone.yaml"])
def test_a_source_that_cannot_be_opened_is_said_where_it_is_named(
    earlier: Path, tmp_path: Path, reference: str
) -> None:
    path = _later(tmp_path, earlier, "small", reference)
    with pytest.raises(SpecError, match=r"sampler\.warm_start\[1\]: "):
        plan_study(StudySpec.from_yaml(path))
