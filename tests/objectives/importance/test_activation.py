"""Activation importance on the demo pair."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from mergefront.examples.demo import BASE, EXPERT
from mergefront.objectives.checkpoints import Checkpoint
from mergefront.objectives.evaluation.backends.chat import Chat
from mergefront.objectives.importance import activation_distances
from mergefront.objectives.importance.activation import Pooling
from mergefront.objectives.merging import MergePlan, MergeSettings

PROMPTS = [("What is 3 plus 4?", True), ("12 + 5", True), ("a", False)]


def _plan(**settings: object) -> MergePlan:
    edges = {"embeddings": "search", "head": "search"}
    return MergePlan(Checkpoint(BASE).layout, MergeSettings(**(edges | settings)))  # type: ignore[arg-type]


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_distances_are_those_of_the_models_own_hidden_states(pooling: Pooling) -> None:
    plan = _plan()
    found = activation_distances([BASE, EXPERT], plan, PROMPTS, pooling=pooling, batch_size=2)
    assert list(found) == plan.parameter_names
    expected = torch.zeros(plan.n_layers + 1)
    chat = Chat(BASE)
    models = [AutoModelForCausalLM.from_pretrained(path).eval() for path in (BASE, EXPERT)]
    for text, is_chat in PROMPTS:  # one by one: nothing is padded
        ids = torch.tensor([chat.render(text, is_chat)])
        with torch.inference_mode():
            states = [model(ids, output_hidden_states=True).hidden_states for model in models]
        for place in range(plan.n_layers + 1):
            a, b = (s[place][0, -1] if pooling == "last" else s[place][0].mean(0) for s in states)
            expected[place] += (1 - torch.cosine_similarity(a, b, dim=0)) / len(PROMPTS)
    # transformers reports the embeddings first, and the last layer behind the final norm.
    assert found["embeddings"] == pytest.approx(expected[0].item(), abs=1e-5)
    assert found["head"] == pytest.approx(expected[-1].item(), abs=1e-5)
    layers = [found[f"layer_{i:03d}"] for i in range(plan.n_layers - 1)]
    assert layers == pytest.approx(expected[1:-1].tolist(), abs=1e-5)


def test_a_layer_that_changes_is_seen_from_there_on(tmp_path: Path) -> None:
    tensors = load_file(BASE / "model.safetensors")
    name = "model.layers.5.mlp.down_proj.weight"
    save_file(tensors | {name: -tensors[name]}, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text((BASE / "config.json").read_text())
    found = activation_distances([BASE, tmp_path], _plan(), PROMPTS)
    assert all(found[f"layer_{i:03d}"] == pytest.approx(0, abs=1e-6) for i in range(5))
    assert found["embeddings"] == pytest.approx(0, abs=1e-6)
    assert all(found[f"layer_{i:03d}"] > 1e-3 for i in range(5, 8))


def test_several_layers_and_several_experts() -> None:
    single = activation_distances([BASE, EXPERT], _plan(), PROMPTS[:1])
    thirds = _plan(granularity="thirds", n_experts=2)
    found = activation_distances([BASE, BASE, EXPERT], thirds, PROMPTS[:1])
    assert list(found) == thirds.parameter_names
    assert found["block_000@1"] == pytest.approx(0, abs=1e-6)
    first = [single[f"layer_{i:03d}"] for i in range(3)]
    assert found["block_000@2"] == pytest.approx(sum(first) / 3, rel=1e-4)


def test_parents_are_asked_as_candidates_will_be() -> None:
    plan, template = _plan(), "{{ bos_token }}12{{ messages[0].content }}"
    asked = [
        activation_distances([BASE, EXPERT], plan, PROMPTS[:2], chat=chat)
        for chat in (Chat(BASE, template=template), Chat(BASE), None)
    ]
    assert asked[0] != asked[1] == asked[2]


def test_what_is_never_generated_needs_no_stop_token(tmp_path: Path) -> None:
    shutil.copytree(BASE, tmp_path / "base")
    (tmp_path / "base" / "generation_config.json").unlink()
    content = json.loads((tmp_path / "base" / "config.json").read_text())
    (tmp_path / "base" / "config.json").write_text(json.dumps(content | {"eos_token_id": None}))
    assert Chat(tmp_path / "base").render("3") == Chat(BASE).render("3")
