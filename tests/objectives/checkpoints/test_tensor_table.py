"""What files hold and nobody reads, what models need and no file gives, and copies."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from architectures import config_of, write_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from mergefront.errors import LayoutError, SpecError
from mergefront.examples.demo import BASE, EXPERT
from mergefront.objectives.checkpoints import Checkpoint, check_mergeable, tensor_table
from mergefront.objectives.checkpoints.compatibility import check_tensors
from mergefront.objectives.evaluation.backends.loading import load_model
from mergefront.objectives.merging import (
    MergeSettings,
    ModuleSink,
    Recipe,
    check_loaded,
    plan_of,
    write_checkpoint,
)

Tensors = dict[str, Tensor]


def _edited(directory: Path, change: Callable[[Tensors], object]) -> Checkpoint:
    file = directory / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})
    return Checkpoint(directory)


@pytest.fixture
def parents(tmp_path: Path) -> tuple[Path, Path]:
    """Two small models whose output matrix is the embeddings."""
    for seed, name in enumerate(("base", "expert"), start=1):
        write_model(config_of("Llama 3, tied"), torch.float32, seed, tmp_path / name)
    return tmp_path / "base", tmp_path / "expert"


def _copy_head(tensors: Tensors) -> None:
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()


def _old_buffer(tensors: Tensors) -> None:
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)


@pytest.mark.parametrize("change", [_copy_head, _old_buffer])
@pytest.mark.parametrize("changed", [0, 1])
def test_a_copy_or_an_unused_tensor_in_one_parent_changes_nothing(
    parents: tuple[Path, Path], tmp_path: Path, change: Callable[[Tensors], None], changed: int
) -> None:
    _edited(parents[changed], change)
    base, expert = map(Checkpoint, parents)
    check_tensors(base, expert)
    plan = plan_of(base, MergeSettings())
    live, other = (load_model(path, "float32", "cpu") for path in parents)
    check_loaded(live, base, base)
    check_loaded(other, expert, base)
    table = tensor_table(base)
    groups = dict.fromkeys(plan.groups, (0.3,))
    ModuleSink(live, [other], plan.settings, table.tied, table).write(groups)
    write_checkpoint(Recipe(base, [expert], plan, torch.float32), groups, tmp_path / "out")
    assert Checkpoint(tmp_path / "out").layout.keys() == base.layout.keys()
    again = load_model(tmp_path / "out", "float32", "cpu").state_dict()
    assert all(torch.equal(again[name], value) for name, value in live.state_dict().items())


def test_a_head_of_its_own_in_one_parent_is_refused(parents: tuple[Path, Path]) -> None:
    expert = _edited(
        parents[1], lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"] + 1})
    )
    with pytest.raises(SpecError, match=r"'lm_head\.weight' only in .*expert"):
        check_tensors(Checkpoint(parents[0]), expert)


def test_a_tensor_without_a_place_is_an_error_with_its_name(parents: tuple[Path, Path]) -> None:
    name = "model.layers.0.self_attn.adapter.weight"
    base = _edited(parents[0], lambda t: t.update({name: torch.ones(3)}))
    with pytest.raises(SpecError, match=rf"'{name}' of .*LlamaForCausalLM of transformers"):
        plan_of(base, MergeSettings())


def test_a_parameter_that_no_file_gives_is_an_error_with_its_name(
    parents: tuple[Path, Path],
) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    base = _edited(parents[0], lambda t: t.pop(name))
    with pytest.raises(SpecError, match=rf"nothing for '{name}' of LlamaForCausalLM"):
        plan_of(base, MergeSettings())


@pytest.mark.parametrize("method", ["gptq", "bitsandbytes", "compressed-tensors", "mxfp4"])
def test_quantized_models_are_refused_before_anything_is_made(tmp_path: Path, method: str) -> None:
    shutil.copytree(EXPERT, tmp_path / "expert")
    config = tmp_path / "expert" / "config.json"
    content = json.loads(config.read_text())
    config.write_text(json.dumps(content | {"quantization_config": {"quant_method": method}}))
    quantized = Checkpoint(tmp_path / "expert")
    for pair in ((Checkpoint(BASE), quantized), (quantized, Checkpoint(BASE))):
        with pytest.raises(SpecError, match=rf"is quantized \({method}\)\. Dequantize"):
            check_mergeable(pair[0], [pair[1]])


def test_integers_in_place_of_weights_are_refused(tmp_path: Path) -> None:
    shutil.copytree(EXPERT, tmp_path / "expert")
    name = "model.layers.0.mlp.up_proj.weight"
    packed = _edited(tmp_path / "expert", lambda t: t.update({name: t[name].to(torch.int8)}))
    with pytest.raises(SpecError, match=rf"'{name}' is torch\.int8 .*Dequantize"):
        check_mergeable(Checkpoint(BASE), [packed])


def test_a_loaded_model_that_is_not_its_files_is_noticed(parents: tuple[Path, Path]) -> None:
    checkpoint = Checkpoint(parents[0])
    live = load_model(checkpoint.directory, "float32", "cpu")
    check_loaded(live, checkpoint, checkpoint)
    live.state_dict()["model.norm.weight"][3] += 1e-6
    with pytest.raises(LayoutError, match=r"must equal its files, but 'model\.norm\.weight'"):
        check_loaded(live, checkpoint, checkpoint)


def test_a_parent_with_nan_is_named(parents: tuple[Path, Path]) -> None:
    name = "model.norm.weight"
    checkpoint = _edited(parents[0], lambda t: t.update({name: t[name] * torch.nan}))
    live = load_model(checkpoint.directory, "float32", "cpu")
    with pytest.raises(LayoutError, match=r"must be numbers, but 'model\.norm\.weight' of .* NaN"):
        check_loaded(live, checkpoint, checkpoint)
