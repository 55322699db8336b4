"""What an export's folder holds, wherever the base keeps its own files."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mergefront.examples.demo import BASE
from mergefront.objectives.checkpoints import Checkpoint
from mergefront.objectives.checkpoints.reader import INDEX
from mergefront.objectives.merging import MergeSettings, Recipe, plan_of, write_checkpoint
from tiny_models import write_llama


def _half(directory: Path, out: Path) -> Path:
    """Export the mean of a model and another of its shape."""
    expert = Checkpoint(write_llama(out.parent / "expert", 1))
    base = Checkpoint(directory)
    plan = plan_of(base, MergeSettings(head="search"))
    groups = plan.group_weights(plan.uniform(0.5))
    write_checkpoint(Recipe(base, [expert], plan, torch.bfloat16), groups, out)
    return out


def _move(directory: Path, where: str) -> list[Path]:
    """Move a model's shards and name their new places in its index; return these."""
    index = json.loads((directory / INDEX).read_text())
    files = sorted(set(index["weight_map"].values()))
    places = {f: where.format(folder=directory.parent, n=n, file=f) for n, f in enumerate(files)}
    for file, place in places.items():
        (directory / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(directory / file, directory / place)
    index["weight_map"] = {name: places[file] for name, file in index["weight_map"].items()}
    (directory / INDEX).write_text(json.dumps(index))
    return [directory / place for place in places.values()]


@pytest.mark.parametrize(
    "where", ["shards/{file}", "../store/{file}", "{folder}/store/{file}", "{n}/one.safetensors"]
)
def test_shards_of_any_place_are_exported_into_the_folder_alone(
    tmp_path: Path, where: str
) -> None:
    base = write_llama(tmp_path / "base")
    expected = AutoModelForCausalLM.from_pretrained(_half(base, tmp_path / "first")).state_dict()
    own = _move(base, where)
    before = [path.read_bytes() for path in own]
    out = _half(base, tmp_path / "out")
    assert [path.read_bytes() for path in own] == before
    shards = set(json.loads((out / INDEX).read_text())["weight_map"].values())
    assert shards == {path.name for path in out.glob("*.safetensors")}
    assert len(shards) == len(own)
    found = AutoModelForCausalLM.from_pretrained(out).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_an_export_needs_no_code_of_the_base(tmp_path: Path) -> None:
    base = write_llama(tmp_path / "base")
    AutoTokenizer.from_pretrained(BASE).save_pretrained(base)
    for name, auto in (("config.json", "AutoConfig"), ("tokenizer_config.json", "AutoTokenizer")):
        content = json.loads((base / name).read_text())
        content["auto_map"] = {auto: "own.Own"}
        (base / name).write_text(json.dumps(content))
    (base / "own.py").write_text("raise SystemExit")
    out = _half(base, tmp_path / "out")
    assert not list(out.glob("*.py"))
    model = AutoModelForCausalLM.from_pretrained(out, trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(out, trust_remote_code=True)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert tokenizer("1+1").input_ids == AutoTokenizer.from_pretrained(base)("1+1").input_ids


def test_the_files_of_processors_are_exported(tmp_path: Path) -> None:
    base = write_llama(tmp_path / "base")
    contents = {
        "preprocessor_config.json": '{"size": 7}',
        "processor_config.json": '{ "auto_map": {}, "é": [1] }',
        "video_preprocessor_config.json": "no JSON",
        "chat_template.json": '{"chat_template": ""}',
    }
    for name, text in contents.items():
        (base / name).write_text(text, encoding="utf-8")
    out = _half(base, tmp_path / "out")
    changed = {name for name, text in contents.items() if (out / name).read_text() != text}
    assert changed == {"processor_config.json"}
    assert json.loads((out / "processor_config.json").read_text()) == {"é": [1]}


def test_all_chat_templates_are_exported(tmp_path: Path) -> None:
    base = write_llama(tmp_path / "base")
    tokenizer: Any = AutoTokenizer.from_pretrained(BASE)
    tokenizer.chat_template = {"default": "{{ messages }}", "tool_use": "{{ tools }}"}
    tokenizer.save_pretrained(base)
    exported: Any = AutoTokenizer.from_pretrained(_half(base, tmp_path / "out"))
    assert exported.chat_template == tokenizer.chat_template
    assert Checkpoint(tmp_path / "out").tokenizer_hash() == Checkpoint(base).tokenizer_hash()
