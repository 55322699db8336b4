"""What SIPSampler promises beyond Optuna's contract."""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from mergefront.samplers import AcquisitionBudget, SIPSampler

SMALL = AcquisitionBudget(n_samples=16, n_raw=32, n_restarts=2, n_steps=20)
NAMES = [f"layer_{i:03d}" for i in range(4)]
TARGET = np.array([0.9, 0.1, 0.9, 0.1])  # far from every uniform point
SPACE = {name: FloatDistribution(0.0, 1.0) for name in NAMES}


def _study(sampler: SIPSampler | None = None, **options: Any) -> optuna.Study:
    sampler = sampler or SIPSampler(seed=1, budget=SMALL, search_space=SPACE, **options)
    return optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)


def _point(trial: optuna.Trial) -> np.ndarray[Any, Any]:
    return np.array([trial.suggest_float(name, 0.0, 1.0) for name in NAMES])


def _measure(x: np.ndarray[Any, Any]) -> list[float]:
    return [1 - float(((x - TARGET) ** 2).mean()), float(x.mean())]


def _fill(study: optuna.Study, n: int, errors: list[float] | None = None) -> None:
    for _ in range(n):
        trial = study.ask()
        x = _point(trial)
        if errors is not None:
            trial.set_user_attr("standard_errors", errors)
        study.tell(trial, _measure(x))


def test_starts_with_the_parents_and_uniform_merges() -> None:
    study = _study(n_startup_trials=5)
    _fill(study, 5, [0.01, 0.01])
    points = [[trial.params[name] for name in NAMES] for trial in study.trials]
    assert points == [[level] * 4 for level in (0.0, 1.0, 0.5, 0.25, 0.75)]


def test_starts_uniform_without_a_given_search_space_too() -> None:
    study = _study(SIPSampler(seed=1, budget=SMALL, n_startup_trials=3))
    _fill(study, 3)
    assert [set(trial.params.values()) for trial in study.trials] == [{0.0}, {1.0}, {0.5}]


def test_qlognehvi_proposes_too() -> None:
    study = _study(n_startup_trials=4, acquisition="qlognehvi")
    _fill(study, 10, [0.01, 0.01])
    best_start = max(trial.values[0] for trial in study.trials[:4])
    assert max(trial.values[0] for trial in study.trials[4:]) > best_start


def test_sobol_start_fills_the_cube() -> None:
    study = _study(n_startup_trials=8, startup="sobol")
    _fill(study, 8)
    points = np.array([list(trial.params.values()) for trial in study.trials])
    # A scrambled Sobol sequence puts one of 8 points into each eighth of every axis.
    assert [len(set((column * 8).astype(int))) for column in points.T] == [8] * 4


def test_proposals_beat_the_start() -> None:
    study = _study(n_startup_trials=4)
    _fill(study, 12, [0.01, 0.01])
    best_start = max(trial.values[0] for trial in study.trials[:4])
    assert max(trial.values[0] for trial in study.trials[4:]) > best_start


_SCRIPT = """
import json, optuna
from test_sip_sampler import _fill, _study
study = _study(n_startup_trials=3)
_fill(study, 5, [0.01, 0.01])
print(json.dumps([trial.params for trial in study.trials]))
"""


def test_same_seed_same_proposals_in_another_process() -> None:
    study = _study(n_startup_trials=3)
    _fill(study, 5, [0.01, 0.01])
    result = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        cwd=__file__.rsplit("/", 1)[0],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(result.stdout) == [trial.params for trial in study.trials]


def test_a_restarted_worker_with_the_same_seed_does_not_repeat_points() -> None:
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(directions=["maximize", "minimize"], storage=storage)
    for _ in range(2):
        study.sampler = SIPSampler(
            seed=1, budget=SMALL, n_startup_trials=4, startup="sobol", search_space=SPACE
        )
        _fill(study, 3, [0.01, 0.01])
    points = {tuple(trial.params.values()) for trial in study.trials}
    assert len(points) == 6


def test_simultaneous_trials_are_far_apart() -> None:
    study = _study(n_startup_trials=4)
    _fill(study, 6, [0.01, 0.01])
    pending = [_point(study.ask()) for _ in range(3)]
    distances = [np.linalg.norm(a - b) for i, a in enumerate(pending) for b in pending[:i]]
    assert min(distances) > 0.1


def test_queued_points_count_as_pending() -> None:
    def propose(queue: bool) -> np.ndarray[Any, Any]:
        study = _study(n_startup_trials=4)
        _fill(study, 6, [0.01, 0.01])
        first = study.sampler.sample_relative(study, _frozen(study), dict(SPACE))
        study = _study(n_startup_trials=4)
        _fill(study, 6, [0.01, 0.01])
        if queue:
            study.add_trial(
                create_trial(state=TrialState.WAITING, params=first, distributions=dict(SPACE))
            )
        again = study.sampler.sample_relative(study, _frozen(study), dict(SPACE))
        return np.array([again[name] - first[name] for name in NAMES])

    assert np.linalg.norm(propose(queue=False)) == 0.0
    assert np.linalg.norm(propose(queue=True)) > 0.1


def _frozen(study: optuna.Study) -> optuna.trial.FrozenTrial:
    trial_id = study._storage.create_new_trial(study._study_id)
    trial = study._storage.get_trial(trial_id)
    trial.number = 50  # the number that a proposal's random stream depends on
    return trial


def test_failed_and_infinite_trials_teach_nothing() -> None:
    def propose(spoil: bool) -> dict[str, float]:
        study = _study(n_startup_trials=4)
        _fill(study, 6, [0.01, 0.01])
        if spoil:
            point = dict.fromkeys(NAMES, 0.33)
            study.add_trial(
                create_trial(state=TrialState.FAIL, params=point, distributions=dict(SPACE))
            )
            study.add_trial(
                create_trial(values=[float("-inf"), 1.0], params=point, distributions=dict(SPACE))
            )
        return study.sampler.sample_relative(study, _frozen(study), dict(SPACE))

    assert propose(spoil=True) == propose(spoil=False)


def test_known_errors_change_the_proposal() -> None:
    points = []
    for errors in ([0.001, 0.001], [0.3, 0.3]):
        study = _study(n_startup_trials=4)
        _fill(study, 8, errors)
        points.append(np.stack([_point(study.ask()), _point(study.ask())]))
    assert not np.allclose(points[0], points[1])


def test_one_objective_works_too() -> None:
    sampler = SIPSampler(seed=1, budget=SMALL, n_startup_trials=3, search_space=SPACE)
    study = optuna.create_study(direction="minimize", sampler=sampler)
    for _ in range(9):
        trial = study.ask()
        study.tell(trial, float(((_point(trial) - 0.2) ** 2).mean()))
    assert study.best_value < 0.04  # the best uniform level of the start, 0, gives 0.04


def test_a_reference_point_of_the_wrong_length_is_an_error() -> None:
    study = _study(n_startup_trials=2, reference_point=[0.5])
    _fill(study, 2)
    with pytest.raises(ValueError, match=r"got \[0.5\] for 2 objective"):
        _point(study.ask())


def test_a_given_reference_point_is_in_the_objectives_own_direction() -> None:
    # Only points with accuracy above 0.85 and cost below 0.6 gain anything.
    study = _study(n_startup_trials=4, reference_point=[0.85, 0.6])
    _fill(study, 20, [0.001, 0.001])
    late = [trial.values for trial in study.trials[12:]]
    assert sum(accuracy > 0.85 and cost < 0.6 for accuracy, cost in late) >= 6


def test_numbers_of_numpy_are_as_good_as_pythons() -> None:
    importance = {name: np.float32(0.25 * k) for k, name in enumerate(NAMES)}
    told: dict[str, Any] = {"importance": importance, "trust": np.int64(1)}
    study = _study(n_startup_trials=2, reference_point=[np.float32(0), 2], **told)
    _fill(study, 4, [0.01, 0.01])
    same = {name: float(value) for name, value in importance.items()}
    plain = _study(n_startup_trials=2, importance=same, trust=1, reference_point=[0, 2])
    _fill(plain, 4, [0.01, 0.01])
    assert [t.params for t in study.trials] == [t.params for t in plain.trials]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_startup_trials": -1}, "n_startup_trials >= 0"),
        ({"startup": "random"}, "'uniform' or 'sobol', but got 'random'"),
        ({"trust": 1.5}, r"within \[0, 1\], but got 1.5"),
        ({"importance": {"layer_000": 2.0}}, "2.0 for 'layer_000'"),
        ({"reference_point": [float("nan"), 0]}, r"reference_point must .* but got \[nan, 0\]"),
        ({"acquisition": "ehvi"}, "'knowledge-gradient', 'qlognehvi'.*, but got 'ehvi'"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SIPSampler(**options)
