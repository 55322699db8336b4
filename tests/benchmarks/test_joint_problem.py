"""The benchmark of studies over several operators: right before it judges anything."""

import numpy as np
import pytest
import torch
from joint_problem import JointProblem
from joint_ways import _first
from problems import hypervolume

PROBLEM = JointProblem(0, 4, 24)
GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(300, 24, generator=GENERATOR, dtype=torch.double)


def test_operators_nearly_agree_at_the_parents_and_differ_between_them() -> None:
    ends = torch.stack([torch.zeros(24), torch.ones(24)]).double()
    at_ends = [arm.truth(ends) for arm in PROBLEM.arms]
    between = [arm.truth(X) for arm in PROBLEM.arms]
    first = at_ends[0]
    for other in at_ends[1:]:  # layers' shares sum to one; their peaks differ
        assert float((other - first).abs().max()) < 0.15
    assert all(float((other - between[0]).abs().max()) > 0.02 for other in between[1:])


def test_the_best_hypervolume_is_of_all_operators_together() -> None:
    found = np.concatenate([arm.truth(X).numpy() for arm in PROBLEM.arms])
    assert hypervolume(found, PROBLEM.reference) < PROBLEM.best_hypervolume
    alone = [hypervolume(arm.optima, PROBLEM.reference) for arm in PROBLEM.arms]
    # Here the last operator is the best everywhere, in problem 9 none is.
    assert PROBLEM.best_hypervolume == pytest.approx(alone[3])
    assert max(alone[:3]) < PROBLEM.best_hypervolume - 0.04
    mixed = JointProblem(9, 4, 24)
    alone = [hypervolume(arm.optima, mixed.reference) for arm in mixed.arms]
    assert mixed.best_hypervolume > max(alone) + 0.001


def test_a_study_over_all_operators_begins_with_each_of_them() -> None:
    first = _first(PROBLEM, (0, 1, 2, 3), 48)
    assert {params["operator"] for params in first} == set(PROBLEM.operators)
    assert [params["layer_000"] for params in first[:3]] == [0.0, 1.0, 0.5]
