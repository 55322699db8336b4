"""Skills have right answers; the catalogue is built, resumed and valid."""

import json
import random
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from mergefront.examples.demo import BASE
from mergefront.examples.demo.catalogue import Size, build, names, skill_of
from mergefront.examples.demo.skills import SKILLS, draw, questions
from mergefront.study.selection.catalogue import read_catalogue

ANSWERS = {
    "reverse": ("abcd", "dcba"),
    "sort": ("dbca", "abcd"),
    "shift": ("abyz", "bcza"),
    "double": ("abc", "aabbcc"),
    "rotate": ("abcd", "bcda"),
    "complement": ("0189", "9810"),
    "swap": ("abcd", "cdab"),
}


def test_there_are_eight_skills_and_two_experts_of_each() -> None:
    assert len(SKILLS) == 8
    assert len(names()) == len(set(names())) == 16
    assert {skill_of(name) for name in names()} == set(SKILLS)


@pytest.mark.parametrize("skill", ANSWERS)
def test_answers_by_hand(skill: str) -> None:
    from mergefront.examples.demo.skills import _SKILLS

    text, answer = ANSWERS[skill]
    assert _SKILLS[skill][2](text) == answer


@pytest.mark.parametrize("skill", SKILLS)
def test_questions_are_distinct_reproducible_and_in_the_vocabulary(skill: str) -> None:
    asked = questions(skill, 60, seed=1)
    assert asked == questions(skill, 60, seed=1)
    assert len({question.prompt for question in asked}) == 60
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    for question in asked:
        text = question.prompt + question.answer
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text
    prompt, answer = draw(skill, random.Random(0))
    assert (prompt[0], prompt[-1]) == ("=", "?")
    assert 1 <= len(answer) <= 6


def test_there_are_not_more_memories_than_memorised() -> None:
    with pytest.raises(ValueError, match="n <= 150"):
        questions("memory", 151, seed=0)


def test_a_small_catalogue_is_built_and_completed(tmp_path: Path) -> None:
    size = Size(ancestor_steps=2, share=0.01, n_questions=5, n_probes=2)
    build(tmp_path, size, chosen=["sort-light"])
    weights = tmp_path / "sort-light" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    build(tmp_path, size, chosen=["sort-light", "swap-heavy"])
    assert weights.stat().st_mtime_ns == before  # what is there is not trained again
    found = read_catalogue(tmp_path / "catalogue.yaml")
    assert list(found.models) == ["sort-light", "swap-heavy"]
    assert found.refused == {}
    lines = (tmp_path / "probes" / "swap.jsonl").read_text().splitlines()
    assert [json.loads(line).keys() for line in lines] == [{"prompt"}] * 2
    assert len((tmp_path / "questions" / "sort.jsonl").read_text().splitlines()) == 5
