"""The questions are right and disjoint; an adapter is read as it was trained; the weights fit."""

import json
from itertools import combinations
from pathlib import Path

import pytest
import torch
from jinja2 import Template
from safetensors.torch import load_file

from mergefront.examples.smollm2 import lora, prepare, task
from mergefront.examples.smollm2.train import PROMPT, UPPER
from mergefront.objectives.checkpoints.lora import LoraCheckpoint
from mergefront.objectives.checkpoints.reader import Checkpoint
from mergefront.study.spec import StudySpec
from tiny_models import write_llama

FOLDER = Path(task.__file__).parent


def test_a_problem_by_hand() -> None:
    steps = (task.Step("buys 7", "9+7=16", 16), task.Step("loses 3", "16-3=13", 13))
    problem = task.Problem("Mia", "pens", 9, steps)
    assert problem.prompt == "Mia has 9 pens. She buys 7. She loses 3. How many now?"
    assert (problem.direct, problem.equations) == ("13", "9+7=16,16-3=13")
    told = "We have 9 pens. Now 9+7=16 pens. Now 16-3=13 pens. The answer is 13."
    assert problem.words == told


def test_equations_are_true_and_chained() -> None:
    for problem in task.make_splits()["search"]:
        value = problem.start
        for step in problem.steps:
            left, right = step.equation.split("=")
            assert eval(left) == int(right) == step.result  # noqa: S307 - digits and one sign
            assert int(left.replace("*", "+").replace("-", "+").split("+")[0]) == value
            value = step.result


def test_splits_are_disjoint_and_the_committed_ones(tmp_path: Path) -> None:
    splits = {name: {p.prompt for p in drawn} for name, drawn in task.make_splits().items()}
    assert {name: len(prompts) for name, prompts in splits.items()} == task.SIZES
    assert all(not one & other for one, other in combinations(splits.values(), 2))
    task.write_questions(tmp_path)
    written = [path.relative_to(tmp_path) for path in tmp_path.rglob("*.jsonl")]
    assert len(written) == 4 + 3 * len(task.PARTS)
    for name in written:
        assert (tmp_path / name).read_text() == (FOLDER / "questions" / name).read_text()


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    shape = {"num_hidden_layers": 3, "num_key_value_heads": 1, "tie_word_embeddings": True}
    return write_llama(tmp_path / "tiny", 0, "float32", **shape, initializer_range=0.2)


def test_an_adapter_learns_and_is_read_as_it_was_trained(tiny: Path, tmp_path: Path) -> None:
    model = prepare.load(tiny)
    adapters = lora.add_adapter(model, [1])
    weights = [w for adapter in adapters.values() for w in (adapter.a, adapter.b)]
    optimizer = torch.optim.Adam(weights, lr=0.02)
    (batch,) = lora.batches([([3, 4], [5, 6]), ([3], [7])], 2, [0])
    losses = []
    for _ in range(60):
        loss = lora.loss_of(model, batch)
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.7 * losses[0]
    lora.save_adapter(adapters, tmp_path / "adapter")
    folded = prepare.load(tiny, tmp_path / "adapter")
    read = LoraCheckpoint(tmp_path / "adapter", Checkpoint(tiny))
    assert {name.split(".")[2] for name in read.changed} == {"1"}
    for name in read.changed:
        assert torch.allclose(read.tensor(name).load(), folded.get_parameter(name), atol=1e-6)
    # Its file holds bfloat16, hence the tolerance.
    with torch.no_grad():
        assert torch.allclose(model(batch.ids).logits, folded(batch.ids).logits, atol=0.02)


def test_padding_is_not_learned() -> None:
    (batch,) = lora.batches([([3, 4], [5, 6]), ([3], [7])], 2, [0])
    assert batch.ids.tolist() == [[3, 7, 0, 0], [3, 4, 5, 6]]
    assert batch.learned.int().tolist() == [[0, 1, 0, 0], [0, 0, 1, 1]]


def test_the_base_is_asked_as_it_was_trained() -> None:
    messages = [{"role": "user", "content": "How many?"}]
    rendered = Template(prepare.CHAT_TEMPLATE, keep_trailing_newline=True).render(
        messages=messages, add_generation_prompt=True
    )
    assert rendered == PROMPT.format("How many?")


def test_committed_adapters_are_small_and_say_where_they_are() -> None:
    layers = {"direct": 30, "equations": 20, "talker": 30}
    for name, n_layers in layers.items():
        folder = prepare.ADAPTERS / name
        assert (folder / "adapter_model.safetensors").stat().st_size < 5e6
        settings = json.loads((folder / "adapter_config.json").read_text())
        assert settings["layers_to_transform"] == list(range(n_layers))


def test_the_talker_reasons_as_the_other_expert_does() -> None:
    talker, equations = (
        load_file(prepare.ADAPTERS / name / "adapter_model.safetensors")
        for name in ("talker", "equations")
    )
    assert {int(name.split(".")[4]) for name in talker.keys() - equations.keys()} == set(UPPER)
    assert all(torch.equal(talker[name], tensor) for name, tensor in equations.items())


@pytest.mark.parametrize("name", ["study", "plain"])
def test_the_specs_are_valid(name: str) -> None:
    spec = StudySpec.from_yaml(FOLDER / f"{name}.yaml")
    assert spec.study.trials == 60 and len(spec.criteria) == 2


def test_several_experts_and_tasks_are_one_study() -> None:
    spec = StudySpec.from_yaml(FOLDER / "several.yaml")
    assert len(spec.models.experts) == 2
    assert [task.name for task in spec.evaluation.tasks] == ["one-step", "three-steps", "general"]
    assert spec.constraints == ["kl/base <= 0.05"]
