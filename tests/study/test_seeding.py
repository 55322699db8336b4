"""Creating a study, once."""

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from mergefront.errors import StudyError
from mergefront.objectives.merging import MergePlan, MergeSettings
from mergefront.study import StudySpec
from mergefront.study.seeding import importance_of, init_study, queue_seeds
from mergefront.study.spec.inputs import load_inputs
from small_study import write_spec


def test_parents_and_uniform_merges_come_first(spec_path: Path) -> None:
    study = init_study(load_inputs(spec_path))
    trials = study.get_trials()
    assert [trial.state for trial in trials] == [TrialState.WAITING] * 8
    assert [trial.user_attrs["phase"] for trial in trials] == ["parent"] * 2 + ["uniform"] * 6
    assert [trial.user_attrs["label"] for trial in trials[:2]] == ["base", "expert"]
    levels = [set(trial.params.values()) for trial in trials]
    assert levels[:2] == [{0.0}, {1.0}]
    assert sorted(level for (level,) in levels) == pytest.approx([i / 7 for i in range(8)])
    assert study.metric_names == ["accuracy", "tokens"]
    assert importance_of(study) is not None


def test_init_twice_is_init_once(spec_path: Path) -> None:
    inputs = load_inputs(spec_path)
    first = init_study(inputs)
    second = init_study(inputs)
    assert len(second.get_trials()) == len(first.get_trials()) == 8


def test_a_start_that_was_cut_off_is_begun_again(spec_path: Path) -> None:
    inputs = load_inputs(spec_path)
    inputs.spec.folder.joinpath("small.state").mkdir()
    cut_off = optuna.create_study(
        study_name="small",
        storage=inputs.spec.study.storage,
        directions=inputs.spec.directions,
    )
    queue_seeds(cut_off, inputs.spec, inputs.plan)
    trials = init_study(inputs).get_trials()
    assert [t.state for t in trials] == [TrialState.FAIL] * 8 + [TrialState.WAITING] * 8


def test_other_settings_are_refused_and_named(tmp_path: Path) -> None:
    init_study(load_inputs(write_spec(tmp_path)))
    changed = write_spec(tmp_path, n_questions=20, evaluation={"max_new_tokens": 40})
    with pytest.raises(StudyError) as caught:
        init_study(load_inputs(changed))
    message = str(caught.value)
    assert "evaluation.max_new_tokens was 48, is 40" in message
    assert "evaluation.tasks was" in message
    assert "models.base" not in message
    assert "another `study.name`" in message


def _seeds(path: Path, n_experts: int = 1) -> list[dict[str, float]]:
    spec = StudySpec.from_yaml(path)
    names = [f"model.layers.{i}.mlp.up_proj.weight" for i in range(2)]
    plan = MergePlan(names, MergeSettings(n_experts=n_experts))
    study = optuna.create_study(directions=spec.directions)
    queue_seeds(study, spec, plan)
    return [trial.params for trial in study.get_trials()]


def test_bounds_that_leave_out_a_parent_still_measure_it(tmp_path: Path) -> None:
    seeds = _seeds(write_spec(tmp_path, merge={"bounds": [0.2, 1.5]}))
    assert [set(seed.values()) for seed in seeds[:2]] == [{0.0}, {1.0}]
    assert all(0.2 <= weight <= 1.5 for seed in seeds[2:] for weight in seed.values())


def test_every_expert_is_a_parent(tmp_path: Path) -> None:
    seeds = _seeds(write_spec(tmp_path), n_experts=2)
    assert seeds[1] == {"layer_000@1": 1, "layer_000@2": 0, "layer_001@1": 1, "layer_001@2": 0}
    assert seeds[2] == {"layer_000@1": 0, "layer_000@2": 1, "layer_001@1": 0, "layer_001@2": 1}
    assert len(seeds) == 8


def test_no_more_seeds_than_trials(tmp_path: Path) -> None:
    assert len(_seeds(write_spec(tmp_path, study={"trials": 5}))) == 5
    assert len(_seeds(write_spec(tmp_path, study={"trials": 1}))) == 2  # the parents always
