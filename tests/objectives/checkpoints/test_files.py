"""Files of models that are missing, cut off or something else: one line that names the file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergefront.errors import SpecError
from mergefront.examples.demo import BASE, EXPERT
from mergefront.objectives.checkpoints import Checkpoint, check_mergeable
from mergefront.objectives.checkpoints.hub import public_name
from mergefront.objectives.checkpoints.identity import is_same_model
from mergefront.study import StudySpec
from mergefront.study.dry_run import plan_study
from small_study import write_spec

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n"


def _sharded(directory: Path) -> None:
    """Write a model's tensors in two shards and their index."""
    tensors = load_file(directory / SINGLE)
    names = sorted(tensors)
    files = {"a.safetensors": names[:40], "b.safetensors": names[40:]}
    for file, members in files.items():
        save_file({name: tensors[name] for name in members}, directory / file)
    places = {name: file for file, members in files.items() for name in members}
    (directory / INDEX).write_text(json.dumps({"weight_map": places}))
    (directory / SINGLE).unlink()


def _cut(path: Path, n: int) -> None:
    path.write_bytes(path.read_bytes()[:n])


def _gone(path: Path) -> None:
    path.unlink()
    path.symlink_to("gone")


def _longer(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0" * 16)


def _with_hole(path: Path) -> None:
    """Take a tensor from the header, not from the file."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    del header["model.norm.weight"]
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[end:])


def _stored_as(path: Path, dtype: torch.dtype) -> None:
    tensors = load_file(path)
    name = "model.layers.0.mlp.up_proj.weight"
    save_file({**tensors, name: tensors[name].to(dtype)}, path, {"format": "pt"})


def _moved(directory: Path) -> None:
    index = json.loads((directory / INDEX).read_text())
    index["weight_map"]["lm_head.weight"] = "b.safetensors"
    index["weight_map"].pop("model.norm.weight")
    (directory / INDEX).write_text(json.dumps(index))


BROKEN: dict[str, tuple[bool, Callable[[Path], object], str]] = {
    "pointer": (
        False,
        lambda d: (d / SINGLE).write_bytes(POINTER),
        "pointer of Git LFS.*lfs pull",
    ),
    "pointers": (True, lambda d: (d / "b.safetensors").write_bytes(POINTER), "pointer of Git LFS"),
    "empty": (False, lambda d: _cut(d / SINGLE, 0), "must be safetensors.*Fetch"),
    "short": (False, lambda d: _cut(d / SINGLE, 5), "must be safetensors"),
    "header": (False, lambda d: _cut(d / SINGLE, 900), "must be safetensors"),
    "half": (False, lambda d: _cut(d / SINGLE, 800_000), "ends before its last tensor"),
    "more": (False, lambda d: _longer(d / SINGLE), "must fill it.*belong to no tensor.*again"),
    "hole": (False, lambda d: _with_hole(d / SINGLE), "must fill it.*belong to no tensor"),
    "noise": (False, lambda d: (d / SINGLE).write_bytes(b"\x07" + b"\0" * 99), "safetensors"),
    "list": (False, lambda d: (d / SINGLE).write_bytes(b"\2" + b"\0" * 7 + b"[]"), "safetensors"),
    "eight bits": (
        False,
        lambda d: _stored_as(d / SINGLE, torch.float8_e4m3fn),
        "stored as one of .* is F8_E4M3 in .*Dequantize",
    ),
    "absent": (
        True,
        lambda d: (d / "b.safetensors").unlink(),
        "all its files.*shard b.safetensors is missing",
    ),
    "moved": (True, _moved, "must name the tensors of its files"),
    "index": (True, lambda d: (d / INDEX).write_text("{"), "index.json must be JSON.*again"),
    "map": (True, lambda d: (d / INDEX).write_text("{}"), "must have a `weight_map`"),
    "both": (True, lambda d: shutil.copy(EXPERT / SINGLE, d), "stored once.*Remove whichever"),
    "adapter": (
        False,
        lambda d: (d / "adapter_config.json").write_text("{}"),
        r"must hold one model, but .* has whole weights \(model.safetensors\) and an adapter",
    ),
    "config": (False, lambda d: (d / "config.json").write_text("{"), "config.json must be JSON"),
    "config-list": (False, lambda d: (d / "config.json").write_text("[]"), "hold a JSON object"),
    "config-pointer": (
        False,
        lambda d: (d / "config.json").write_bytes(POINTER),
        "pointer of Git LFS",
    ),
    "link": (
        False,
        lambda d: _gone(d / SINGLE),
        "is a link to gone, which is gone.*Fetch or copy",
    ),
    "link-config": (False, lambda d: _gone(d / "config.json"), "is a link to gone"),
    "link-generation": (False, lambda d: _gone(d / "generation_config.json"), "is a link to gone"),
    "link-template": (False, lambda d: _gone(d / "chat_template.jinja"), "is a link to gone"),
    "tokenizer": (False, lambda d: (d / "tokenizer.json").write_text("{"), "needs its tokenizer"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_line(tmp_path: Path, name: str) -> None:
    sharded, damage, message = BROKEN[name]
    expert = tmp_path / "expert"
    shutil.copytree(EXPERT, expert)
    if sharded:
        _sharded(expert)
        check_mergeable(Checkpoint(BASE), [Checkpoint(expert)])
    damage(expert)
    with pytest.raises(SpecError, match=message) as caught:
        check_mergeable(Checkpoint(BASE), [Checkpoint(expert)])
    assert "\n" not in str(caught.value)


def test_the_dry_run_refuses_an_adapter_beside_whole_weights(tmp_path: Path) -> None:
    for path, name in ((BASE, "base"), (EXPERT, "expert")):
        shutil.copytree(path, tmp_path / name)
    for wrong in ("expert", "base"):
        settings = tmp_path / wrong / "adapter_config.json"
        settings.write_text("{}")
        models = {"base": str(tmp_path / "base"), "experts": [str(tmp_path / "expert")]}
        spec = StudySpec.from_yaml(write_spec(tmp_path, models=models))
        with pytest.raises(SpecError, match=f"one model, but .*{wrong} has whole weights"):
            plan_study(spec)
        settings.unlink()


def test_a_byte_order_mark_does_not_matter(tmp_path: Path) -> None:
    expert = tmp_path / "expert"
    shutil.copytree(EXPERT, expert)
    text = (expert / "config.json").read_text()
    (expert / "config.json").write_text(text, encoding="utf-8-sig")
    assert Checkpoint(expert).config == json.loads(text)


def test_an_expert_that_is_the_base_is_seen_however_it_is_stored(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(BASE, copy)
    assert is_same_model(Checkpoint(BASE), Checkpoint(copy))
    _sharded(copy)
    assert is_same_model(Checkpoint(BASE), Checkpoint(copy))
    assert not is_same_model(Checkpoint(BASE), Checkpoint(EXPERT))


def test_a_model_of_the_hubs_cache_has_its_public_name() -> None:
    commit = "51c64a6f4fc375daf0d24aafbabe4d91b6f4bb44"
    cached = Path(f"/x/hub/models--demo-org--demo-base/snapshots/{commit}")
    assert public_name(cached) == f"demo-org/demo-base@{commit}"
    assert public_name(BASE) is None
