"""Catalogues: bad models are refused one by one, with the reason; the rest goes on."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from mergefront.errors import SpecError
from mergefront.examples.demo import BASE
from mergefront.objectives.merging.merger import check_finite
from mergefront.study.selection.catalogue import CatalogueSection, read_catalogue
from small_catalogue import WEIGHTS, change_config, write_catalogue, write_model


def _add(path: Path, **models: Path | str) -> Path:
    content = yaml.safe_load(path.read_text())
    content["models"] |= {name: str(model) for name, model in models.items()}
    path.write_text(yaml.safe_dump(content))
    return path


def _break_architecture(folder: Path) -> None:
    write_model(folder)
    change_config(folder, intermediate_size=128)


def _break_tokenizer(folder: Path) -> None:
    write_model(folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (folder / "tokenizer.json").write_text(json.dumps(content))


def _lose_a_shard(folder: Path) -> None:
    write_model(folder)
    tensors = load_file(folder / WEIGHTS)
    names = sorted(tensors)
    (folder / WEIGHTS).unlink()
    save_file({n: tensors[n] for n in names[:40]}, folder / "model-00001-of-00002.safetensors")
    files = {n: f"model-0000{1 if n in names[:40] else 2}-of-00002.safetensors" for n in names}
    index = {"metadata": {}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _poison(folder: Path) -> None:
    name = "model.layers.5.mlp.down_proj.weight"

    def change(key: str, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.index_fill(1, torch.tensor([3]), float("nan")) if key == name else tensor

    write_model(folder, change)


def _cut_off(folder: Path) -> None:
    write_model(folder)
    weights = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(weights[: len(weights) // 2])


def _shrink_a_tensor(folder: Path) -> None:
    def change(key: str, tensor: torch.Tensor) -> torch.Tensor:
        return tensor[:-1] if key == "model.embed_tokens.weight" else tensor

    write_model(folder, change)


BAD = {
    "architecture": (_break_architecture, "intermediate_size is 192"),
    "tokenizer": (_break_tokenizer, "tokenizers differ in 2 token(s): 'a', 'b'"),
    "shard": (_lose_a_shard, "model-00002-of-00002.safetensors is missing"),
    "nan": (_poison, "model.layers.5.mlp.down_proj.weight"),
    "cut": (_cut_off, "ends before its last tensor"),
    "shape": (_shrink_a_tensor, "tensor shapes, but model.embed_tokens.weight"),
}


@pytest.mark.parametrize("with_ancestor", [True, False])
def test_bad_models_are_refused_with_their_reasons(tmp_path: Path, with_ancestor: bool) -> None:
    path = write_catalogue(tmp_path, 3, **({} if with_ancestor else {"ancestor": None}))
    for name, (spoil, _) in BAD.items():
        spoil(tmp_path / name)
    path = _add(path, **{name: tmp_path / name for name in BAD}, nowhere="no/such/model")
    found = read_catalogue(path)
    assert list(found.models) == ["m0", "m1", "m2"]
    assert found.refused.keys() == {*BAD, "nowhere"}
    for name, (_, reason) in BAD.items():
        assert reason in found.refused[name]
        assert "\n" not in found.refused[name]
    assert "no/such/model" in found.refused["nowhere"]


def test_weights_are_read_again_only_when_a_file_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def check(name: str, part: torch.Tensor) -> None:
        read.append(name)
        check_finite(name, part)

    monkeypatch.setattr("mergefront.study.selection.catalogue.check_finite", check)
    path = write_catalogue(tmp_path, 3)
    assert not read_catalogue(path).refused and read
    read.clear()
    assert not read_catalogue(path).refused and not read
    shutil.rmtree(tmp_path / "m1")
    _poison(tmp_path / "m1")
    assert "NaN" in read_catalogue(path).refused["m1"]
    assert "NaN" in read_catalogue(path).refused["m1"], "what is bad is not remembered as good"


def test_without_an_ancestor_the_odd_one_out_is_refused_wherever_it_stands(
    tmp_path: Path,
) -> None:
    _break_architecture(tmp_path / "odd")
    write_catalogue(tmp_path, 2)
    models = {"odd": "odd", "m0": "m0", "m1": "m1"}
    (tmp_path / "catalogue.yaml").write_text(yaml.safe_dump({"models": models}))
    found = read_catalogue(tmp_path / "catalogue.yaml")
    assert list(found.models) == ["m0", "m1"]
    assert "intermediate_size" in found.refused["odd"]


def test_one_model_is_nothing_to_choose_from(tmp_path: Path) -> None:
    _poison(tmp_path / "bad")
    path = tmp_path / "catalogue.yaml"
    path.write_text(yaml.safe_dump({"models": {"good": str(BASE), "bad": "bad"}}))
    with pytest.raises(SpecError, match=r"two models that can be merged\. Refused: bad: "):
        read_catalogue(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"operators": ["linaer"]}, "did you mean 'linear'"),
        ({"operators": {"ties": {"densty": 0.5}}}, "unknown key 'operators.ties.densty'"),
        ({"operators": {"linear": {"density": 0.5}}}, "operator 'linear' has none"),
        ({"ancester": "x"}, "did you mean 'ancestor'"),
        ({"models": {"a": "a"}}, "at least 2 items"),
        ({"models": ["x/a", "y/a"]}, "different names"),
        ({"models": {"a": {"path": "a", "score": 1}, "b": "b"}}, "'b' has none"),
        ({"models": {"a": {"pth": "a"}, "b": "b"}}, "did you mean 'path'"),
        ({"max_models": 1}, "greater than or equal to 2"),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path: Path, changes: object, message: str) -> None:
    content = {"models": {"a": "a", "b": "b"}, "ancestor": "x", **changes}  # type: ignore[dict-item]
    path = tmp_path / "catalogue.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(SpecError) as error:
        read_catalogue(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", None])
def test_what_is_no_catalogue_is_refused(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "catalogue.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SpecError, match="A catalogue must be"):
        read_catalogue(path)


def test_models_may_be_a_list_of_paths(tmp_path: Path) -> None:
    path = write_catalogue(tmp_path, 2, models=["m0", str(tmp_path / "m1")])
    assert list(read_catalogue(path).models) == ["m0", "m1"]


def test_operators_have_their_settings_in_their_names(tmp_path: Path) -> None:
    found = read_catalogue(write_catalogue(tmp_path, 2))
    assert list(found.methods) == ["linear", "slerp", "ties(density=0.5, normalize=1)"]
    assert not any(m.is_ordered(has_ancestor=True) for m in found.methods.values())
    assert [m.is_ordered(has_ancestor=False) for m in found.methods.values()] == [
        False,
        False,
        True,
    ]


def test_operators_are_listed_as_in_a_spec() -> None:
    content = {"models": ["a", "b"], "operators": ["linear", {"name": "ties", "density": 0.5}]}
    chosen = CatalogueSection.model_validate(content).chosen
    assert {name: section.density for name, section in chosen.items()} == {
        "linear": 1.0,
        "ties": 0.5,
    }


@pytest.mark.parametrize(
    ("operators", "message"),
    [
        (["linear", 3], "names, or mappings with a `name`, but got 3"),
        ([{"density": 0.5}], "names, or mappings with a `name`"),
        (["ties", {"name": "ties", "density": 0.5}], "must have different names"),
        ([{"name": "ties", "densty": 0.5}], "did you mean 'density'"),
    ],
)
def test_a_list_that_holds_no_operators_is_refused_in_one_line(
    operators: list[object], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "catalogue.yaml"
    path.write_text(yaml.safe_dump({"models": ["a", "b"], "operators": operators}))
    with pytest.raises(SpecError, match=message) as caught:
        read_catalogue(path)
    assert "\n" not in str(caught.value)
