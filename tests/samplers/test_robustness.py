"""What other people's trials may hold, and what must come of it."""

import threading
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from mergefront.samplers import (
    FIXED,
    AcquisitionBudget,
    BMMSampler,
    BMMSettings,
    MoeadCmaesSampler,
    PerTrialSampler,
    SIPSampler,
    denoise,
)
from mergefront.samplers._acqf import Scale, preference_grid, worth_knowing
from mergefront.samplers._constraints import Weighted, fit_feasibility
from mergefront.samplers._gp import Observations, fit_surrogate
from mergefront.samplers._gp.published import rank_lengthscales
from mergefront.samplers._threads import one_thread
from mergefront.samplers._trials.measurements import measurements
from mergefront.samplers._trials.search_space import UnitCube
from mergefront.samplers.denoise import fit_study
from mergefront.samplers.moead_cmaes import _neighbours

SMALL = AcquisitionBudget(n_samples=8, n_raw=24, n_restarts=2, n_steps=8)
WEIGHT = FloatDistribution(0.0, 1.0)
SPACE: dict[str, BaseDistribution] = {"a": WEIGHT, "b": WEIGHT}


def _study(n: int = 12, error: Any = (0.02, 0.02), **attributes: Any) -> optuna.Study:
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=SIPSampler(seed=0, budget=SMALL)
    )
    rng = np.random.default_rng(0)
    for _ in range(n):
        a, b = rng.random(2)
        noise = 0.02 * rng.normal(size=2)
        values = [a + b + noise[0], a * b + noise[1]]
        study.add_trial(_trial(a, b, values, list(error), **attributes))
    return study


def _trial(a: float, b: float, values: list[float], errors: Any, **attributes: Any) -> FrozenTrial:
    told = {"standard_errors": errors, **attributes}
    return create_trial(
        values=values, params={"a": a, "b": b}, distributions=SPACE, user_attrs=told
    )


@pytest.mark.parametrize("counted", [True, False])
def test_one_measurement_of_few_questions_does_not_make_the_others_uncertain(
    counted: bool,
) -> None:
    def used(n_partial: int) -> torch.Tensor:
        """Return the errors that the surrogate uses for the 40 full measurements."""
        study = _study(40, n_questions=150) if counted else _study(40)
        told = {"n_questions": 1} if counted else {}
        for i in range(n_partial):
            partial = _trial(0.3, 0.2 * i, [0.3 + 0.3 * i, 0.06 * i], [0.25, 0.25], **told)
            study.add_trial(partial)
        model = fit_study(study)
        assert model is not None
        processes = [fit.process for fit in model.surrogate.fits]
        noise = torch.stack([p.spread**2 * p.noise[:40] for p in processes], dim=1)
        return noise.sqrt().median(dim=0).values

    assert bool((used(3) <= 1.2 * used(0)).all())


def test_noise_is_pooled_per_question() -> None:
    X = torch.linspace(0, 1, 4, dtype=torch.double)[:, None]
    errors = torch.tensor([[0.1], [0.1], [0.1], [0.2]], dtype=torch.double)
    sizes = torch.tensor([1.0, 1.0, 1.0, 0.25], dtype=torch.double)
    process = fit_surrogate(Observations(X, X * 0.01, errors, sizes=sizes)).fits[0].process
    told = process.noise * process.spread**2
    assert (told[3] / told[0]).item() == pytest.approx(4.0, rel=1e-6)
    assert process.expected_noise(process.y)[3].item() == pytest.approx(process.noise[0].item())


def test_errors_of_one_objective_alone_are_used() -> None:
    study = _study(16, error=(0.02, None))
    known = measurements(study.trials)
    assert known.errors is not None
    assert known.errors[:, 0].tolist() == [0.02] * 16
    assert denoise(study).deviations.isfinite().all()


@pytest.mark.parametrize(
    "attributes",
    [
        {"n_questions": 10**400},
        {"answers": {"questions": ["a"], "values": [[10**400], [1]]}},
    ],
)
def test_integers_beyond_floats_do_not_stop_a_study(attributes: dict[str, Any]) -> None:
    study = _study(6, **attributes)
    with pytest.warns(UserWarning, match="1 of 7 trials"):
        study.add_trial(_trial(0.5, 0.5, [1.0, 0.25], [10**400, 0.02], **attributes))
        assert len(denoise(study).trials) == 7


@pytest.mark.parametrize(
    "malformed", [[None, 0.5], ["a", 0.5], 0.5, "ab", [0.1], {"x": 1}, [[], 1]]
)
def test_a_malformed_error_does_not_stop_a_study(malformed: Any) -> None:
    study = _study()
    study.add_trial(_trial(0.4, 0.6, [1.0, 0.2], malformed))
    assert 0 <= study.ask(SPACE).params["a"] <= 1
    assert len(denoise(study).trials) == 13


@pytest.mark.parametrize("malformed", [[0.1], {"limit": "x"}, {"limit": None}, "text"])
def test_a_malformed_error_of_a_constraint_does_not_stop_a_study(malformed: Any) -> None:
    limited = _study()
    limited.add_trial(
        create_trial(
            values=[1.0, 0.1],
            params={"a": 0.5, "b": 0.1},
            distributions=SPACE,
            constraints={"limit": -1.0},
            user_attrs={"constraint_errors": malformed},
        )
    )
    assert len(denoise(limited).trials) == 13
    assert limited.ask(SPACE).params


@pytest.mark.parametrize(
    "queued", [{"op": "zzz", "a": 0.5}, {"op": None, "a": 0.5}, {"op": "x", "a": None}]
)
def test_a_queued_value_without_a_place_does_not_stop_others(queued: dict[str, Any]) -> None:
    space = {"op": CategoricalDistribution(("x", "y")), "a": WEIGHT}
    sampler = SIPSampler(seed=0, budget=SMALL, n_startup_trials=2, search_space=space)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for op, a in (("x", 0.1), ("y", 0.9), ("x", 0.5)):
        study.add_trial(create_trial(values=[a], params={"op": op, "a": a}, distributions=space))
    running = study.ask()  # somebody else's, with its parameters still to come
    study._storage.set_trial_system_attr(running._trial_id, FIXED, queued)
    assert study.ask(space).params["op"] in ("x", "y")


def test_interleaved_trials_have_their_own_random_numbers() -> None:
    study = optuna.create_study(
        sampler=PerTrialSampler(lambda seed: optuna.samplers.RandomSampler(seed=seed), seed=0)
    )
    trials = [study.ask(), study.ask()]
    for name in "pqrs":
        for trial in trials:
            trial.suggest_float(name, 0, 1)
    values = [value for trial in trials for value in trial.params.values()]
    assert len(set(values)) == 8
    alone = optuna.create_study(sampler=study.sampler).ask()
    assert [alone.suggest_float(name, 0, 1) for name in "pqrs"] == values[:4]


def test_finished_trials_leave_no_sampler_behind() -> None:
    sampler = PerTrialSampler(lambda seed: optuna.samplers.RandomSampler(seed=seed), seed=0)
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=20, n_jobs=4)
    assert len(sampler._running) == 0
    for _ in range(300):  # never told
        study.ask(SPACE)
    assert len(sampler._running) <= 256


def test_feasible_points_are_kept_however_bad_they_are() -> None:
    generator = torch.Generator().manual_seed(0)
    means = torch.rand(900, 2, generator=generator, dtype=torch.double) + 1.0
    means[17] = -5.0
    scale = Scale(torch.zeros(2).double(), torch.ones(2).double(), preference_grid(2))
    likely = torch.zeros(900, dtype=torch.bool)
    likely[17] = True
    rows = worth_knowing(means, scale, 600, likely)
    assert 17 in rows.tolist()
    assert len(rows) == 600


def test_importances_that_name_nothing_are_reported() -> None:
    study = _study()
    with pytest.warns(UserWarning, match="'layer_00'"):
        denoise(study, {"layer_00": 1.0, "a": 0.5})
    study.sampler = SIPSampler(seed=0, budget=SMALL, importance={"A": 1.0})
    with pytest.warns(UserWarning, match="'A'"):
        study.ask(SPACE)


def test_a_parameter_that_is_never_suggested_is_reported() -> None:
    space = {**SPACE, "forgotten": WEIGHT}
    study = _study()
    study.sampler = SIPSampler(seed=0, budget=SMALL, search_space=space)
    with pytest.warns(UserWarning, match="lacks 'forgotten'"):
        study.ask(SPACE)


def test_lengthscales_by_rank_are_exact() -> None:
    lengthscales = rank_lengthscales(torch.arange(20, dtype=torch.double), 20)
    assert lengthscales.tolist()[-1] == pytest.approx(0.5, abs=1e-15)


def test_sobol_fills_the_space_before_it_is_known() -> None:
    sampler = SIPSampler(seed=0, startup="sobol", n_startup_trials=8)
    study = optuna.create_study(sampler=sampler)
    trials = [study.ask() for _ in range(8)]
    points = np.array([[t.suggest_float(n, 0, 1) for n in ("a", "b", "c")] for t in trials])
    assert [len(set((column * 8).astype(int))) for column in points.T] == [8] * 3
    for left, right in ((0, 1), (0, 2), (1, 2)):  # two points a quarter of every square
        quarters = 2 * (points[:, left] > 0.5) + (points[:, right] > 0.5)
        assert np.bincount(quarters, minlength=4).tolist() == [2] * 4


def test_threads_leave_the_setting_as_it_was() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with one_thread():
            inside.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    with one_thread():
        leave.set()
        thread.join()
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


class _Constant(torch.nn.Module):
    model = None

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return torch.full((len(X),), -0.01, dtype=torch.double)


def _limited(violations: list[float]) -> tuple[Any, torch.Tensor]:
    trials = [
        create_trial(
            values=[0.0],
            params={"a": i / 10},
            distributions={"a": WEIGHT},
            constraints={"limit": violation},
        )
        for i, violation in enumerate(violations)
    ]
    X = torch.tensor([[t.params["a"]] for t in trials], dtype=torch.double)
    return fit_feasibility(trials, Observations(X, X)), X


def test_of_two_negative_gains_the_likelier_point_wins() -> None:
    feasibility, X = _limited([i / 10 - 0.5 for i in range(11)])
    weighted = Weighted(_Constant(), feasibility, False, X)  # type: ignore[arg-type]
    likely, unlikely = weighted(torch.tensor([[[0.2]], [[0.9]]], dtype=torch.double)).tolist()
    assert likely > unlikely


def test_where_everything_is_far_from_feasible_less_violation_counts_more() -> None:
    feasibility, X = _limited([1e4 - 10 * i for i in range(11)])
    for is_log in (False, True):
        acquisition: Any = _Constant()
        weighted = Weighted(acquisition, feasibility, is_log, X)
        if not is_log:
            acquisition.forward = lambda X: torch.full((len(X),), 0.5, dtype=torch.double)
        worse, better = weighted(torch.tensor([[[0.2]], [[0.9]]], dtype=torch.double)).tolist()
        assert better > worse


def test_neighbours_are_near_on_the_simplex() -> None:
    for n_objectives in (2, 3, 4):
        grid = preference_grid(n_objectives, 6)
        for k in range(len(grid)):
            near = _neighbours(k, grid)
            distances = (grid - grid[k]).norm(dim=1)
            assert near[0] == k
            assert distances[near].max() <= distances.sort().values[2] + 1e-12
    study = optuna.create_study(
        directions=["maximize"] * 3, sampler=MoeadCmaesSampler(seed=0, n_startup_trials=4)
    )
    study.optimize(lambda t: [t.suggest_float(n, 0, 1) for n in "abc"], n_trials=20)
    assert len({t.params["a"] for t in study.trials}) == 20


@pytest.mark.parametrize("unit", [1e-14, 1e-20, 1.0, 1e12])
def test_an_objective_counts_in_whatever_unit(unit: float) -> None:
    X = torch.rand(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    Y = X.sum(dim=1, keepdim=True)
    means, _ = fit_surrogate(Observations(X, Y)).posterior(X)
    scaled, _ = fit_surrogate(Observations(X, Y * unit)).posterior(X)
    assert torch.allclose(scaled / unit, means, rtol=1e-6)


def test_integers_and_choices_are_scored_where_they_can_be_evaluated() -> None:
    space = {"n": IntDistribution(0, 3), "c": CategoricalDistribution(("x", "y")), "w": WEIGHT}
    cube = UnitCube(space)
    points = torch.rand(30, cube.dim, generator=torch.Generator().manual_seed(1)).double()
    snapped = cube.snapped(points)
    decoded = [cube.decode(point) for point in snapped.numpy()]
    assert torch.allclose(cube.encode(decoded), snapped)
    assert snapped[:, cube.categorical_columns].unique().tolist() == [0.0, 1.0]
    plain = UnitCube(SPACE)
    assert plain.snapped(points[:, :2]) is not None
    assert torch.equal(plain.snapped(points[:, :2]), points[:, :2])


def test_a_stopped_trial_without_a_usable_error_is_no_measurement() -> None:
    study = _study()
    study.add_trial(
        create_trial(
            state=TrialState.PRUNED,
            values=[9.0, 9.0],
            params={"a": 0.1, "b": 0.1},
            distributions=SPACE,
            user_attrs={"standard_errors": [None, "x"]},
        )
    )
    assert len(denoise(study).trials) == 12


@pytest.mark.parametrize("acquisition", ["sip", "qlognehvi", "qehvi"])
def test_maximized_values_of_any_size_can_be_searched(acquisition: Any) -> None:
    """BoTorch cuts boxes off at 1e10."""

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        a, b = (trial.suggest_float(name, 0, 1) for name in "ab")
        return 1e11 * (1 - (a - 0.3) ** 2 - (b - 0.6) ** 2), a

    sampler: optuna.samplers.BaseSampler = (
        SIPSampler(acquisition="qlognehvi", n_startup_trials=5, seed=0, budget=SMALL)
        if acquisition == "sip"
        else BMMSampler(BMMSettings(acquisition=acquisition), n_startup_trials=5, seed=0)
    )
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.optimize(objective, n_trials=9)
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 9
