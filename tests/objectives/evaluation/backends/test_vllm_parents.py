"""Parents beside a running engine, with the CPU as the device."""

import torch

from backend_suite import PLAN
from mergefront.examples.demo import BASE, EXPERT
from mergefront.objectives.checkpoints import Checkpoint
from mergefront.objectives.evaluation.backends.vllm_swap.parents import (
    DeviceRecipe,
    Moved,
    fits_device,
    keep,
)
from mergefront.objectives.merging import ParentTensors, Recipe, Resident, stream

CPU = torch.device("cpu")


def test_a_recipe_on_a_device_gives_the_same_tensors() -> None:
    recipe = Recipe(Checkpoint(BASE), [Checkpoint(EXPERT)], PLAN, torch.bfloat16)
    on_device = DeviceRecipe(**vars(recipe), device=CPU)
    groups = PLAN.group_weights(PLAN.uniform(0.3))
    pairs = list(zip(stream(recipe, groups), stream(on_device, groups), strict=True))
    assert len(pairs) == len(recipe.base.layout)
    for (name, tensor), (same_name, same) in pairs:
        assert name == same_name
        assert torch.equal(tensor, same)


def test_parents_in_the_hosts_memory_merge_as_those_on_the_device() -> None:
    tensors = {"w": torch.randn(3, 5, generator=torch.Generator().manual_seed(0))}
    assert fits_device(tensors, 2)
    kept = keep(tensors, on_device=True)
    tensors["w"].zero_()  # a copy does not follow the live model
    assert kept["w"].tensor.abs().sum() > 0
    merger = PLAN.settings.merger()
    merged = []
    for base in (kept["w"], Moved(kept["w"].tensor, CPU)):
        out = torch.empty(3, 5)
        expert = Resident(torch.ones(3, 5))
        merger.merge(ParentTensors("w", base, [expert]), (0.25,), out)
        merged.append(out)
    assert torch.equal(merged[0], merged[1])
