"""What cannot be merged is refused, with what differs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergefront.errors import SpecError
from mergefront.examples.demo import BASE, EXPERT
from mergefront.objectives.checkpoints import Checkpoint, check_mergeable, resolve_model


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A copy of the demo's expert, to be changed."""
    shutil.copytree(EXPERT, tmp_path / "other")
    return tmp_path / "other"


def _edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _check(other: Path) -> None:
    check_mergeable(Checkpoint(BASE), [Checkpoint(other)])


def test_the_demo_pair_is_mergeable() -> None:
    _check(EXPERT)


@pytest.mark.parametrize(
    ("key", "value"),
    [("num_hidden_layers", 9), ("hidden_size", 128), ("vocab_size", 99), ("model_type", "llama")],
)
def test_another_architecture_names_the_key_and_both_values(
    other: Path, key: str, value: object
) -> None:
    ours = Checkpoint(BASE).config[key]
    _edit(other / "config.json", lambda config: config.update({key: value}))
    with pytest.raises(SpecError, match=f"{key} is {ours!r} in .* and {value!r} in"):
        _check(other)


def test_another_vocabulary_names_the_tokens(other: Path) -> None:
    def swap(content: dict[str, Any]) -> None:
        vocabulary = content["model"]["vocab"]
        vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]

    _edit(other / "tokenizer.json", swap)
    with pytest.raises(SpecError, match=r"2 token\(s\): 'a', 'b'"):
        _check(other)


def test_missing_and_misshapen_tensors_are_named(other: Path) -> None:
    file = other / "model.safetensors"
    tensors = load_file(file)
    norm = tensors.pop("model.norm.weight")
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(SpecError, match=r"'model\.norm\.weight' only in"):
        _check(other)
    save_file(tensors | {"model.norm.weight": torch.cat([norm, norm])}, file)
    with pytest.raises(SpecError, match=r"model\.norm\.weight is \(64,\) .* \(128,\)"):
        _check(other)


def test_a_model_without_tokenizer_is_refused(other: Path) -> None:
    (other / "tokenizer.json").unlink()
    (other / "tokenizer_config.json").unlink()
    with pytest.raises(SpecError, match="needs its tokenizer"):
        _check(other)


def test_pickled_weights_are_refused(other: Path) -> None:
    (other / "model.safetensors").rename(other / "pytorch_model.bin")
    with pytest.raises(SpecError, match=r"has neither\. Convert"):
        Checkpoint(other)


def test_a_path_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"no config\.json"):
        Checkpoint(tmp_path)
    with pytest.raises(SpecError, match=r"'\./nowhere' is neither"):
        resolve_model("./nowhere", tmp_path)


def test_a_hub_id_that_cannot_be_fetched_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SpecError, match="could not be fetched"):
        resolve_model("nobody/no-such-model", tmp_path)


def test_hashes_follow_the_bytes(other: Path) -> None:
    before = Checkpoint(other)
    assert before.weights_hash() == Checkpoint(EXPERT).weights_hash()
    assert before.weights_hash() != Checkpoint(BASE).weights_hash()
    tokenizer = before.tokenizer_hash()
    (other / "chat_template.jinja").write_text("{{ messages }}")
    assert Checkpoint(other).tokenizer_hash() != tokenizer
