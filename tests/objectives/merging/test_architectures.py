"""A few architectures of `make sweep`: one for each way in which tensors are special."""

from pathlib import Path

import pytest
import sweep
import torch
import yaml
from architectures import config_of, write_model

from mergefront.errors import EvaluationError, SpecError
from mergefront.objectives.checkpoints import Checkpoint, is_tied, tensor_table
from mergefront.objectives.merging import (
    MergePlan,
    MergeSettings,
    ModuleSink,
    check_operator_fits,
    check_towers,
    mergekit_yaml,
    plan_of,
)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("Llama 3, tied", "bfloat16"),
        ("Qwen 3 MoE", "float32"),  # experts are fused
        ("GLM 4.5", "bfloat16"),  # biases of routers: buffers kept in float32
        ("Hunyuan MoE", "bfloat16"),  # routers are parameters kept in float32
        ("gpt-oss", "bfloat16"),
        ("Qwen 3 Next", "float32"),
        ("Gemma 4, text", "bfloat16"),
        ("GPT-NeoX", "float32"),
        ("Gemma 3, with vision", "bfloat16"),
    ],
)
def test_what_is_run_is_what_is_in_the_files(name: str, dtype: str, tmp_path: Path) -> None:
    sweep.check(sweep.opened(name, dtype, tmp_path), tmp_path)


def test_a_buffer_that_is_not_merged_would_be_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = "mergefront.objectives.merging.sinks.live_tensors"
    monkeypatch.setattr(place, lambda model: dict(model.named_parameters()))
    with pytest.raises(AssertionError, match="tensors of the parent"):
        sweep.check(sweep.opened("GLM 4.5", "bfloat16", tmp_path), tmp_path)


@pytest.fixture
def moe(tmp_path: Path) -> Checkpoint:
    write_model(config_of("GLM 4.5"), torch.bfloat16, 1, tmp_path)
    return Checkpoint(tmp_path)


def test_the_table_names_kind_precision_and_what_is_fused(moe: Checkpoint) -> None:
    rows = tensor_table(moe).rows
    bias = rows["model.layers.1.mlp.gate.e_score_correction_bias"]
    assert (bias.kind, bias.kept) == ("buffer", torch.float32)
    expert = rows["model.layers.1.mlp.experts.0.gate_proj.weight"]
    assert expert.live == ("model.layers.1.mlp.experts.gate_up_proj",)
    assert len(expert.fused_from) == 8  # gate and up of four experts
    assert rows["model.norm.weight"].fused_from == ("model.norm.weight",)


@pytest.mark.parametrize(
    ("rule", "groups"),
    [
        ("merge", ("layer_000", "layer_001")),
        ("base", ("layer_000", "layer_001")),
        ("search", ("layer_000", "layer_001", "router")),
    ],
)
def test_routers_follow_their_layer_or_a_rule(
    moe: Checkpoint, rule: str, groups: tuple[str, ...]
) -> None:
    plan = plan_of(moe, MergeSettings(router=rule))  # type: ignore[arg-type]
    assert plan.groups == groups
    weights = plan.tensor_weights({g: (0.5,) if g != "router" else (0.9,) for g in groups})
    expected = {"merge": (0.5,), "base": (0.0,), "search": (0.9,)}[rule]
    routers = {n: w for n, w in weights.items() if ".gate." in n}
    assert routers and set(routers.values()) == {expected}
    assert weights["model.embed_tokens.weight"] == (0.5,)  # routers are no layer


def test_operators_that_need_whole_tensors_are_refused_where_loading_fuses(
    moe: Checkpoint,
) -> None:
    check_operator_fits(moe, MergeSettings("linear"))
    with pytest.raises(EvaluationError, match=r"'ties' works on .*e\.g\. 'model\.layers\.1"):
        check_operator_fits(moe, MergeSettings("ties"))


def test_towers_that_differ_are_refused_unless_asked_for(tmp_path: Path) -> None:
    merged = sweep.opened("Gemma 3, with vision", "float32", tmp_path)
    base, expert = merged.recipe.base, merged.recipe.experts[0]
    name = next(n for n, part in merged.recipe.plan.parts.items() if part.kind == "tower")
    plan = plan_of(base, MergeSettings(towers="search"))
    assert plan.groups[-1] == "towers" and name in plan.tensors_of("towers")
    offset = expert.tensor(name).offset
    with (expert.directory / expert.layout[name]).open("r+b") as file:
        file.seek(offset)
        file.write(torch.tensor([0.123]).numpy().tobytes())
    changed = Checkpoint(expert.directory)
    with pytest.raises(SpecError, match=r"towers must be the base's.*merge\.towers: base"):
        check_towers(base, (changed,), merged.recipe.plan)
    check_towers(base, (changed,), plan)


def test_masks_of_renamed_tensors_are_those_of_the_export(tmp_path: Path) -> None:
    merged = sweep.opened("Gemma 3, with vision", "float32", tmp_path)
    settings = MergeSettings("dare_linear", embeddings="search", head="search", density=0.5)
    base = merged.recipe.base
    table = tensor_table(base)
    sink = ModuleSink(merged.live, [merged.parents[1]], settings, table.tied, table)
    merged.sink.write(dict.fromkeys(merged.sink.plan.groups, (0.0,)))
    plan = plan_of(base, settings)
    recipe = type(merged.recipe)(base, merged.recipe.experts, plan, torch.float32)
    again = sweep.Merged(recipe, sink, merged.live, merged.parents)
    sink.write(dict.fromkeys(plan.groups, (0.6,)))
    sweep.check_export(again, dict.fromkeys(plan.groups, (0.6,)), tmp_path / "out")


def test_merge_is_the_mean_over_layers_not_over_variables() -> None:
    names = [f"model.layers.{i}.mlp.up_proj.weight" for i in range(8)]
    names += ["model.embed_tokens.weight", "lm_head.weight"]
    plan = MergePlan(names, MergeSettings(granularity="blocks", blocks=(0, 1)))
    weights = plan.tensor_weights({"block_000": (1.0,), "block_001": (0.0,)})
    assert weights["lm_head.weight"] == weights["model.embed_tokens.weight"] == (1 / 8,)


def test_tied_follows_the_model_that_is_run(tmp_path: Path) -> None:
    for name, expected in (("Llama 3", False), ("Llama 3, tied", True)):
        write_model(config_of(name), torch.float32, 1, tmp_path / name)
        assert is_tied(Checkpoint(tmp_path / name)) is expected


def test_mergekit_filters_name_layers_and_never_a_tower(tmp_path: Path) -> None:
    for name, expected in (("GPT-2", "h.1."), ("Qwen 2.5 VL", "model.layers.1.")):
        write_model(config_of(name), torch.float32, 1, tmp_path / name)
        plan = plan_of(Checkpoint(tmp_path / name), MergeSettings())
        text = mergekit_yaml(
            plan, {"layer_000": (0.0,), "layer_001": (1.0,)}, ["a", "b"], "float32"
        )
        rows = yaml.safe_load(text)["models"][1]["parameters"]["weight"]
        matching = {row["filter"] for row in rows if row["value"] == 1.0}
        assert matching == {expected}
        moved = {n for n in plan.parts if expected in n}
        assert moved == set(plan.tensors_of("layer_001"))
