"""The front on questions the search never saw."""

import shutil
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from hypervolume_coverage import Design, studies
from optuna.artifacts import get_all_artifact_meta

from mergefront.errors import StudyError
from mergefront.samplers import CAUTION
from mergefront.study import StudySpec
from mergefront.study.cli.results.validate import _print
from mergefront.study.results.front import front_report, hypervolume
from mergefront.study.results.validation import (
    Validation,
    _derived,
    _share_beyond,
    _Volumes,
    validate,
)
from mergefront.study.results.validation_study import (
    VALIDATES,
    last_validation,
    open_validation,
    record,
)
from mergefront.study.run import make_objective
from mergefront.study.spec.inputs import load_inputs
from mergefront.study.storage.artifacts import read_answers
from mergefront.study.storage.connection import artifact_store, load_study


@pytest.fixture(scope="module")
def validation(finished: Path) -> Validation:
    spec = StudySpec.from_yaml(finished)
    study, inputs = load_study(spec), load_inputs(finished)
    objective = make_objective(inputs, "validation")
    return validate(front_report(study, spec), study, objective, "validation")


def test_front_parents_and_uniform_merges_are_each_measured_once(validation: Validation) -> None:
    numbers = [model.number for model in validation.models]
    assert len(set(numbers)) == len(numbers)
    assert {trial.number for trial in validation.report.trials} <= set(numbers)
    assert {0, 1, 2, 3, 4, 5, 6, 7} <= set(numbers)


def test_questions_are_the_splits_own(validation: Validation, finished: Path) -> None:
    asked = {answer.question_id for answer in validation.models[0].measurement.answers}
    assert asked == {f"demo/validation-{i:04d}" for i in range(24)}


def test_json_follows_the_contract_and_fits_together(
    validation: Validation, finished: Path
) -> None:
    content = validation.to_json()
    contract = {"study", "split", "n_questions", "models", "hypervolume", "interval"}
    added = {"hypervolume_search", "survives", "recommended", "as_predicted", "criteria", "paired"}
    assert content.keys() == contract | added | {"front_as_predicted"}
    assert content["n_questions"] == 24
    front = {trial.number for trial in validation.report.trials}
    points = torch.tensor(
        [list(m["values"].values()) for m in content["models"] if m["number"] in front],
        dtype=torch.double,
    )
    study = load_study(StudySpec.from_yaml(finished))
    expected = hypervolume(points, validation.report.reference_point, study.directions)
    assert content["hypervolume"]["front"] == pytest.approx(expected)
    for name in ("front", "uniform", "curve"):
        low, high = content["interval"][name]
        assert low <= content["hypervolume"][name] <= high
    difference = np.array(content["interval"]["difference"])
    assert difference[0] < difference[1]
    assert content["hypervolume"]["curve"] >= content["hypervolume"]["uniform"]
    assert content["interval"]["gain"][1] <= difference[1]


def test_it_counts_what_of_the_front_was_predicted(validation: Validation) -> None:
    content, scores = validation.to_json(), []
    for model in content["models"]:
        for name, error in model["fresh_deviations"].items():
            assert error > CAUTION * model["deviations"][name]  # the questions' own beside it
            off = abs(model["values"][name] - model["denoised"][name])
            total = np.hypot(error, model["standard_errors"][name])
            scores += [off / total] if model["in_front"] else []
    within = sum(score <= 1.96 for score in scores)
    assert content["front_as_predicted"] == {"values": len(scores), "within": within}


def test_models_of_the_front_are_compared_with_the_whole_uniform_curve(
    validation: Validation,
) -> None:
    for model in validation.models:
        assert (model.beyond_uniform is None) != model.in_front
        if model.in_uniform and model.in_front:  # a point of the curve is not beyond it
            assert model.beyond_uniform == 0.0
            assert not model.distinguishable


def test_a_point_on_a_chord_is_not_beyond_and_one_above_it_is() -> None:
    curve = np.array([[[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]]])
    for point, expected in (([0.5, 0.5], 0.0), ([0.6, 0.5], 1.0), ([1.1, -1.0], 1.0)):
        assert _share_beyond(np.array([point]), curve) == expected


def test_what_a_coarse_curve_hides_is_no_gain(validation: Validation) -> None:
    front, ends = np.array([[[0.5, 0.5]]]), np.array([[[0.0, 1.0], [1.0, 0.0]]])
    models = [replace(m, trial=deepcopy(m.trial)) for m in validation.models[:3]]
    for model, level in zip(models[1:], (0.0, 1.0), strict=True):
        model.trial.params = dict.fromkeys(model.trial.params, level)
    one = [replace(m, in_front=k == 0, in_uniform=k > 0) for k, m in enumerate(models)]
    report = replace(validation.report, reference_point=[0.0, 0.0])
    study = optuna.create_study(directions=["maximize", "maximize"])
    volumes = _Volumes(report, study, one).of(np.concatenate([front, ends], axis=1))
    assert volumes["front"] == pytest.approx(0.25)
    assert volumes["uniform"] == 0.0
    # Half the square, less the steps of the 20 points on the chord.
    assert volumes["curve"] == pytest.approx(0.5 * 19 / 20)
    assert _derived(volumes, None)["gain"] < 0 < _derived(volumes, None)["difference"]


def test_a_gain_too_small_to_divide_by_survives_in_no_share(validation: Validation) -> None:
    same = replace(validation.report, hypervolume=1.0 + 1e-6, hypervolume_uniform=1.0)
    assert replace(validation, report=same).survives is None
    half = replace(validation.report, hypervolume=2.0, hypervolume_uniform=1.0)
    volumes = {"front": 1.5, "uniform": 1.0}
    assert replace(validation, report=half, hypervolume=volumes).survives == 0.5


def test_a_validation_is_a_study_beside_the_search(validation: Validation, finished: Path) -> None:
    spec = StudySpec.from_yaml(finished)
    study = load_study(spec)
    written = open_validation(study, "validation")
    record(validation, written, spec)
    assert written.study_name == "small.validation"
    assert written.metric_names == ["accuracy", "tokens"]
    assert len(written.trials) == len(validation.models)
    for trial, model in zip(written.trials, validation.models, strict=True):
        assert trial.params == study.trials[model.number].params
        assert trial.values == list(model.measurement.values)
        assert trial.user_attrs["trial"] == model.number
        (table,) = get_all_artifact_meta(trial, storage=study._storage)
        assert table.filename == f"trial-{model.number:05d}.answers.jsonl"
    assert last_validation(study, "validation") == validation.to_json()
    assert last_validation(study, "test") is None
    record(validation, open_validation(study, "validation"), spec)
    assert len(written.trials) == len(validation.models)


def test_answers_of_two_databases_in_one_folder_are_kept_apart(
    validation: Validation, finished: Path, tmp_path: Path
) -> None:
    paths = [tmp_path / "one.db", tmp_path / "two.db"]
    tables = []
    for path, models in zip(paths, (validation.models, validation.models[::-1]), strict=True):
        shutil.copy(finished.parent / "study.db", path)
        spec = StudySpec.from_yaml(finished).with_overrides(storage=f"sqlite:///{path}")
        written = open_validation(load_study(spec), "test")
        # The same numbers, answered otherwise.
        answered = [
            replace(model, measurement=other.measurement)
            for model, other in zip(validation.models, models, strict=True)
        ]
        record(replace(validation, models=answered), written, spec)
        tables.append((written, artifact_store(spec), [m.measurement.answers for m in answered]))
    for written, store, answers in tables:
        told = [[line["text"] for line in read_answers(written, store, n)] for n in range(3)]
        assert told == [[answer.text for answer in given] for given in answers[:3]]


@pytest.mark.parametrize("attributes", [{}, {VALIDATES: {"study": "small", "fingerprint": "x"}}])
def test_a_study_that_is_not_its_validation_is_left_alone(
    finished: Path, attributes: dict[str, object]
) -> None:
    study = load_study(StudySpec.from_yaml(finished))
    directions = study.directions
    other = optuna.create_study(
        study_name="small.test", storage=study._storage, directions=directions
    )
    try:
        other.add_trial(optuna.trial.create_trial(values=[1.0, 2.0]))
        for key, value in attributes.items():
            other.set_user_attr(key, value)
        with pytest.raises(StudyError, match=r"needs the study 'small.test'.* Delete it"):
            open_validation(study, "test")
        assert last_validation(study, "test") is None
        assert len(other.trials) == 1
    finally:
        optuna.delete_study(study_name="small.test", storage=study._storage)


def test_every_value_of_the_table_has_its_error(
    validation: Validation, capsys: pytest.CaptureFixture[str]
) -> None:
    _print(validation)
    rows = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    named = [row for row in rows if any(m.label in row for m in validation.models)]
    assert len(named) >= len(validation.models)
    assert {row.count("±") for row in named} == {4}  # two metrics, now and in the search


def test_intervals_of_hypervolumes_miss_on_both_sides_alike() -> None:
    """Of long fronts of models that hardly differ; see `hypervolume_coverage.py`."""
    sides = np.array(list(studies(Design(200, 16, 0.5, 0.0), 200, seed=3, n_resamples=200)))
    below, above = (sides < 0).mean(axis=0), (sides > 0).mean(axis=0)
    (front, _, gain), (pivotal_front, _, pivotal_gain) = below
    assert front > 0.1 > pivotal_front and gain > 0.08 > pivotal_gain
    assert (above[1] < 0.08).all()
