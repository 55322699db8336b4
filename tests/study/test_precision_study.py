"""A study over weights and precisions, from its dry run to the models that leave it."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from command import invoke
from joint_study import write_joint_spec
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
from mergefront.objectives.merging import stream
from mergefront.study import StudySpec
from mergefront.study.first_trials import same_models
from mergefront.study.results.front import front_report
from mergefront.study.run import run
from mergefront.study.spec.inputs import load_inputs
from mergefront.study.storage.connection import load_study
from small_study import write_spec

CHOICES = ["bfloat16", "int8", "int4"]
PRECISION = {"choose": CHOICES, "groups": 2}


def _write(folder: Path, **changes: Any) -> Path:
    path = write_spec(
        folder,
        12,
        **{
            "study": {"trials": 12},
            "sampler": {"preset": "random"},
            "models": {"dtype": "bfloat16"},
            "merge": {"precision": PRECISION, "embeddings": "base", "head": "base"},
            **changes,
        },
    )
    path.write_text(path.read_text().replace("metric: tokens", "metric: memory"))
    return path


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study."""
    path = _write(tmp_path_factory.mktemp("precision"))
    run(load_inputs(path))
    return path


def test_the_dry_run_names_precisions_and_what_they_take(tmp_path: Path) -> None:
    told = invoke("run", _write(tmp_path), "--dry-run").stdout
    assert (
        "precision searched for each of 2 groups of layers: bfloat16 0.952 MiB, int8 0.497 MiB, "
        "int4 0.263 MiB as served"
    ) in told
    assert "10 variables (precision_0 ... layer_007)" in told
    path = write_spec(tmp_path, 4, models={"dtype": "bfloat16"}, merge={"precision": "fp8"})
    assert (
        "linear layers rounded: fp8 0.495 MiB as served" in invoke("run", path, "--dry-run").stdout
    )


def test_the_first_trials_are_parents_in_most_bits_and_uniform_merges_in_all(study: Path) -> None:
    trials = load_study(StudySpec.from_yaml(study)).trials

    shown = [(t.user_attrs["label"], t.params["precision_1"]) for t in trials[:5]]
    assert shown == [
        ("base", "bfloat16"),
        ("expert", "bfloat16"),
        ("uniform 0.43, bfloat16", "bfloat16"),
        ("uniform 0.71, int8", "int8"),
        ("uniform 0.14, int4", "int4"),
    ]


def test_memory_is_known_exactly_and_follows_from_the_precisions(study: Path) -> None:
    inputs, trials = load_inputs(study), load_study(StudySpec.from_yaml(study)).trials
    linear = [p for p in inputs.plan.parts if inputs.plan.parts[p].linear]
    shapes = {name: inputs.base.tensor(name).shape for name in linear}
    whole = sum(math.prod(shape) for shape in inputs.base.shapes().values())
    inside = sum(rows * width for rows, width in shapes.values())
    assert {width for _, width in shapes.values()} == {64, 128, 192}
    scales = sum(rows * (3 if width == 192 else 1) for rows, width in shapes.values())

    for trial in trials:
        choices = [trial.params[f"precision_{k}"] for k in range(2)]
        # two bytes a number; or one or a half, and scales of two bytes
        few = {"int8": inside + 2 * scales, "int4": inside // 2 + 2 * scales}
        each = {"bfloat16": 2 * inside, **few}
        assert trial.values[1] == 2 * (whole - inside) + sum(each[c] / 2 for c in choices)
        assert trial.user_attrs["standard_errors"][1] == 0
    report = front_report(load_study(inputs.spec), inputs.spec)
    for trial in report.trials:
        assert trial.user_attrs["denoised"][1] == trial.values[1]
        assert trial.user_attrs["denoised_errors"][1] == 0


def test_tables_name_precisions(study: Path) -> None:
    spec = StudySpec.from_yaml(study)
    report = front_report(load_study(spec), spec)

    shown = invoke("front", study)

    assert shown.exit_code == 0, shown.stderr
    for trial in report.trials:
        names = [trial.params[f"precision_{k}"] for k in range(2)]
        told = names[0] if len({*names}) == 1 else "/".join(names)
        assert trial.user_attrs["phase"] == "parent" or told in shown.stdout
    assert "uniform merges were measured, which is no curve" in shown.stdout
    assert invoke("pick", study, "--limit", "memory=400000").exit_code == 0
    page = invoke("report", study, "--out", study.parent / "report")
    assert page.exit_code == 0, page.stderr
    assert invoke("validate", study, "--split", "validation").exit_code == 0


def _searched(study: Path) -> int:
    """Return a trial whose groups have different precisions, one of them int4."""
    trials = load_study(StudySpec.from_yaml(study)).trials
    pairs = [(t.number, {t.params["precision_0"], t.params["precision_1"]}) for t in trials]
    return next(number for number, chosen in pairs if len(chosen) > 1 and "int4" in chosen)


def test_a_published_model_is_what_was_measured_and_is_made_again(
    study: Path, tmp_path: Path
) -> None:
    number, out = _searched(study), tmp_path / "out"
    inputs, trial = load_inputs(study), load_study(StudySpec.from_yaml(study)).trials[number]
    told = "/".join(trial.params[f"precision_{k}"] for k in range(2))

    published = invoke("publish", study, "--trial", number, "--to", out)

    assert published.exit_code == 0, published.stderr
    measured = dict(stream(inputs.recipe, inputs.plan.group_weights(trial.params)))
    loaded = AutoModelForCausalLM.from_pretrained(out)
    with torch.no_grad():
        loaded(torch.tensor([[1, 2, 3]]))
    state = loaded.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in measured.items())
    assert json.loads((out / "manifest.json").read_text())["precision"] == told
    recipe = yaml.safe_load((out / "recipe.yaml").read_text())
    assert (recipe["precision"], recipe["weights"]["precision_0"]) == (
        told,
        trial.params["precision_0"],
    )
    card = (out / "README.md").read_text()
    assert f"rounded to the nearest in `{told}`" in card
    assert "# mergekit knows no precision: this makes the model before its linear" in card
    again = invoke("reproduce", out, "--measure", "--spec", study)
    assert again.exit_code == 0, again.stderr
    assert "same bytes" in again.stdout


def test_mergekits_configuration_says_what_it_lacks(study: Path, tmp_path: Path) -> None:
    number = _searched(study)
    done = invoke(
        "export", study, "--trial", number, "--out", tmp_path / "m", "--format", "mergekit"
    )
    assert done.exit_code == 0, done.stderr
    first, rest = (tmp_path / "m" / "mergekit.yaml").read_text().split("\n", 1)
    assert first.startswith("# mergekit knows no precision: ")
    assert first.endswith("layers are rounded to " + _told(study, number) + ".")
    assert yaml.safe_load(rest)["merge_method"] == "linear"


def test_what_is_not_rounded_is_not_said_to_be(study: Path, tmp_path: Path) -> None:
    """Parents of a search over precisions are as merged."""
    published = invoke("publish", study, "--trial", 1, "--to", tmp_path / "out")
    assert published.exit_code == 0, published.stderr
    card = (tmp_path / "out" / "README.md").read_text()
    assert "rounded" not in card and "compressed-tensors" not in card


def _told(study: Path, number: int) -> str:
    params = load_study(StudySpec.from_yaml(study)).trials[number].params
    return "/".join(params[f"precision_{k}"] for k in range(2))


def test_operators_and_precisions_are_searched_together(tmp_path: Path) -> None:
    path = write_joint_spec(
        tmp_path,
        4,
        study={"trials": 14},
        merge={"precision": {"choose": ["int8", "int4"], "groups": 2}},
    )
    path.write_text(path.read_text().replace("metric: tokens", "metric: memory"))
    inputs = load_inputs(path)
    run(inputs)
    trials = load_study(StudySpec.from_yaml(path)).trials
    assert {t.params["precision_0"] for t in trials} == {"int8", "int4"}
    assert len({t.params["operator"] for t in trials}) > 1
    # a parent is one model under every operator, at each precision
    assert not any("precision_0" in params for pair in same_models(inputs.plan) for params in pair)


def test_a_fixed_precision_measures_the_rounded_base(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, 4, models={"dtype": "bfloat16"}, merge={"precision": "int4"})
    inputs = load_inputs(spec)
    backend = TransformersBackend(8)
    backend.load(inputs.models)
    backend.apply(inputs.plan.group_weights(inputs.plan.uniform(0.0)))
    name = "model.layers.0.mlp.up_proj.weight"
    weight = dict(stream(inputs.recipe, inputs.plan.group_weights(inputs.plan.uniform(0.0))))[name]
    assert torch.equal(backend._model.state_dict()[name], weight)
    assert not torch.equal(inputs.base.tensor(name).load().bfloat16(), weight)
