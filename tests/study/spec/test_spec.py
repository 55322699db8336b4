"""Specs: what is accepted, and the one line that says why not."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from mergefront.errors import SpecError
from mergefront.study import StudySpec
from mergefront.study.spec.inputs import StudyInputs, load_inputs
from small_study import write_spec

REPOSITORY = Path(__file__).parents[3]


def _changed(path: Path, section: str, key: str, value: Any) -> Path:
    content = yaml.safe_load(path.read_text())
    content[section][key] = value
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_demo_spec_is_valid() -> None:
    spec = StudySpec.from_yaml(REPOSITORY / "examples" / "demo.yaml")
    assert spec.metric_names == ["accuracy", "tokens"]
    assert spec.directions == ["maximize", "minimize"]
    assert len(StudyInputs.of(spec).plan.groups) == 10


def test_defaults_are_the_documented_ones(spec_path: Path) -> None:
    content = yaml.safe_load(spec_path.read_text())
    del content["merge"]
    spec = StudySpec.parse(content, spec_path.parent)
    assert spec.merge.model_dump() == {
        "operator": "linear",
        "granularity": "layer",
        "bounds": (0.0, 1.0),
        "embeddings": "merge",
        "head": "merge",
        "density": 1.0,
        "parameters": {},
        "seed": 0,
        "n_blocks": 6,
        "blocks": None,
        "router": "merge",
        "towers": "equal",
        "order": None,
        "precision": None,
    }
    assert spec.evaluation.splits == {"search": 0.6, "validation": 0.4}
    assert spec.sampler.preset == "mergefront"


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("study", "trails", 5, r"unknown key 'study\.trails'; did you mean 'trials'\?"),
        ("merge", "qwertz", 5, r"unknown key 'merge\.qwertz'; known keys: operator, granularity"),
        ("evaluation", "max_tokens", 5, "did you mean 'max_new_tokens'"),
        ("evaluation", "reasoning", {"markers": [["|", "|"]]}, r"'\|' cannot both open reasoning"),
        ("study", "trials", 0, r"study\.trials: .*greater than or equal to 1, but got 0"),
        ("study", "storage", "runs.db", r"study\.storage: .* but got 'runs\.db'"),
        ("merge", "bounds", [1, 0], r"low < high, but got \[1, 0\]; write \[0, 1\]"),
        ("merge", "bounds", [0.5, 0.5], r"bounds \[0\.5, 0\.5\] are empty"),
        ("merge", "operator", "liner", "but got 'liner'; did you mean 'linear'"),
        ("merge", "density", 0.5, "remove density=0.5"),
        ("merge", "density", 1.5, "less than or equal to 1, but got 1.5"),
        ("merge", "parameters", {"lambda": 2}, "but got 'lambda'. Remove it"),
        ("merge", "granularity", "tensor", r"merge\.granularity: .* but got 'tensor'"),
        ("models", "experts", [], "at least 1 item"),
        ("models", "dtype", "int8", "but got 'int8'"),
        ("evaluation", "splits", {"search": 0.9, "test": 0.2}, "add up to 1 at most"),
        ("evaluation", "splits", {"validation": 0.5}, "'search' a fraction above 0"),
        ("evaluation", "splits", {"train": 0.5}, "'train'"),
        (
            "evaluation",
            "tasks",
            [{"name": "t"}],
            "one of `files`, one per split, `path`, `lm_eval` or `texts`",
        ),
        (
            "evaluation",
            "tasks",
            [{"name": "t", "path": "x", "scorer": "exact"}],
            "but got 'exact'; did you mean 'exact_match'",
        ),
        (
            "evaluation",
            "tasks",
            [{"name": "t", "path": "x", "promt": "y"}],
            r"unknown key 'evaluation\.tasks\.0\.promt'; did you mean 'prompt'",
        ),
    ],
)
def test_a_wrong_value_is_named_with_its_rule(
    spec_path: Path, section: str, key: str, value: Any, message: str
) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        StudySpec.from_yaml(_changed(spec_path, section, key, value))
    assert "\n" not in str(caught.value)


def test_more_than_one_mistake_is_told(tmp_path: Path) -> None:
    path = write_spec(tmp_path, merge={"operator": "liner"}, sampler={"preset": "mergefrnt"})
    with pytest.raises(SpecError, match=r"'linear'\? sampler\.preset: .*'mergefront'") as caught:
        StudySpec.from_yaml(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        ([], "at least 1 item"),
        ([{"metric": "acuracy"}], "did you mean 'accuracy'"),
        ([{"metric": "tokens"}, {"metric": "tokens"}], "different metrics"),
    ],
)
def test_objectives_are_known_and_different(
    spec_path: Path, objectives: list[Any], message: str
) -> None:
    content = yaml.safe_load(spec_path.read_text())
    content["objectives"] = objectives
    with pytest.raises(SpecError, match=message):
        StudySpec.parse(content, spec_path.parent)


def test_a_missing_section_is_named(spec_path: Path) -> None:
    content = yaml.safe_load(spec_path.read_text())
    del content["models"]
    with pytest.raises(SpecError, match="'models' is missing; add it"):
        StudySpec.parse(content, spec_path.parent)


def test_files_that_are_no_spec(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"none\.yaml: No such file"):
        StudySpec.from_yaml(tmp_path / "none.yaml")
    (tmp_path / "a.yaml").write_text("study: {")
    with pytest.raises(SpecError, match="valid YAML"):
        StudySpec.from_yaml(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("- 1")
    with pytest.raises(SpecError, match="YAML mapping"):
        StudySpec.from_yaml(tmp_path / "b.yaml")


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("models", "base", "./missing", r"'\./missing' is neither"),
        (
            "evaluation",
            "tasks",
            [{"name": "t", "files": {"search": "gone.jsonl"}}],
            r"task 't' must be in a file, but .*gone\.jsonl does not exist",
        ),
        (
            "evaluation",
            "tasks",
            [{"name": "t", "files": {"search": "empty.jsonl"}}],
            "'search' of task 't' is empty",
        ),
    ],
)
def test_nothing_is_created_for_a_spec_that_names_missing_things(
    tmp_path: Path, section: str, key: str, value: Any, message: str
) -> None:
    path = _changed(write_spec(tmp_path), section, key, value)
    (tmp_path / "empty.jsonl").write_text("")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SpecError, match=message):
        load_inputs(path)
    assert sorted(tmp_path.iterdir()) == before


def test_a_split_that_a_task_lacks_is_named(spec_path: Path) -> None:
    inputs = load_inputs(spec_path)
    with pytest.raises(SpecError, match="no split 'test'; it has search, validation"):
        inputs.split("test")
    with pytest.raises(SpecError, match="but got 'train'"):
        inputs.split("train")


def test_the_command_line_overrides_storage_and_trials(spec_path: Path) -> None:
    spec = StudySpec.from_yaml(spec_path)
    changed = spec.with_overrides(storage="sqlite:///other.db", trials=3)
    assert (changed.study.storage, changed.study.trials) == ("sqlite:///other.db", 3)
    assert changed.folder == spec.folder
    assert spec.with_overrides() == spec
    with pytest.raises(SpecError, match=r"command line: study\.storage"):
        spec.with_overrides(storage="other.db")


def test_relative_paths_start_at_the_spec(
    spec_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    assert load_inputs(spec_path).tasks[0].splits["search"]


@pytest.mark.parametrize(
    ("section", "key", "value", "changes"),
    [
        ("evaluation", "max_new_tokens", 47, True),
        ("merge", "embeddings", "merge", True),
        ("models", "dtype", "bfloat16", True),
        ("evaluation", "batch_size", 8, False),
        ("study", "trials", 99, False),
        ("study", "seed", 5, False),
        ("sampler", "preset", "tpe", False),
    ],
)
def test_the_fingerprint_covers_what_changes_a_measurement(
    tmp_path: Path, section: str, key: str, value: Any, changes: bool
) -> None:
    reference = load_inputs(write_spec(tmp_path)).fingerprint()
    changed = load_inputs(write_spec(tmp_path, 24, **{section: {key: value}})).fingerprint()
    assert (changed != reference) is changes


def test_the_fingerprint_follows_questions_and_weights(tmp_path: Path) -> None:
    reference = load_inputs(write_spec(tmp_path)).fingerprint()
    fewer = load_inputs(write_spec(tmp_path, n_questions=23)).fingerprint()
    assert {k for k in reference if reference[k] != fewer[k]} == {"evaluation.tasks"}
    base = {"base": str(REPOSITORY / "examples" / "demo" / "expert")}
    other = load_inputs(write_spec(tmp_path, models=base)).fingerprint()
    assert "models.base" in {k for k in reference if reference[k] != other[k]}


def test_blocks_are_found_in_the_models(tmp_path: Path) -> None:
    merge = {"granularity": "blocks", "n_blocks": 3}
    plan = load_inputs(write_spec(tmp_path, merge=merge)).plan
    assert plan.groups == ("block_000", "block_001", "block_002", "embeddings", "head")
    assert plan.settings.blocks[0] == 0
    assert len(plan.settings.blocks) == 3


def test_densities_name_search_variables(tmp_path: Path) -> None:
    merge = {"operator": "ties", "density": {"default": 0.5, "layer_003": 0.9}}
    plan = load_inputs(write_spec(tmp_path, merge=merge)).plan
    assert plan.density_of(plan.tensors_of("layer_003")[0]) == 0.9
    assert plan.density_of(plan.tensors_of("layer_004")[0]) == 0.5
    wrong = {"operator": "ties", "density": {"layer_3": 0.9}}
    with pytest.raises(SpecError, match=r"or 'default', but got \['layer_3'\]"):
        load_inputs(write_spec(tmp_path, merge=wrong))
