"""Presets: bundles of keys that fill in what a spec leaves open."""

from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest

from mergefront.errors import SpecError
from mergefront.samplers import BMMSampler, MoeadCmaesSampler, PerTrialSampler, SIPSampler
from mergefront.study import StudySpec
from mergefront.study.first_trials import first_trials
from mergefront.study.run import make_sampler, run
from mergefront.study.spec.inputs import load_inputs
from mergefront.study.spec.presets import PRESETS
from mergefront.study.storage.connection import load_study
from mergefront.study.workers.batches import BATCH
from small_study import write_spec


def _spec(folder: Path, preset: str, **changes: Any) -> StudySpec:
    sampler = {"preset": preset, **changes.pop("sampler", {})}
    return StudySpec.from_yaml(write_spec(folder, sampler=sampler, **changes))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_a_valid_spec_with_a_sampler(preset: str, tmp_path: Path) -> None:
    spec = _spec(tmp_path, preset, merge={"embeddings": "merge", "head": "merge"})
    again = spec.with_overrides(trials=12)  # parsed again, with all keys given
    assert again.sampler == spec.sampler
    assert again.merge == spec.merge
    inputs = load_inputs(tmp_path / "spec.yaml")
    study = optuna.create_study(directions=spec.directions)
    expected = {
        "mergefront": SIPSampler,
        "qnehvi": SIPSampler,
        "sip-bmm": BMMSampler,
        "ap-bmm": BMMSampler,
        "bambo": BMMSampler,
        "moead-cmaes": MoeadCmaesSampler,
    }
    assert type(make_sampler(inputs, study)) is expected.get(preset, PerTrialSampler)
    trials = first_trials(spec, inputs.plan)
    assert [trial.user_attrs["phase"] for trial in trials[:2]] == ["parent", "parent"]


def test_a_preset_fills_in_and_given_keys_win(tmp_path: Path) -> None:
    spec = _spec(tmp_path, "sip-bmm")
    assert (spec.sampler.startup, spec.sampler.batch) == ("sobol", 4)
    assert spec.importance.norm == "absolute"
    given = {"batch": 8, "startup": "uniform"}
    spec = _spec(tmp_path, "sip-bmm", sampler=given, importance={"norm": "relative"})
    assert (spec.sampler.startup, spec.sampler.batch) == ("uniform", 8)
    assert spec.importance.norm == "relative"
    bambo = _spec(tmp_path, "bambo")
    assert bambo.merge.granularity == "blocks"
    assert bambo.sampler.bmm.acquisition == "qehvi"
    rerank = _spec(tmp_path, "ap-bmm").sampler.bmm.rerank
    assert rerank is not None
    assert (rerank.gap, rerank.proximity) == (0.25, 0.15)


@pytest.mark.parametrize(
    "sampler",
    [{"lengthscales": "initial"}, {"acquisition": "qehvi"}, {"rerank": {}}],
)
def test_keys_of_the_published_methods_are_theirs_alone(
    tmp_path: Path, sampler: dict[str, Any]
) -> None:
    with pytest.raises(SpecError, match="only the presets sip-bmm, ap-bmm, bambo have"):
        _spec(tmp_path, "mergefront", sampler=sampler)


def test_sobol_points_come_after_the_parents(tmp_path: Path) -> None:
    spec = _spec(tmp_path, "ap-bmm", study={"trials": 48}, importance={"kind": "none"})
    inputs = load_inputs(tmp_path / "spec.yaml")
    trials = first_trials(spec, inputs.plan)
    assert Counter(t.user_attrs["phase"] for t in trials) == {"parent": 2, "startup": 8}
    assert len({tuple(trial.params.values()) for trial in trials}) == 10
    few = StudySpec.from_yaml(tmp_path / "spec.yaml").with_overrides(trials=5)
    assert len(first_trials(few, inputs.plan)) == 5


def test_a_sweep_is_a_grid_of_weights_and_densities(tmp_path: Path) -> None:
    edges = {"embeddings": "merge", "head": "merge"}
    spec = _spec(tmp_path, "ties", study={"trials": 14}, merge=edges)
    trials = first_trials(spec, load_inputs(tmp_path / "spec.yaml").plan)
    assert [trial.params for trial in trials[:2]] == [
        {"uniform": 0.0, "density": 1.0},
        {"uniform": 1.0, "density": 1.0},
    ]
    swept = [(t.params["density"], t.params["uniform"]) for t in trials[2:]]
    weights = [0.2, 0.4, 0.6, 0.8]
    assert swept == [(density, weight) for density in (0.7, 0.8, 0.9) for weight in weights]
    plain, path = (
        _spec(tmp_path, "uniform", study={"trials": 5}, merge=edges),
        tmp_path / "spec.yaml",
    )
    levels = [t.params["uniform"] for t in first_trials(plain, load_inputs(path).plan)]
    assert levels == [0.0, 1.0, 0.25, 0.5, 0.75]


def test_a_study_in_synchronous_batches(tmp_path: Path) -> None:
    path = write_spec(
        tmp_path,
        study={"trials": 7},
        sampler={"preset": "sip-bmm", "n_startup_trials": 2, "batch": 2},
    )
    run(load_inputs(path))
    trials = load_study(StudySpec.from_yaml(path)).trials
    assert [trial.user_attrs["phase"] for trial in trials[:4]] == ["parent"] * 2 + ["startup"] * 2
    assert [trial.user_attrs.get(BATCH) for trial in trials] == [None] * 4 + [0, 0, 1]
