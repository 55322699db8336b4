"""More uniform merges, where the uniform curve bends."""

from pathlib import Path

import numpy as np
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from command import invoke
from mergefront.errors import SpecError
from mergefront.study import StudySpec
from mergefront.study.baseline import Baseline, widest_gap
from mergefront.study.dry_run import plan_study
from mergefront.study.run import run
from mergefront.study.spec.inputs import load_inputs
from mergefront.study.storage.connection import load_study
from small_study import write_spec

SPACE = {"layer_000": FloatDistribution(0, 1), "layer_001": FloatDistribution(0, 1)}


def _step(weight: float) -> list[float]:
    """A curve as a real pair's: nothing happens but between weights 0.6 and 0.8."""
    rise = 1 / (1 + np.exp(-(weight - 0.7) / 0.02))
    return [0.03 + 0.55 * float(rise), 6 + 27 * float(rise)]


def _uniform(weight: float, error: float = 0.0, state: str = "COMPLETE") -> FrozenTrial:
    return create_trial(
        state=TrialState[state],
        values=_step(weight) if state == "COMPLETE" else None,
        params=dict.fromkeys(SPACE, weight),
        distributions={**SPACE},
        user_attrs={
            "phase": "parent" if weight in (0.0, 1.0) else "uniform",
            "standard_errors": [error, error * 50],
        },
    )


def _merge(weight: float) -> dict[str, float]:
    return dict.fromkeys(SPACE, weight)


def test_merges_go_where_the_curve_bends() -> None:
    trials = [_uniform(w) for w in (0.0, 0.25, 0.5, 0.75, 1.0)]
    added = []
    while (trial := Baseline(9, _merge, SPACE).next(trials)) is not None:
        assert trial.state == TrialState.RUNNING
        assert len(set(trial.params.values())) == 1
        added.append(trial.params["layer_000"])
        trials.append(_uniform(added[-1]))
    assert len(added) == 6  # three of nine were there
    assert all(0.5 < weight < 1.0 for weight in added[:4])
    values = np.array([_step(t.params["layer_000"]) for t in trials])
    ordered = values[values[:, 0].argsort()]
    steps = np.abs(np.diff(ordered, axis=0)).max(axis=0) / np.ptp(values, axis=0)
    assert (steps < 0.35).all()  # eight equal steps leave a gap of 0.9


def test_noise_is_no_bend() -> None:
    calm = [_uniform(w, error=0.5) for w in (0.0, 0.2, 0.5, 0.6, 0.8, 1.0)]
    assert widest_gap(calm) == pytest.approx(0.35)  # the widest in weights


def test_what_is_being_measured_counts() -> None:
    trials = [_uniform(w) for w in (0.0, 0.5, 1.0)]
    assert widest_gap(trials) == 0.75
    assert widest_gap([*trials, _uniform(0.75, state="RUNNING")]) in (0.625, 0.875)
    assert widest_gap([_uniform(0.0), _uniform(0.5, state="WAITING")]) is None


def test_a_merge_that_fails_is_not_proposed_again() -> None:
    trials = [_uniform(w) for w in (0.0, 0.5, 1.0)]
    baseline = Baseline(3, _merge, SPACE)
    proposed = []
    while (trial := baseline.next(trials)) is not None:
        proposed.append(trial.params["layer_000"])
        failed = _uniform(proposed[-1], state="FAIL")
        trials += [failed, failed]  # tried again, and failed again
    assert len(set(proposed)) == len(proposed) == 2


def test_merges_keep_to_the_bounds() -> None:
    trials = [_uniform(w) for w in (0.0, 1.0)]
    assert widest_gap(trials, (0.6, 0.9)) is None
    assert widest_gap([*trials, _uniform(0.6), _uniform(0.9)], (0.6, 0.9)) == 0.75


@pytest.mark.parametrize(("trials", "told"), [(1, "1: 1 parent"), (2, "2: 2 parents")])
def test_the_dry_run_of_few_trials_tells_what_they_measure(
    tmp_path: Path, trials: int, told: str
) -> None:
    path = write_spec(tmp_path, study={"trials": trials})
    assert dict(plan_study(StudySpec.from_yaml(path)))["trials"] == told


def test_a_study_measures_them_from_its_budget(tmp_path: Path) -> None:
    path = write_spec(
        tmp_path,
        n_questions=8,
        study={"trials": 8},
        sampler={"preset": "random", "n_startup_trials": 4},
        evaluation={"baseline": 4},
    )
    shown = invoke("run", path, "--dry-run").stdout
    assert "2 parents, 2 uniform merges, 2 more where the uniform curve bends, 2 proposed" in shown
    run(load_inputs(path))
    trials = load_study(StudySpec.from_yaml(path)).get_trials()
    phases = [trial.user_attrs["phase"] for trial in trials]
    assert phases == ["parent"] * 2 + ["uniform"] * 4 + ["search"] * 2
    levels = [trial.params["layer_000"] for trial in trials[:6]]
    assert len(set(levels)) == 6
    assert all(len(set(trial.params.values())) == 1 for trial in trials[:6])


def test_it_needs_a_uniform_start_up(tmp_path: Path) -> None:
    path = write_spec(tmp_path, sampler={"startup": "sobol"}, evaluation={"baseline": 9})
    with pytest.raises(SpecError, match=r"adds to the uniform merges .* got startup 'sobol'"):
        StudySpec.from_yaml(path)
