"""Plain batches: answers that depend on their length, their times, stop texts of many bytes."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, Phi3Config, Phi3ForCausalLM

from mergefront.examples.demo import BASE, EXPERT
from mergefront.objectives.evaluation import Models, Sampling
from mergefront.objectives.evaluation.backends.chat import Chat
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
from mergefront.objectives.evaluation.backends.vllm_memory import EngineSettings, check_memory
from mergefront.objectives.merging import MergeSettings

PROMPTS = ["1a+1b+1?", "9a*3b*7?", "cig?", "4a-4b*2c+4d+0e+0?"]


@pytest.fixture
def phi(tmp_path: Path) -> Path:
    """A Phi-3 whose rotary embedding changes at 16 positions."""
    factors = [1.0] * 8, [float(2 + i) for i in range(8)]
    torch.manual_seed(0)
    config = Phi3Config(
        vocab_size=48,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        original_max_position_embeddings=16,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 1e4,
            "short_factor": factors[0],
            "long_factor": factors[1],
        },
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        initializer_range=0.5,
    )
    Phi3ForCausalLM(config).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(BASE / name, tmp_path)
    return tmp_path


# Models that know distances alone, or no place at all: they have no limit of positions.
_ENDLESS: dict[str, dict[str, Any]] = {
    "bloom": {"n_layer": 2, "n_head": 4},
    "falcon": {"num_attention_heads": 4, "multi_query": False, "alibi": True},
    "mamba": {"state_size": 4},
}


@pytest.mark.parametrize("kind", _ENDLESS)
def test_models_without_positions_answer_and_read_as_alone(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": 48, "hidden_size": 32, "initializer_range": 0.5}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    given = {"num_hidden_layers": 2, **sizes, **tokens, **_ENDLESS[kind]}
    config = AutoConfig.for_model(kind, **given)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(BASE / name, tmp_path)
    models = Models(tmp_path, (), "float32", MergeSettings(n_experts=0))
    check_memory(models, EngineSettings(), 8 << 30)  # what the dry run says
    backend = TransformersBackend(batch_size=4, device="cpu")
    backend.load(models)
    together = backend.generate(PROMPTS, Sampling(12))
    assert together == [backend.generate([prompt], Sampling(12))[0] for prompt in PROMPTS]
    assert backend.loglikelihood([("1a+", "1b")])[0].total < 0
    assert backend.read(["1a+1b"])[0].total < 0
    assert backend.text_window == 2048


def test_answers_that_depend_on_length_are_generates_own(phi: Path) -> None:
    backend = TransformersBackend(batch_size=4, device="cpu")
    backend.load(Models(phi, (), "float32", MergeSettings(n_experts=0)))
    answers = backend.generate(PROMPTS, Sampling(24))
    model: Any = AutoModelForCausalLM.from_pretrained(phi, dtype=torch.float32)
    chat = Chat(phi)
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        ids = torch.tensor([chat.render(prompt)])
        full = model.generate(ids, max_new_tokens=24, do_sample=False)[0, ids.shape[1] :]
        assert answer == chat.completion(full.tolist(), Sampling(24), ids[0].tolist())


def test_an_answer_of_a_batch_ends_when_it_ends() -> None:
    backend = TransformersBackend(batch_size=4, device="cpu")
    backend.load(Models(BASE, (EXPERT,), "float32"))
    backend.apply(backend.plan.group_weights(backend.plan.uniform(1.0)))
    in_rows = backend.generate(PROMPTS, Sampling(48))
    backend._rows = None
    answers = backend.generate(PROMPTS, Sampling(48))
    assert answers == in_rows
    by_length = sorted(answers, key=lambda answer: answer.n_tokens)
    assert by_length[0].n_tokens < by_length[-1].n_tokens
    assert 0 < by_length[0].seconds < by_length[-1].seconds


def test_a_stop_text_may_have_many_bytes_a_character() -> None:
    chat = Chat(BASE)

    class Bytes:
        """A tokenizer of bytes, as far as a stop text needs one."""

        @staticmethod
        def decode(ids: list[int]) -> str:
            return bytes(ids).decode(errors="replace")

    chat.tokenizer, chat.stop_tokens = Bytes(), frozenset()
    text = "所以答案是什么："
    assert chat.is_over(list(text.encode()), ["答案是什么："])
    assert not chat.is_over(list(text.encode())[:-1], ["答案是什么："])
