"""Creating a study, once."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from mergefront.errors import StudyError
from mergefront.examples.demo import EXPERT
from mergefront.objectives.merging import MergePlan, MergeSettings
from mergefront.study import StudySpec
from mergefront.study.dry_run import plan_study
from mergefront.study.first_trials import first_trials
from mergefront.study.seeding import importance_of, init_study, queue_seeds
from mergefront.study.spec.inputs import StudyInputs, load_inputs
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


OPERATORS = ["linear", {"name": "ties", "density": 0.5}, {"name": "dare_ties", "density": 0.5}]


def _joint(folder: Path, choose: dict[str, int], operators: list[Any]) -> StudyInputs:
    models = {"experts": [str(EXPERT), str(EXPERT)], "choose": choose}
    merge = {"operator": operators, "granularity": "uniform"}
    return load_inputs(write_spec(folder, 4, models=models, merge=merge))


def test_one_choice_in_another_spelling_is_the_same_study(tmp_path: Path) -> None:
    init_study(_joint(tmp_path, {}, OPERATORS))
    ties = {"name": "ties", "density": 0.5, "parameters": {"lambda": 1.0}}
    study = init_study(_joint(tmp_path, {"min": 1, "max": 2}, ["linear", ties, OPERATORS[2]]))
    assert study.get_trials()
    with pytest.raises(StudyError, match=r"models.choose was \[1, 2\], is null"):
        init_study(_joint(tmp_path, {"min": 2}, OPERATORS))


def test_parameters_that_have_their_default_are_the_same_study(tmp_path: Path) -> None:
    def ties(**parameters: float) -> StudyInputs:
        merge = {"operator": "ties", "density": 0.5, "parameters": parameters}
        return load_inputs(write_spec(tmp_path, merge=merge))

    init_study(ties())
    init_study(ties(**{"lambda": 1.0}))
    with pytest.raises(StudyError, match=r'merge.parameters was \{\}, is \{"lambda": 0.5\}'):
        init_study(ties(**{"lambda": 0.5}))


def test_all_of_fewer_experts_are_another_choice(tmp_path: Path) -> None:
    merge = {"operator": OPERATORS, "granularity": "uniform"}
    models = {"experts": [str(EXPERT)] * 3, "choose": {}}
    init_study(load_inputs(write_spec(tmp_path, 4, models=models, merge=merge)))
    fewer = write_spec(tmp_path, 4, models={**models, "experts": [str(EXPERT)] * 2}, merge=merge)
    with pytest.raises(StudyError, match=r"models.choose was \[1, 3\], is \[1, 2\]"):
        plan_study(StudySpec.from_yaml(fewer))


def test_what_differs_in_a_long_list_is_shown(tmp_path: Path) -> None:
    init_study(_joint(tmp_path, {}, OPERATORS))
    changed = [*OPERATORS[:2], {"name": "dare_ties", "density": 0.7}]
    with pytest.raises(StudyError) as caught:
        init_study(_joint(tmp_path, {}, changed))
    was, now = str(caught.value).split(", is ...")
    assert '"density": 0.5, "name": "dare_ties"' in was
    assert '"density": 0.7, "name": "dare_ties"' in now
    with pytest.raises(StudyError, match=r"merge\.operator has the same entries in another order"):
        init_study(_joint(tmp_path, {}, OPERATORS[::-1]))


def test_a_budget_of_tokens_is_not_spent_on_uniform_merges(tmp_path: Path) -> None:
    study = {"trials": None, "budget": {"tokens": 3000}}
    models = {"experts": [str(EXPERT), str(EXPERT), str(EXPERT)], "choose": {}}
    merge = {"operator": [*OPERATORS, "sce", {"name": "breadcrumbs", "density": 0.5}]}
    path = write_spec(
        tmp_path, 4, study=study, models=models, merge=merge, sampler={"n_startup_trials": 6}
    )
    inputs = load_inputs(path)
    assert len(inputs.plan.arms) > 30
    assert len(first_trials(inputs.spec, inputs.plan)) == 6
    told = dict(plan_study(inputs.spec))
    assert told["trials"] == (
        "as many as the budget allows, 15 in any case: 4 parents, 2 uniform merges, then proposals"
    )


def test_the_dry_run_says_what_a_run_would_refuse(tmp_path: Path) -> None:
    path = write_spec(tmp_path, 4)
    init_study(load_inputs(path))
    assert plan_study(StudySpec.from_yaml(path))
    changed = StudySpec.from_yaml(write_spec(tmp_path, 4, merge={"granularity": "thirds"}))
    with pytest.raises(StudyError, match=r'merge\.granularity was "layer", is "thirds"'):
        plan_study(changed)


def test_the_dry_run_warns_of_more_choices_than_trials(tmp_path: Path) -> None:
    models = {"experts": [str(EXPERT), str(EXPERT)], "choose": {}}
    for trials, warned in ((12, False), (11, True), (2, True)):
        study = {"trials": trials}
        merge = {"operator": [*OPERATORS[:2], "sce"]}
        spec = StudySpec.from_yaml(
            write_spec(tmp_path, 4, study=study, models=models, merge=merge)
        )
        told = [text for title, text in plan_study(spec) if title == "warning"]
        assert any("choices of operator and experts, but" in text for text in told) == warned
