"""The front on questions the search never saw."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mergefront.study import StudySpec
from mergefront.study.front import front_report, hypervolume
from mergefront.study.inputs import load_inputs
from mergefront.study.run import make_objective
from mergefront.study.storage import load_study
from mergefront.study.validate import Validation, validate


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
    assert content.keys() == contract | {"hypervolume_search", "survives"}
    assert content["n_questions"] == 24
    front = {trial.number for trial in validation.report.trials}
    points = torch.tensor(
        [list(m["values"].values()) for m in content["models"] if m["number"] in front],
        dtype=torch.double,
    )
    study = load_study(StudySpec.from_yaml(finished))
    expected = hypervolume(points, validation.report.reference_point, study.directions)
    assert content["hypervolume"]["front"] == pytest.approx(expected)
    for name in ("front", "uniform"):
        low, high = content["interval"][name]
        assert low <= content["hypervolume"][name] <= high
    difference = np.array(content["interval"]["difference"])
    assert difference[0] < difference[1]
