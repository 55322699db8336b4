"""Granularity `heads`: each key/value head with its query heads moves by itself, everywhere."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mergefront.errors import LayoutError, SpecError
from mergefront.objectives.checkpoints import Checkpoint
from mergefront.objectives.evaluation import Models
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
from mergefront.objectives.evaluation.backends.vllm_worker import _elementwise_reason
from mergefront.objectives.importance import task_vector_norms
from mergefront.objectives.merging import (
    MergePlan,
    MergeSettings,
    Recipe,
    mergekit_yaml,
    plan_of,
    stream,
    write_checkpoint,
)
from mergefront.objectives.merging.heads import count_heads
from mergefront.objectives.merging.merger import CHUNK, Merger, ParentTensors, Resident
from mergefront.objectives.merging.operators import OPERATORS
from mergefront.objectives.merging.sources import Cut
from tiny_models import write_pair

HEADS = MergeSettings(granularity="heads", embeddings="search", head="search")


def _parents(folder: Path, kind: str, dtype: str = "float32") -> tuple[Models, Recipe]:
    models = write_pair(folder, kind, dtype)
    base = Checkpoint(models.base)
    plan = plan_of(base, HEADS)
    recipe = Recipe(base, [Checkpoint(models.experts[0])], plan, getattr(torch, dtype))
    return Models(models.base, models.experts, dtype, plan.settings), recipe


# 4 query heads of 32 read 2 key/value heads: the second one's rows and columns, by hand.
SECOND: dict[str, Any] = {
    "q_proj.weight": (slice(64, 128),),
    "k_proj.weight": (slice(32, 64),),
    "v_proj.weight": (slice(32, 64),),
    "q_proj.bias": (slice(64, 128),),
    "k_proj.bias": (slice(32, 64),),
    "v_proj.bias": (slice(32, 64),),
    "o_proj.weight": (slice(None), slice(64, 128)),
}


@pytest.mark.parametrize("kind", ["dense", "biases"])
def test_each_variable_moves_its_own_rows_and_columns_alone(tmp_path: Path, kind: str) -> None:
    _, recipe = _parents(tmp_path, kind)
    base, expert = recipe.base, recipe.experts[0]
    groups = dict.fromkeys(recipe.plan.groups, (0.0,))
    assert list(groups)[:3] == ["layer_000.head_00", "layer_000.head_01", "layer_000.rest"]
    for name, tensor in stream(recipe, groups | {"layer_001.head_01": (1.0,)}):
        expected, theirs = base.tensor(name).load(), expert.tensor(name).load()
        own = SECOND.get(name.removeprefix("model.layers.1.self_attn."))
        if own is not None:
            expected[own] = theirs[own]
        assert torch.equal(tensor, expected), name
    for name, tensor in stream(recipe, groups | {"layer_001.rest": (1.0,)}):
        last = name.removeprefix("model.layers.1.self_attn.")
        whole = name.startswith("model.layers.1.") and last not in SECOND
        assert torch.equal(tensor, (expert if whole else base).tensor(name).load()), name


@pytest.mark.parametrize("kind", ["dense", "biases", "windows and tied", "experts"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_all_places_agree_bit_for_bit(tmp_path: Path, kind: str, dtype: str) -> None:
    models, recipe = _parents(tmp_path, kind, dtype)
    backend = TransformersBackend()
    backend.load(models)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(len(recipe.plan.groups), generator=generator).tolist()
    for values in (drawn, [0.0] * len(drawn), [1.0] * len(drawn)):
        groups = {g: (w,) for g, w in zip(recipe.plan.groups, values, strict=True)}
        backend.apply(groups)
        write_checkpoint(recipe, groups, out := tmp_path / f"out{values[0]}")
        live, exported = backend._sink.parameters, Checkpoint(out)
        for name, tensor in stream(recipe, groups):
            assert torch.equal(tensor, exported.tensor(name).load())
            if name in live:  # the others are fused by loading
                assert torch.equal(tensor, live[name])
            if values[0] in (0.0, 1.0):
                parent = recipe.base if values[0] == 0.0 else recipe.experts[0]
                assert torch.equal(tensor, parent.tensor(name).load())
    backend.close()


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("operator", ["linear", "task_arithmetic", "ties"])
def test_pieces_of_a_large_matrix_are_merged_as_tensors_of_their_own(
    operator: str, axis: Any
) -> None:
    base, one, two = torch.randn(3, 1536, 3 * 200, generator=torch.Generator().manual_seed(1))
    assert base.numel() > 3 * CHUNK
    rows = ((0.2, 0.5), (0.0, 1.0), (0.0, 0.0))
    merger = Merger(OPERATORS[operator], OPERATORS[operator].options({}), 0)

    def merged(tensors: list[Tensor], weights: Any) -> Tensor:
        first, *others = (Resident(tensor.contiguous()) for tensor in tensors)
        out = torch.empty_like(first.tensor)
        merger.merge(ParentTensors("x", first, others), weights, out)
        return out

    whole = merged([base, one, two], Cut(axis, rows))
    pieces = zip(*(tensor.chunk(3, axis) for tensor in (base, one, two)), strict=True)
    expected = [merged(list(parts), row) for parts, row in zip(pieces, rows, strict=True)]
    assert torch.equal(whole, torch.cat(expected, axis))


def test_the_heads_and_the_rest_share_what_fine_tuning_moved(tmp_path: Path) -> None:
    _, recipe = _parents(tmp_path, "biases")
    whole = plan_of(recipe.base, MergeSettings())
    parents = (recipe.base, recipe.experts)
    layers = task_vector_norms(*parents, whole, "absolute")
    parts = task_vector_norms(*parents, recipe.plan, "absolute")
    for layer, norm in layers.items():
        own = [value for name, value in parts.items() if name.startswith(layer)]
        assert len(own) == 3 and min(own) > 0
        assert sum(value**2 for value in own) == pytest.approx(norm**2)


def test_the_rule_merge_takes_the_mean_over_layers(tmp_path: Path) -> None:
    _, recipe = _parents(tmp_path, "dense")
    settings = MergeSettings(granularity="heads", n_heads=2)
    plan = MergePlan(recipe.plan.parts, settings)
    values = dict(zip(plan.groups, [(0.1,), (0.2,), (0.6,), (0.4,), (0.5,), (0.9,)], strict=True))
    # Two heads and the rest count alike in a layer: (0.3 + 0.6) / 2.
    assert plan.tensor_weights(values)["lm_head.weight"] == pytest.approx((0.45,))


def test_one_key_value_head_is_moved_whole(tmp_path: Path) -> None:
    base = Checkpoint(write_pair(tmp_path, "dense", num_key_value_heads=1).base)
    plan = plan_of(base, MergeSettings(granularity="heads"))
    assert plan.groups == tuple(
        f"layer_00{i}.{part}" for i in (0, 1) for part in ("head_00", "rest")
    )
    values = dict(zip(plan.groups, [(0.1,), (0.3,), (0.8,), (0.6,)], strict=True))
    weights = plan.tensor_weights(values)
    assert weights["model.layers.1.self_attn.q_proj.weight"] == (0.8,)
    assert weights["model.layers.1.mlp.up_proj.weight"] == (0.6,)
    assert weights["lm_head.weight"] == pytest.approx((0.45,))  # (0.2 + 0.7) / 2


def test_heads_of_a_tower_do_not_count(tmp_path: Path) -> None:
    models = write_pair(tmp_path, "dense")
    path = models.base / "model.safetensors"
    tower = "model.vision_tower.encoder.layers.0.self_attn"
    other = {f"{tower}.{which}_proj.weight": torch.zeros(24, 24) for which in "qkv"}
    other |= {"model.vision_tower.blocks.0.attn.qkv_proj.weight": torch.zeros(72, 24)}
    save_file({**load_file(path), **other}, path, metadata={"format": "pt"})
    base = Checkpoint(models.base)
    assert count_heads(base, load_file(path)) == 2


@pytest.mark.parametrize(
    ("kind", "message"),
    [("fused projections", "holds several projections"), ("latent attention", "projections")],
)
def test_layouts_without_heads_of_their_own_are_refused(
    tmp_path: Path, kind: str, message: str
) -> None:
    models = write_pair(tmp_path, kind)
    with pytest.raises(LayoutError, match=f"Granularity 'heads' needs .*{message}.*'layer'"):
        plan_of(Checkpoint(models.base), HEADS)


@pytest.mark.parametrize(
    "settings",
    [
        MergeSettings("slerp", "heads"),
        MergeSettings("ties", "heads", density=0.5),
        MergeSettings("ties", "heads", density=(0.2, 0.9)),
    ],
)
def test_operators_that_look_at_whole_tensors_are_refused(
    tmp_path: Path, settings: MergeSettings
) -> None:
    base = Checkpoint(write_pair(tmp_path, "dense").base)
    with pytest.raises(LayoutError, match="cuts tensors, but operator"):
        plan_of(base, settings)


def test_engines_that_fuse_projections_swap_through_their_loader(tmp_path: Path) -> None:
    _, recipe = _parents(tmp_path, "dense")
    assert _elementwise_reason(recipe.plan) == "heads are pieces of tensors that the kernels fuse"
    groups = recipe.plan.group_weights(recipe.plan.uniform(0.5))
    with pytest.raises(SpecError, match="gives a tensor one weight"):
        mergekit_yaml(recipe.plan, groups, ["a", "b"], "float32")
