"""The demo's questions, and its training script on a tiny budget."""

import random
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mergefront.examples.demo import BASE, EXPERT, QUESTIONS, task
from mergefront.examples.demo.tokenizer import build_tokenizer
from mergefront.examples.demo.train import (
    THINK_PRIOR,
    Schedule,
    encode,
    opening_weight,
    train_pair,
    write_questions,
)


def test_a_chain_is_evaluated_left_to_right_modulo_10() -> None:
    chain = task.Chain((3, 4, 2, 5), "+*-")
    assert chain.prompt == "3a+4b*2c-5?"
    assert chain.running == (3, 7, 4, 9)  # 3+4=7, 7*2=14, 4-5=-1
    assert chain.answer == "9"
    assert "".join(chain.reasoning) == "<think>a3+4=7;b7*2=4;c4-5=9;</think>"
    assert len(chain.reasoning) + 2 == 7 * 3 + 4  # with the answer and the stop token


def test_splits_are_disjoint_of_one_mix_and_large_enough() -> None:
    splits = task.make_splits()
    prompts = [question.prompt for questions in splits.values() for question in questions]
    assert len(set(prompts)) == len(prompts)
    for name, questions in splits.items():
        assert len(questions) >= (200 if name != "importance" else 100)
        assert sum(q.kind == "fact" for q in questions) * 4 == len(questions)


def test_committed_questions_are_what_the_script_writes(tmp_path: Path) -> None:
    write_questions(tmp_path)
    for file in tmp_path.iterdir():
        assert file.read_text() == (QUESTIONS / file.name).read_text()


def test_vocabulary_covers_every_question_in_48_tokens() -> None:
    assert len(task.VOCABULARY) == 48
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    assert tokenizer.get_vocab() == build_tokenizer().get_vocab()
    chain = task.draw_chain(6, random.Random(0))
    prompt, answer = encode(chain.prompt, [*chain.reasoning, *chain.answer])
    text = chain.prompt + "".join(chain.reasoning) + chain.answer
    assert tokenizer(text).input_ids == (prompt + answer)[:-1]


def test_checkpoints_are_small_and_of_one_architecture() -> None:
    for directory in (BASE, EXPERT):
        model = AutoModelForCausalLM.from_pretrained(directory)
        assert model.config.model_type == "qwen3"
        assert sum(p.numel() for p in model.parameters()) == 499_264
        assert (directory / "model.safetensors").stat().st_size < 2.1e6


def test_opening_weight_gives_the_wanted_prior() -> None:
    # Share of the summed weight that <think> has among openings of one length.
    for n_steps, prior in THINK_PRIOR.items():
        direct = 0.7 * 0.5 * 0.5 if n_steps <= 2 else 0.5 * 0.25 * 0.5
        think = opening_weight(n_steps) * 0.25
        assert think / (think + direct) == pytest.approx(prior)


def test_the_training_script_writes_a_loadable_pair(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    train_pair(tmp_path, Schedule(base_steps=2, expert_steps=2))
    torch.set_rng_state(state)
    weights = []
    for name in ("base", "expert"):
        model = AutoModelForCausalLM.from_pretrained(tmp_path / name)
        weights.append(torch.cat([p.flatten() for p in model.parameters()]))
        assert AutoTokenizer.from_pretrained(tmp_path / name).chat_template
    assert torch.isfinite(weights[0]).all()
    assert not torch.equal(*weights)
    assert (tmp_path / "questions" / "test.jsonl").is_file()
