"""Weights in few bits: what compressed-tensors makes of them, bit for bit."""

from pathlib import Path

import pytest
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.lifecycle.forward import quantize
from compressed_tensors.quantization.utils import calculate_qparams
from safetensors import safe_open
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from mergefront.errors import LayoutError, SpecError
from mergefront.objectives.checkpoints import Checkpoint, tensor_table
from mergefront.objectives.merging import (
    Arm,
    MergePlan,
    MergeSettings,
    ModuleSink,
    Precision,
    Recipe,
    check_precision,
    parse_weights,
    plan_of,
    stream,
    weight_file,
    write_checkpoint,
)
from mergefront.objectives.merging.precision import (
    FORMATS,
    PRECISION,
    Format,
    quantized,
    round_weight,
    served_bytes,
    stored,
)

SEARCHED = Precision(("bfloat16", "fp8", "int8", "int4"), 2)
LAYERS, ROWS = 4, 24


def _args(form: Format, width: int) -> QuantizationArgs:
    size = form.group_size(width)
    one = size == width
    strategy = "channel" if one else "group"
    group = None if one else size
    return QuantizationArgs(
        num_bits=form.bits, type=form.kind, strategy=strategy, group_size=group, symmetric=True
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("width", [256, 192, 128, 96, 50])
@pytest.mark.parametrize("name", FORMATS)
def test_numbers_and_scales_are_the_librarys(name: str, width: int, dtype: torch.dtype) -> None:
    form, args = FORMATS[name], _args(FORMATS[name], width)
    torch.manual_seed(0)
    weight = (torch.randn(ROWS, width) * 0.05).to(dtype)

    found = quantized(weight, form)

    grouped = weight.float().view(ROWS, -1, form.group_size(width))
    scales, _ = calculate_qparams(grouped.amin(2), grouped.amax(2), args)
    assert torch.equal(found.scales, scales.to(dtype))
    numbers = quantize(weight.float(), found.scales.float(), None, args)
    assert torch.equal(found.values.float(), numbers)


@pytest.mark.parametrize("width", [256, 192, 96, 50])
@pytest.mark.parametrize("name", FORMATS)
def test_what_is_stored_decompresses_to_what_was_measured(name: str, width: int) -> None:
    form = FORMATS[name]
    torch.manual_seed(1)
    weight = (torch.randn(ROWS, width) * 0.05).bfloat16()
    weight[3] = 0

    scheme = QuantizationScheme(targets=["Linear"], weights=_args(form, width))
    kind = "float-quantized" if form.kind == "float" else "pack-quantized"
    library = BaseCompressor.get_value_from_registry(kind)
    back = library.decompress(stored("weight", weight, form), scheme)["weight"]

    round_weight(weight, form)
    assert back.dtype == torch.bfloat16
    assert torch.equal(back, weight)


def test_four_bits_by_hand() -> None:
    """The largest is 15, so that the scale is 15 / 7.5 = 2; 15 / 2 is 7.5 and becomes 7."""
    weight = torch.tensor([[15.0, -15.0, 3.2, -0.9, 5.0, 0.0]])

    found = quantized(weight, FORMATS["int4"])

    assert found.scales.tolist() == [[2.0]]
    assert found.values.tolist() == [[7, -8, 2, 0, 2, 0]]  # 2.5 is rounded to the even number
    packed = stored("w", weight, FORMATS["int4"])["w_packed"]
    # with 8 added: 15, 0, 10, 8, 10, 8, the first in the lowest bits
    assert packed.tolist() == [[0x8A8A0F]]
    round_weight(weight, FORMATS["int4"])
    assert weight.tolist() == [[14.0, -16.0, 4.0, 0.0, 4.0, 0.0]]


@pytest.mark.parametrize(
    ("width", "sizes"),
    [(4096, 128), (576, 64), (1536, 128), (96, 32), (64, 64), (50, 50)],
)
def test_rows_have_the_largest_group_that_divides_them(width: int, sizes: int) -> None:
    assert [FORMATS[name].group_size(width) for name in ("int8", "int4")] == [sizes, sizes]
    assert FORMATS["fp8"].group_size(width) == width


def test_bytes_by_hand() -> None:
    shape = torch.Size((10, 256))
    served = {n: served_bytes(shape, torch.bfloat16, form) for n, form in FORMATS.items()}
    # numbers, and scales of two bytes: one a row, or two for 256 numbers
    expected = {"fp8": 2560 + 20, "int8": 2560 + 40, "int4": 1280 + 40}
    assert served == expected
    assert served_bytes(shape, torch.bfloat16, None) == 5120


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A base in shards, and an expert."""
    paths = []
    for seed in range(2):
        torch.manual_seed(seed)
        config = LlamaConfig(
            hidden_size=128,
            intermediate_size=160,
            num_hidden_layers=LAYERS,
            num_attention_heads=2,
            vocab_size=64,
        )
        paths.append(tmp_path_factory.mktemp(f"model{seed}"))
        LlamaForCausalLM(config).bfloat16().save_pretrained(paths[-1], max_shard_size="400KB")
    return paths


def _recipe(models: list[Path], settings: MergeSettings) -> Recipe:
    base, *experts = map(Checkpoint, models)
    return Recipe(base, experts, plan_of(base, settings), torch.bfloat16)


def _params(plan: MergePlan) -> dict[str, object]:
    names = plan.parameter_names
    chosen = {"precision_0": "int4", "precision_1": "fp8"}
    return {name: chosen.get(name, 0.1 + 0.07 * k) for k, name in enumerate(names)}


def test_parameters_are_precisions_of_groups_of_neighbouring_layers(models: list[Path]) -> None:
    plan = _recipe(models, MergeSettings(precision=SEARCHED)).plan

    assert plan.parameter_names[:3] == ["precision_0", "precision_1", "layer_000"]
    groups = plan.group_weights(_params(plan))
    assert groups[PRECISION] == (3.0, 1.0)
    found: dict[int, Format | None] = {}
    for layer in range(LAYERS):
        name = f"model.layers.{layer}.mlp.up_proj.weight"
        found[layer] = plan.format_of(name, groups)
    assert list(found.values()) == [FORMATS["int4"]] * 2 + [FORMATS["fp8"]] * 2
    others = ["model.embed_tokens", "lm_head", "model.norm", "model.layers.0.input_layernorm"]
    assert not any(plan.format_of(f"{name}.weight", groups) for name in others)


def test_parents_are_measured_in_the_most_bits(models: list[Path]) -> None:
    plan = _recipe(models, MergeSettings(precision=Precision(("int4", "fp8", "int8")))).plan

    assert plan.uniform(0.0)["precision_0"] == "fp8"
    assert plan.expert(1)["precision_0"] == "fp8"


def test_the_base_is_rounded_too(models: list[Path]) -> None:
    recipe = _recipe(models, MergeSettings(precision=Precision(("int4",))))
    name = "model.layers.0.mlp.up_proj.weight"
    expected = recipe.base.tensor(name).load()
    round_weight(expected, FORMATS["int4"])

    merged = dict(stream(recipe, recipe.plan.group_weights(recipe.plan.uniform(0.0))))

    assert torch.equal(merged[name], expected)
    head = "lm_head.weight"
    assert torch.equal(merged[head], recipe.base.tensor(head).load())


@pytest.mark.parametrize(
    "settings",
    [
        MergeSettings(precision=SEARCHED),
        MergeSettings("ties", density=0.5, precision=SEARCHED),
        MergeSettings(granularity="heads", n_heads=2, precision=SEARCHED),
        MergeSettings(precision=Precision(("int8",))),
    ],
    ids=["linear", "ties", "heads", "fixed"],
)
def test_a_checkpoint_loads_as_what_was_measured(
    models: list[Path], settings: MergeSettings, tmp_path: Path
) -> None:
    recipe = _recipe(models, settings)
    groups = recipe.plan.group_weights(_params(recipe.plan))
    live, expert = (AutoModelForCausalLM.from_pretrained(path) for path in models)
    table = tensor_table(recipe.base)
    ModuleSink(live, [expert], recipe.plan.settings, table=table).write(groups)
    measured = live.state_dict()
    merged = dict(stream(recipe, groups))
    assert all(torch.equal(measured[name], tensor) for name, tensor in merged.items())

    write_checkpoint(recipe, groups, tmp_path)

    files = list(tmp_path.glob("*.safetensors"))
    assert len(files) > 1
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        loaded(torch.tensor([[1, 2, 3]]))  # the library decompresses when it is first asked
    found = loaded.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in measured.items())
    sizes = _stored_bytes(tmp_path)
    assert sum(n for name, n in sizes.items() if not name.endswith("_shape")) == (
        recipe.model_bytes(groups)
    )


def _stored_bytes(folder: Path) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        sizes |= {name: t.numel() * t.element_size() for name, t in tensors.items()}
    return sizes


def test_an_arm_is_rounded_as_its_own_study_rounds(models: list[Path]) -> None:
    arms = (Arm("linear", (1,)), Arm("ties", (1,), 0.5))
    recipe = _recipe(models, MergeSettings(arms=arms, precision=SEARCHED))
    own = _recipe(models, MergeSettings("ties", density=0.5, precision=SEARCHED))
    params = {**_params(recipe.plan), "operator": "ties(density=0.5)"}

    merged = dict(stream(recipe, recipe.plan.group_weights(params)))

    alone = recipe.plan.at(recipe.plan.group_weights(params)).groups
    assert all(torch.equal(merged[name], tensor) for name, tensor in stream(own, alone))


def test_a_weight_file_holds_precisions_as_texts(models: list[Path]) -> None:
    plan = _recipe(models, MergeSettings(precision=SEARCHED)).plan
    groups = plan.group_weights(_params(plan))

    content = weight_file(plan, groups)

    assert content["precision_0"] == "int4"
    assert parse_weights(plan, content) == groups
    with pytest.raises(LayoutError, match="'precision_1' must be one of bfloat16, fp8"):
        parse_weights(plan, {"uniform": 0.5, "precision_0": "int4"})


def test_more_groups_than_layers_and_models_without_linear_layers_are_refused(
    models: list[Path],
) -> None:
    many = _recipe(models, MergeSettings(precision=Precision(("int8", "int4"), 5)))
    with pytest.raises(SpecError, match="at most the model's 4 layers, but got 5"):
        check_precision(many.base, many.plan)
    parts = {n: p for n, p in many.plan.parts.items() if not p.linear}
    none = MergePlan.of_parts(parts, many.plan.settings)
    with pytest.raises(SpecError, match="needs linear layers that transformers knows"):
        check_precision(many.base, none)
