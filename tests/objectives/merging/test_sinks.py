"""In place and on disk."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM

from mergefront.errors import LayoutError
from mergefront.objectives.checkpoints import Checkpoint, is_tied
from mergefront.objectives.merging import (
    MergePlan,
    MergeSettings,
    ModuleSink,
    Recipe,
    files,
    stream,
    write_checkpoint,
)
from mergefront.objectives.merging.files import _write_all
from tiny_models import write_llama

SETTINGS = {
    "untied": MergeSettings(head="search"),
    "tied": MergeSettings(head="search"),
    "ties": MergeSettings("ties", head="search", density=0.4),
    "dare": MergeSettings("dare_linear", head="search", density={"default": 1, "layer_001": 0.3}),
    "slerp": MergeSettings("slerp", head="search"),
}


@pytest.fixture(params=sorted(SETTINGS))
def recipe(request: pytest.FixtureRequest, tmp_path: Path) -> Recipe:
    tied = {"tie_word_embeddings": request.param == "tied"}
    base = Checkpoint(write_llama(tmp_path / "base", 0, **tied))
    expert = Checkpoint(write_llama(tmp_path / "expert", 1, **tied))
    plan = MergePlan(base.layout, SETTINGS[request.param], is_tied(base))
    return Recipe(base, [expert], plan, torch.bfloat16)


GROUPS = {"layer_000": (0.3,), "layer_001": (0.9,), "head": (0.5,)}


def _load(directory: Path) -> nn.Module:
    model: nn.Module = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16)
    return model


def test_a_written_checkpoint_equals_the_module_overwritten_in_place(
    recipe: Recipe, tmp_path: Path
) -> None:
    live, expert = _load(recipe.base.directory), _load(recipe.experts[0].directory)
    ModuleSink(live, [expert], recipe.plan.settings, is_tied(recipe.base)).write(GROUPS)
    write_checkpoint(recipe, GROUPS, tmp_path / "out")
    written = dict(_load(tmp_path / "out").named_parameters())
    for name, parameter in live.named_parameters():
        assert torch.equal(written[name], parameter), name


def test_a_written_checkpoint_keeps_the_shards_and_names(recipe: Recipe, tmp_path: Path) -> None:
    write_checkpoint(recipe, GROUPS, tmp_path / "out")
    written = Checkpoint(tmp_path / "out")
    assert len(written.files) > 1
    assert written.layout == recipe.base.layout
    assert written.config["dtype"] == "bfloat16"


@pytest.mark.parametrize(("weight", "parent"), [(0.0, "base"), (1.0, "expert")])
def test_ends_write_the_parents_bytes(
    recipe: Recipe, tmp_path: Path, weight: float, parent: str
) -> None:
    write_checkpoint(recipe, dict.fromkeys(GROUPS, (weight,)), tmp_path / "out")
    source = recipe.base if parent == "base" else recipe.experts[0]
    whole = {n for n in recipe.base.layout if parent == "base" or recipe.plan.density_of(n) == 1}
    for file in source.files:
        expected, written = (load_file(d / file) for d in (source.directory, tmp_path / "out"))
        for name in expected:
            # Below density 1 a part of the task vector is not the expert; the norms are equal.
            same = name in whole or "norm" in name
            assert torch.equal(expected[name], written[name]) is same, name


def test_threads_give_what_one_thread_gives(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mergefront.objectives.merging.sinks._WORTH_THREADS", 0)
    states = []
    for n_threads in (1, 2):
        torch.set_num_threads(n_threads)
        live, expert = _load(recipe.base.directory), _load(recipe.experts[0].directory)
        ModuleSink(live, [expert], recipe.plan.settings, is_tied(recipe.base)).write(GROUPS)
        assert torch.get_num_threads() == n_threads
        states.append({name: p.detach().clone() for name, p in live.named_parameters()})
    torch.set_num_threads(1)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_writing_a_then_b_then_a_gives_a_again(recipe: Recipe) -> None:
    live, expert = _load(recipe.base.directory), _load(recipe.experts[0].directory)
    sink = ModuleSink(live, [expert], recipe.plan.settings, is_tied(recipe.base))
    states = []
    for weight in (0.3, 0.8, 0.3):
        sink.write(dict.fromkeys(GROUPS, (weight,)))
        states.append({name: p.detach().clone() for name, p in live.named_parameters()})
    assert all(torch.equal(states[0][name], states[2][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_an_integer_tensor_is_copied_only_if_all_models_agree(
    recipe: Recipe, tmp_path: Path
) -> None:
    for checkpoint, value in ((recipe.base, 1), (recipe.experts[0], 2)):
        file = checkpoint.directory / checkpoint.layout["model.norm.weight"]
        tensors = load_file(file) | {"model.norm.weight": torch.tensor([value])}
        save_file(tensors, file, metadata={"format": "pt"})
    base, expert = (Checkpoint(tmp_path / name) for name in ("base", "expert"))
    with pytest.raises(LayoutError, match=r"'model\.norm\.weight' differs"):
        write_checkpoint(replace(recipe, base=base, experts=[expert]), GROUPS, tmp_path / "out")


def _layer(n: int, bias: bool = True) -> nn.Module:
    holder = nn.ModuleDict(
        {"layers": nn.ModuleList([nn.ModuleDict({"mlp": nn.Linear(n, 2, bias)})])}
    )
    return nn.ModuleDict({"model": holder})


def test_modules_with_other_parameters_are_refused() -> None:
    with pytest.raises(LayoutError, match="bias"):
        ModuleSink(_layer(2), [_layer(2, bias=False)], MergeSettings())
    with pytest.raises(LayoutError, match=r"\(2, 2\).*\(2, 3\)"):
        ModuleSink(_layer(2), [_layer(3)], MergeSettings())


def test_a_parent_that_is_not_finite_is_refused() -> None:
    broken = _layer(2)
    next(broken.parameters()).data[0, 0] = float("nan")
    with pytest.raises(
        LayoutError, match=r"'model\.layers\.0\.mlp\.weight' has 1 NaN .* in torch"
    ):
        ModuleSink(_layer(2), [broken], MergeSettings())


def _large_halves(folder: Path) -> Recipe:
    """Return a pair in float16 whose merge at weight 1.5 is beyond float16."""
    opened = []
    for seed, value in enumerate((30000.0, 60000.0)):
        directory = write_llama(folder / str(seed), seed)
        checkpoint = Checkpoint(directory)
        file = directory / checkpoint.layout["model.layers.0.mlp.up_proj.weight"]
        tensors = load_file(file)
        tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = value
        save_file({n: t.half() for n, t in tensors.items()}, file, metadata={"format": "pt"})
        opened.append(Checkpoint(directory))
    plan = MergePlan(opened[0].layout, SETTINGS["untied"], is_tied(opened[0]))
    return Recipe(opened[0], opened[1:], plan, torch.float16)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_merge_that_is_not_finite_is_refused_in_place_as_in_an_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_threads: int
) -> None:
    monkeypatch.setattr("mergefront.objectives.merging.sinks._WORTH_THREADS", 0)
    recipe = _large_halves(tmp_path)
    live, expert = (
        AutoModelForCausalLM.from_pretrained(c.directory, dtype=torch.float16)
        for c in (recipe.base, recipe.experts[0])
    )
    sink = ModuleSink(live, [expert], recipe.plan.settings)
    far, near = dict.fromkeys(GROUPS, (1.5,)), dict.fromkeys(GROUPS, (0.5,))
    torch.set_num_threads(n_threads)
    with pytest.raises(LayoutError) as in_place:
        sink.write(far)
    torch.set_num_threads(1)
    with pytest.raises(LayoutError) as exported:
        write_checkpoint(recipe, far, tmp_path / "far")
    assert str(in_place.value) == str(exported.value)
    assert "up_proj.weight' has 1 NaN or infinite value(s) in torch.float16" in str(in_place.value)
    sink.write(near)  # what the broken one left behind is overwritten
    expected = dict(stream(recipe, near))
    assert all(torch.equal(expected[n], p) for n, p in live.named_parameters())


def test_the_stream_comes_layer_by_layer_and_holds_every_tensor_once(recipe: Recipe) -> None:
    names = [name for name, _ in stream(recipe, GROUPS)]
    assert sorted(names) == sorted(recipe.base.layout)
    kinds = [recipe.plan.parts[name].kind for name in names]
    assert kinds == sorted(kinds, key=["embeddings", "layer", "head"].index)
    indices = [recipe.plan.parts[n].index for n in names if recipe.plan.parts[n].kind == "layer"]
    assert indices == sorted(indices, key=lambda index: index or 0)


def test_the_stream_does_not_depend_on_its_order(recipe: Recipe) -> None:
    forward = dict(stream(recipe, GROUPS))
    backward = dict(stream(recipe, GROUPS, list(forward)[::-1]))
    assert all(torch.equal(forward[name], backward[name]) for name in forward)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_checkpoint_with_values_that_are_not_finite_is_refused(
    recipe: Recipe, tmp_path: Path, value: float
) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    file = recipe.experts[0].directory / recipe.experts[0].layout[name]
    tensors = load_file(file)
    tensors[name][0, 0] = value
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(LayoutError, match=r"layers\.1\.mlp\.up_proj\.weight' has"):
        write_checkpoint(recipe, GROUPS, tmp_path / "out")
    assert not (tmp_path / "out" / "config.json").exists()


class _Slow(io.RawIOBase):
    """Takes some bytes at a time, as the system does of what is larger than two gigabytes."""

    def __init__(self) -> None:
        self.taken = b""

    def write(self, data: Any) -> int:
        self.taken += bytes(data[:7])
        return len(data[:7])


def test_a_part_is_written_whole_however_little_is_taken_at_once() -> None:
    part, out = torch.arange(20, dtype=torch.int16).view(4, 5), _Slow()
    _write_all(out, part)
    assert out.taken == part.numpy().tobytes()


def test_a_file_that_is_shorter_than_its_header_says_is_an_error(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_write_all", lambda out, part: out.write(b"short"))
    with pytest.raises(OSError, match="bytes written"):
        write_checkpoint(recipe, GROUPS, tmp_path / "out")
