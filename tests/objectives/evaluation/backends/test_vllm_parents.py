"""Parents beside a running engine, with the CPU as the device."""

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import torch
from transformers import AutoModelForCausalLM

from backend_suite import PLAN
from mergefront.examples.demo import BASE, EXPERT
from mergefront.objectives.checkpoints import Checkpoint
from mergefront.objectives.evaluation.backends.vllm_swap.parents import (
    DeviceRecipe,
    Moved,
    fits_device,
    keep,
)
from mergefront.objectives.evaluation.backends.vllm_worker import MergeExtension
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


class _Worker(MergeExtension):
    """What vLLM's worker gives to the methods that overwrite in place: the model."""

    def __init__(self, directory: Path) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float16)
        self.model_runner = SimpleNamespace(get_model=lambda: self.model)


def test_a_merge_that_is_not_finite_in_place_is_told_and_the_next_one_is_right() -> None:
    worker = _Worker(BASE)
    worker.mergefront_load(str(BASE), [str(EXPERT)], "float16", asdict(PLAN.settings))
    assert worker.mergefront_keep(0) == ""
    worker.model.load_state_dict(_Worker(EXPERT).model.state_dict())
    assert worker.mergefront_keep(1) == ""
    assert worker.mergefront_prepare() == ""
    _, reason = worker.mergefront_overwrite(PLAN.group_weights(PLAN.uniform(1e7)))
    assert reason.startswith("Weights must be finite, but ")
    groups = PLAN.group_weights(PLAN.uniform(0.3))
    seconds, reason = worker.mergefront_overwrite(groups)
    assert seconds > 0
    assert reason == ""
    recipe = Recipe(Checkpoint(BASE), [Checkpoint(EXPERT)], PLAN, torch.float16)
    live = dict(worker.model.named_parameters())
    merged = dict(stream(recipe, groups))
    assert all(torch.equal(merged[name], live[name]) for name in merged)
