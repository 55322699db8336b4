"""Adapters of a catalogue: read on the ancestor, compared, and written into specs."""

import json
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from command import invoke
from mergefront.errors import SpecError
from mergefront.examples.demo import BASE
from mergefront.study.selection.catalogue import read_catalogue
from mergefront.study.selection.methods import Method, make_step
from mergefront.study.selection.pair_signals import pair_signals
from small_catalogue import WEIGHTS, write_adapter, write_catalogue, write_sibling
from small_study import write_spec


@pytest.fixture
def adapters(tmp_path: Path) -> tuple[Path, Path]:
    return write_adapter(tmp_path / "a", 1), write_adapter(tmp_path / "b", 2)


def test_adapters_are_compared_as_what_they_make_of_the_ancestor(
    tmp_path: Path, adapters: tuple[Path, Path]
) -> None:
    models = {"a": "a", "b": "b", "copy": str(write_adapter(tmp_path / "copy", 1)), "m0": "m0"}
    write_sibling(tmp_path / "m0", 0.5, 0)
    found = read_catalogue(write_catalogue(tmp_path, 0, models=models))
    assert not found.refused and list(found.models) == [*models]
    signals = pair_signals(found.models, found.ancestor, [("1+2?", True)], "float32")
    same, other = signals["a", "copy"].scalars, signals["a", "b"].scalars
    assert same["model.weight_distance"] == pytest.approx(0.0, abs=1e-6)
    assert same["kl.mean"] == pytest.approx(0.0, abs=1e-6)
    assert other["model.weight_distance"] > 0.01 and other["kl.mean"] > 0.001
    assert ("m0", "b") in signals


def test_a_catalogue_tells_which_adapter_is_no_good(
    tmp_path: Path, adapters: tuple[Path, Path]
) -> None:
    write_adapter(tmp_path / "bad", 3, target_modules=["q_proj", "o_proj"])
    found = read_catalogue(write_catalogue(tmp_path, 0, models=["a", "b", "bad"]))
    assert list(found.models) == ["a", "b"]
    assert "has nothing for" in found.refused["bad"]


def test_an_average_of_adapters_is_taken_from_the_ancestor(
    tmp_path: Path, adapters: tuple[Path, Path]
) -> None:
    step = make_step(*adapters, Method("linear"), 0.5, BASE)
    assert (step.base, step.experts) == (BASE, adapters)
    experts = [str(path) for path in step.experts]
    models = {"base": str(step.base), "experts": experts, "dtype": "float32"}
    spec = write_spec(tmp_path, models=models, merge={"operator": "linear"})
    content = yaml.safe_load(spec.read_text())
    content["merge"] = {"operator": "linear", "granularity": "uniform"}
    spec.write_text(yaml.safe_dump(content))
    (tmp_path / "weights.json").write_text(json.dumps({"uniform": list(step.weights)}))
    line = ["merge", spec, "--weights", tmp_path / "weights.json", "--out", tmp_path / "out"]
    done = invoke(*line)
    assert done.exit_code == 0, done.stderr
    name = "model.layers.3.self_attn.q_proj"
    expected = load_file(BASE / WEIGHTS)[f"{name}.weight"]
    for adapter in adapters:
        held = load_file(adapter / "adapter_model.safetensors")
        a, b = (held[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
        expected = expected + 0.5 * 2.0 * (b @ a)
    assert (load_file(tmp_path / "out" / WEIGHTS)[f"{name}.weight"] - expected).abs().max() < 1e-5


def test_an_adapter_is_added_to_its_base_alone(
    tmp_path: Path, adapters: tuple[Path, Path]
) -> None:
    whole = write_sibling(tmp_path / "m0", 0.5, 0)
    for pair in (adapters, (whole, adapters[0]), (adapters[0], whole)):
        with pytest.raises(SpecError, match=r"`slerp` needs whole models, but .* is an adapter"):
            make_step(*pair, Method("slerp"), 0.5, BASE)
    assert make_step(BASE, adapters[0], Method("slerp"), 0.5, BASE).base == BASE
