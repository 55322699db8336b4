"""The sampler benchmark's problems and scores: right before they judge anything."""

from pathlib import Path

import numpy as np
import pytest
import torch
from problems import GROUPS, Problem, make_problem, utilities
from problems.synthetic import Shape, Synthetic
from rivals import N_START, known_importance
from runs import Run, Task, _rotation, load_or_run
from scores import best_choice_regret, hypervolume_regret, reported_regret, selection_regret
from stopped import N_STOPPED, worst

LEVELS = torch.linspace(0, 1, 8, dtype=torch.double)[:, None]


@pytest.fixture(params=["plain/independent/0", "plain/shared/0", "zdt1/0/0", "dtlz2/0/0"])
def problem(request: pytest.FixtureRequest) -> Problem:
    return make_problem(request.param)


def test_nobody_does_better_than_the_optimum(problem: Problem) -> None:
    generator = torch.Generator().manual_seed(0)
    X = torch.rand(500, problem.dim, generator=generator, dtype=torch.double)
    X = torch.cat([X, LEVELS.expand(-1, problem.dim), X[:, :1].expand(-1, problem.dim)])
    best = utilities(problem.truth(X).numpy(), problem.reference).max(axis=0)
    assert bool((best <= problem.best_utilities + 1e-3).all())


def test_measurements_scatter_around_the_truth_as_their_errors_say(problem: Problem) -> None:
    x = np.full(problem.dim, 0.4)
    truth = problem.truth(torch.from_numpy(x)[None])[0].numpy()
    rng = np.random.default_rng(0)
    measured = [problem.measure(x, rng) for _ in range(400)]
    values = np.stack([m.values for m in measured])
    errors = np.stack([m.errors for m in measured]).mean(axis=0)
    if problem.name.endswith("shared"):
        # The same questions every time: an error that stays, within what it is said to be.
        assert np.ptp(values, axis=0).tolist() == [0.0, 0.0]
        assert bool((np.abs(values[0] - truth) < 4 * errors).all())
    else:
        assert values.mean(axis=0) == pytest.approx(truth, abs=0.02)
        assert values.std(axis=0) == pytest.approx(errors, rel=0.15)


def test_as_many_candidates_are_stopped_as_is_said_and_no_uniform_merge() -> None:
    believed = np.random.default_rng(0).random((48, 3))
    believed[:N_START] -= 2.0  # the uniform merges are the worst
    believed[-N_STOPPED:] -= 1.0
    assert worst(believed) == set(range(48 - N_STOPPED, 48))


def test_tuning_and_reporting_share_no_problem() -> None:
    groups = [set(names) for names in GROUPS.values()]
    assert sum(map(len, groups)) == len(set.union(*groups))


def test_known_importance_correlates_with_the_truth() -> None:
    problem = Synthetic(3, Shape())
    shares = problem._shares.sum(dim=0).numpy()
    assert np.corrcoef(problem.importance, shares)[0, 1] == pytest.approx(0.85, abs=0.01)
    permuted = known_importance(problem, 0, "permuted")
    assert permuted is not None
    assert sorted(permuted.values()) == pytest.approx(sorted(problem.importance))


def test_believing_luck_costs_and_knowing_the_truth_does_not() -> None:
    problem = make_problem("plain/independent/0")
    truths = problem.optima
    assert selection_regret(problem, truths, truths) == pytest.approx(0.0, abs=1e-9)
    lucky = truths + np.random.default_rng(0).normal(scale=0.15, size=truths.shape)
    assert selection_regret(problem, truths, lucky) > 0.01


def test_a_run_is_kept_and_scored(tmp_path: Path) -> None:
    task = Task("zdt1/0/0", "random", "uniform", importance="none")
    run = load_or_run(task, tmp_path)
    kept = load_or_run(task, tmp_path)
    assert isinstance(kept, Run)
    assert kept.values == run.values
    assert run.params[:2] == [[0.0] * 36, [1.0] * 36]
    best = best_choice_regret(run, 48)
    assert 0 <= best <= reported_regret(run, 48, "denoised")
    assert hypervolume_regret(run, 48) <= hypervolume_regret(run, 8)


def test_problems_of_one_table_differ_in_how_questions_are_dealt() -> None:
    hands = set()
    for name in GROUPS["demo-rotating"]:
        rotation = _rotation(make_problem(name), 0)
        assert rotation is not None
        hands.add(tuple(rotation.hand(0).blocks[0]))
    assert len(hands) == len(GROUPS["demo-rotating"])
