"""Operators and experts that are searched: each arm merges as a study of it alone would."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from mergefront.errors import LayoutError
from mergefront.objectives.checkpoints import Checkpoint
from mergefront.objectives.merging import (
    OPERATORS,
    Arm,
    MergePlan,
    MergeSettings,
    ModuleSink,
    Recipe,
    stream,
    write_checkpoint,
)
from mergefront.objectives.merging.settings import arm_name, with_arm
from tiny_models import write_llama

ARMS = (
    Arm("ties", (1,), 0.5),
    Arm("linear", (1,)),
    Arm("linear", (1, 2)),
    Arm("dare_linear", (2,), (0.3, 0.9)),
    Arm("slerp", (2, 1)),
)
SETTINGS = MergeSettings(head="search", n_experts=2, arms=ARMS)
GROUPS = ("layer_000", "layer_001", "head")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A base and two experts."""
    folder = tmp_path_factory.mktemp("models")
    return [write_llama(folder / str(seed), seed) for seed in range(3)]


def _recipe(models: list[Path], settings: MergeSettings) -> Recipe:
    base, *experts = map(Checkpoint, models)
    return Recipe(base, experts, MergePlan(base.layout, settings), torch.bfloat16)


def _params(plan: MergePlan, arm: int) -> dict[str, object]:
    """Some weights under an arm."""
    params = {name: 0.1 + 0.07 * k for k, name in enumerate(plan.parameter_names)}
    return {**params, "density": 0.5, **plan.arm_params(arm)}


def test_parameters_are_choices_then_weights_of_every_expert_then_the_density() -> None:
    plan = MergePlan(["model.layers.0.mlp.up_proj.weight"], replace(SETTINGS, head="merge"))

    expected = ["operator", "experts", "layer_000@1", "layer_000@2", "density"]
    assert plan.parameter_names == expected
    assert plan.settings.choices == {
        "operator": ["ties(density=0.5)", "linear", "dare_linear", "slerp"],
        "experts": ["1", "1+2", "2", "2>1"],
    }


def test_an_arm_fixes_its_choices_and_what_it_leaves_out() -> None:
    plan = MergePlan(["model.layers.0.mlp.up_proj.weight"], replace(SETTINGS, head="merge"))

    ties = {"operator": "ties(density=0.5)", "experts": "1", "layer_000@2": 0.0, "density": 0.9}
    assert plan.arm_params(0) == ties
    assert plan.arm_params(3) == {"operator": "dare_linear", "experts": "2", "layer_000@1": 0.0}


def test_parents_are_exact_under_arms_that_can_give_them(models: list[Path]) -> None:
    recipe = _recipe(models, SETTINGS)

    for number in range(3):
        params = recipe.plan.expert(number) if number else recipe.plan.uniform(0.0)
        parent = dict(AutoModelForCausalLM.from_pretrained(models[number]).named_parameters())
        merged = dict(stream(recipe, recipe.plan.group_weights(params)))
        assert all(torch.equal(tensor, parent[name]) for name, tensor in merged.items())
    assert recipe.plan.expert(1)["operator"] == "linear"  # of ties half would be left


def test_names_leave_out_what_is_fixed() -> None:
    assert arm_name({"operator": "ties", "experts": "1+2", "layer_000": 0.5}) == "ties of 1+2"
    assert with_arm("trial 3", {"operator": "ties"}) == "trial 3, ties"
    assert with_arm("trial 3", {"layer_000": 0.5}) == "trial 3"
    one = replace(SETTINGS, n_experts=1, arms=(Arm("ties", (1,), 0.5), Arm("linear", (1,))))
    assert with_arm("uniform 0.50", one.choice(1)) == "uniform 0.50, linear"


def test_uniform_merges_share_the_weight_among_the_experts_of_the_arm() -> None:
    plan = MergePlan(["model.layers.0.mlp.up_proj.weight"], replace(SETTINGS, head="merge"))

    both = plan.uniform(0.5, 2)
    assert (both["layer_000@1"], both["layer_000@2"]) == (0.25, 0.25)
    one = plan.uniform(0.5, 3)
    assert (one["layer_000@1"], one["layer_000@2"], one["density"]) == (0.0, 0.5, 0.9)


@pytest.mark.parametrize("place", range(len(ARMS)))
def test_an_arm_merges_in_place_and_on_disk_as_its_own_study_does(
    models: list[Path], place: int, tmp_path: Path
) -> None:
    recipe, arm = _recipe(models, SETTINGS), ARMS[place]
    params = _params(recipe.plan, place)
    groups = recipe.plan.group_weights(params)
    alone = replace(
        SETTINGS, operator=arm.operator, density=arm.density, n_experts=len(arm.experts), arms=()
    )
    own = _recipe([models[0], *(models[k] for k in arm.experts)], alone)
    expected = dict(stream(own, recipe.plan.at(groups).groups))

    live, *experts = (AutoModelForCausalLM.from_pretrained(path) for path in models)
    sink = ModuleSink(live, experts, SETTINGS)
    sink.write(recipe.plan.group_weights(recipe.plan.expert(2)))  # leaves nothing behind
    sink.write(groups)
    write_checkpoint(recipe, groups, tmp_path)
    written = AutoModelForCausalLM.from_pretrained(tmp_path)
    for model in (live, written):
        for name, tensor in model.named_parameters():
            assert torch.equal(tensor, expected[name]), (arm, name)


def test_experts_of_an_operator_that_takes_one_are_merged_one_after_the_other(
    models: list[Path],
) -> None:
    recipe = _recipe(models, MergeSettings("slerp", n_experts=2))
    groups = {"layer_000": (0.25, 0.5), "layer_001": (0.5, 0.0)}
    name = "model.layers.0.mlp.up_proj.weight"
    parents = [s.load().float() for s in recipe.sources(name)]

    merged = dict(stream(recipe, groups))

    slerp = OPERATORS["slerp"].combine
    first = slerp(parents[0], parents[1:2], (0.25,), {})
    second = slerp(first, parents[2:], (0.5,), {})
    assert torch.equal(merged[name], second.bfloat16())
    only_first = dict(
        stream(
            _recipe(models[:2], MergeSettings("slerp")),
            {
                "layer_000": (0.25,),
                "layer_001": (0.5,),
            },
        )
    )
    name = name.replace(".0.", ".1.")
    assert torch.equal(merged[name], only_first[name])


def test_unknown_arms_are_refused_with_those_there_are() -> None:
    plan = MergePlan(["model.layers.0.mlp.up_proj.weight"], replace(SETTINGS, head="merge"))
    params = {**_params(plan, 0), "experts": "2"}

    with pytest.raises(LayoutError, match=r"ties\(density=0.5\) merges 1, but 'experts' is '2'"):
        plan.group_weights(params)


def test_settings_of_another_process_are_the_same() -> None:
    import json
    from dataclasses import asdict

    assert MergeSettings(**json.loads(json.dumps(asdict(SETTINGS)))).arms == SETTINGS.arms


def test_a_merge_that_has_no_arm_of_its_own_is_the_one_that_is_the_same() -> None:
    """A study that measured TIES of one expert beside the linear merge is still read."""
    arms = tuple(Arm("linear", group) for group in [(1,), (2,), (1, 2)])
    settings = MergeSettings(n_experts=2, arms=(*arms, Arm("ties", (1, 2))))

    assert settings.arm_of({"operator": "ties", "experts": "2"}) == 1
    assert settings.arm_of({"operator": "ties", "experts": "1+2"}) == 3
    sparse = replace(settings, arms=(*arms, Arm("ties", (1, 2), 0.5)))
    with pytest.raises(
        LayoutError, match=r"ties\(density=0.5\) merges 1\+2, but 'experts' is '2'"
    ):
        sparse.arm_of({"operator": "ties(density=0.5)", "experts": "2"})
