"""Similarity signals against hand calculations, and on the demo pair."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergefront.examples.demo import BASE, EXPERT
from mergefront.objectives.checkpoints import Checkpoint
from mergefront.objectives.similarity import (
    FunctionalSettings,
    Signals,
    functional_signals,
    merge_features,
    structural_signals,
)
from mergefront.objectives.similarity.functional import _cka, _of_distributions
from tiny_checkpoint import write_checkpoint

PROMPTS = [("What is 3 plus 4?", True), ("12 + 5", True), ("a", False)]


def test_structural_signals_by_hand(tmp_path: Path) -> None:
    origin = write_checkpoint(
        tmp_path / "o", {"0.mlp.up_proj": [1.0, 0.0], "1.mlp.up_proj": [1.0, 1.0]}
    )
    a = write_checkpoint(
        tmp_path / "a", {"0.mlp.up_proj": [4.0, 0.0], "1.mlp.up_proj": [1.0, 3.0]}
    )
    b = write_checkpoint(
        tmp_path / "b", {"0.mlp.up_proj": [1.0, 4.0], "1.mlp.up_proj": [1.0, -3.0]}
    )
    found = structural_signals([a, b], origin)[0, 1]
    assert found.profiles["weight_cosine"] == pytest.approx((4 / 4 / 17**0.5, -8 / 10))
    # Task vectors (3, 0) and (0, 4); (0, 2) and (0, -4).
    assert found.profiles["task_cosine"] == pytest.approx((0.0, -1.0))
    assert found.profiles["task_norm_ratio"] == pytest.approx((4 / 3, 2.0))
    assert found.profiles["task_sign_agreement"] == pytest.approx((0.0, 0.5))
    assert found.profiles["weight_distance"][1] == pytest.approx(6 / 10**0.5)
    # (3, 0, 0, 2) and (0, 4, 0, -4).
    assert found.scalars["model.task_cosine"] == pytest.approx(-8 / math.sqrt(13 * 32))
    back = structural_signals([a, b], origin)[1, 0]
    assert back.profiles["task_norm_ratio"] == pytest.approx((3 / 4, 0.5))
    without = structural_signals([a, b])[0, 1]
    assert without.profiles["weight_sign_agreement"] == pytest.approx((0.5, 0.5))


def test_a_model_is_like_itself() -> None:
    model = Checkpoint(BASE)
    found = structural_signals([model, model], Checkpoint(EXPERT))[0, 1]
    for name in ("weight_cosine", "task_cosine", "task_norm_ratio", "task_subspace_overlap"):
        assert found.profiles[name] == pytest.approx([1.0] * 8, abs=1e-5), name
    assert found.profiles["weight_distance"] == pytest.approx([0.0] * 8, abs=1e-6)


def test_subspaces_of_task_vectors_are_compared(tmp_path: Path) -> None:
    """Changes in the same two directions overlap fully, in others not at all."""
    tensors = load_file(BASE / "model.safetensors")
    name = "model.layers.3.mlp.down_proj.weight"
    rows, columns = tensors[name].shape
    basis = torch.linalg.qr(torch.randn(rows, 4, generator=torch.manual_seed(0))).Q
    models = []
    for label, directions in (("a", [0, 1]), ("b", [1, 0]), ("c", [2, 3])):
        change = basis[:, directions] @ torch.randn(2, columns)
        (tmp_path / label).mkdir()
        (tmp_path / label / "config.json").write_text((BASE / "config.json").read_text())
        changed = tensors | {
            key: value + 0.1 for key, value in tensors.items() if value.dim() == 2
        }
        changed[name] = tensors[name] + change
        save_file(changed, tmp_path / label / "model.safetensors", {"format": "pt"})
        models.append(Checkpoint(tmp_path / label))
    found = structural_signals(models, Checkpoint(BASE), rank=2)
    overlap = [found[0, other].profiles["task_subspace_overlap"][3] for other in (1, 2)]
    # Mean over the layer's seven matrices; the six others are changed alike.
    assert overlap[0] - overlap[1] == pytest.approx(1 / 7, abs=0.02)


def test_functional_signals_of_a_model_with_itself() -> None:
    found = functional_signals([BASE, BASE], PROMPTS)[0, 1]
    assert found.scalars["top1_agreement"] == 1.0
    for name in ("kl.mean", "reverse_kl.q90", "js.median"):
        assert found.scalars[name] == pytest.approx(0.0, abs=1e-6)
    assert found.profiles["hidden_cosine"] == pytest.approx([1.0] * 8, abs=1e-5)
    assert found.profiles["cka"] == pytest.approx([1.0] * 8, abs=1e-5)
    assert found.profiles["attention_distance"] == pytest.approx([0.0] * 8, abs=1e-6)


def test_functional_signals_of_the_pair_are_ordered_and_within_their_ranges() -> None:
    settings = FunctionalSettings(positions=4)
    found = functional_signals([BASE, EXPERT], PROMPTS, settings=settings)
    there, back = found[0, 1], found[1, 0]
    assert there.scalars["kl.mean"] == pytest.approx(back.scalars["reverse_kl.mean"], rel=1e-4)
    assert there.scalars["js.mean"] == pytest.approx(back.scalars["js.mean"], rel=1e-4)
    assert there.scalars["kl.mean"] != pytest.approx(back.scalars["kl.mean"], rel=0.01)
    assert 0 < there.scalars["js.q90"] <= math.log(2)
    for name, low in (("hidden_cosine", -1), ("cka", 0), ("attention_distance", 0)):
        profile = there.profiles[name]
        assert len(profile) == 8
        assert all(low <= value <= 1 for value in profile)
        assert min(profile) < max(profile)


def test_divergences_by_hand() -> None:
    p = torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log()
    q = torch.tensor([[0.5, 0.5], [0.1, 0.9]]).log()
    found = _of_distributions([(p, q)])
    far = 0.8 * math.log(9)
    assert found["kl.mean"] == pytest.approx(far / 2, rel=1e-5)
    assert found["kl.median"] == pytest.approx(far / 2, rel=1e-5)
    js = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    assert found["js.q90"] == pytest.approx(0.9 * js, rel=1e-5)
    assert found["top1_agreement"] == 0.5


def test_the_prompts_ends_have_signals_of_their_own() -> None:
    found = functional_signals([BASE, EXPERT], PROMPTS)
    there, back = found[0, 1].scalars, found[1, 0].scalars
    assert there["last.kl"] == pytest.approx(back["last.reverse_kl"], rel=1e-4)
    assert 0 < there["last.js"] <= math.log(2)
    assert there["last.kl"] != pytest.approx(there["kl.mean"], rel=0.1)
    for entropy in (there["entropy"], back["entropy"]):
        assert 0 <= entropy <= math.log(48)
    assert there["entropy"] != pytest.approx(back["entropy"], rel=0.01)


def test_merge_features_treat_both_models_alike_unless_the_operator_does_not() -> None:
    there = Signals({"kl.mean": 3.0, "reverse_kl.mean": 1.0, "js.mean": 0.5}, {"cka": (0.2, 0.6)})
    back = Signals({"kl.mean": 1.0, "reverse_kl.mean": 3.0, "js.mean": 0.5}, {"cka": (0.2, 0.6)})
    found = merge_features(there, back, is_ordered=False)
    assert found == merge_features(back, there, is_ordered=False)
    assert (found["kl.mean"], found["kl.mean.gap"], found["kl.mean.order"]) == (2.0, 1.0, 0.0)
    assert found["js.mean"] == 0.5
    assert found["cka.mean"] == pytest.approx(0.4)
    assert not any("reverse" in name or name.startswith("js.mean.") for name in found)
    ordered = merge_features(back, there, is_ordered=True)
    assert ordered["kl.mean.order"] == -1.0


def test_cka_knows_no_rotation_and_no_scale() -> None:
    generator = torch.manual_seed(1)
    x = torch.randn(40, 6, generator=generator)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=generator)).Q
    assert _cka(x, 3 * x @ rotation + 1) == pytest.approx(1.0)
    assert _cka(x, torch.randn(40, 6, generator=generator)) < 0.5


def test_features_have_one_length_for_all_depths() -> None:
    shallow = Signals({"s": 1.0}, {"p": (1.0, 2.0, 6.0)})
    deep = Signals({"s": 1.0}, {"p": (1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 9.0, 9.0, 9.0)})
    assert shallow.features().keys() == deep.features().keys()
    ratio = Signals({"norm_ratio": math.e}, {"norm_ratio": (1.0, math.e)}).features()
    assert (ratio["norm_ratio"], ratio["norm_ratio.mean"]) == (1.0, 0.5)
    assert deep.features()["p.late"] == 9.0
    assert deep.features()["p.early"] == 1.0
    assert shallow.features()["p.mean"] == 3.0
    assert Signals.from_json(json.loads(json.dumps(deep.to_json()))) == deep
    assert (Signals({"a": 1.0}) | shallow).scalars == {"a": 1.0, "s": 1.0}
