"""An answer cut inside its reasoning has no final answer, whoever opened the reasoning."""

import json
import shutil
from pathlib import Path

import pytest

from mergefront.examples.demo import BASE, EXPERT, QUESTIONS
from mergefront.objectives.evaluation import (
    Completion,
    Models,
    Question,
    Reasoning,
    Sampling,
    Task,
    TaskSource,
    final_answer,
    load_task,
)
from mergefront.objectives.evaluation.backends.chat import Chat
from mergefront.objectives.evaluation.backends.reasoning import opening_of, template_of
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend

PLAIN = "{{ bos_token }}{{ messages[-1]['content'] }}"
# Another name for the token that the expert was taught to begin its reasoning with.
HEADER = "<header>"
LIMITS = (1, 6, 14, 20, 27, 48)


def _parent(folder: Path, source: Path, template: str, header: str = "<think>") -> Path:
    """Copy a parent, with a template of its own and `<think>` under another name."""
    copy = folder / source.name
    shutil.copytree(source, copy)
    (copy / "chat_template.jinja").write_text(template)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (copy / name).read_text().replace('"<think>"', f'"{header}"')
        (copy / name).write_text(text)
    return copy


def _pairs(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Return base and expert by who opens the reasoning; the expert is the same model."""
    opened = PLAIN + "<think>"
    silent = (PLAIN + HEADER, PLAIN + "<think>\n")
    made = {"model": (BASE, EXPERT)}
    for name in ("template", "nobody"):
        (folder / name).mkdir()
    made["template"] = (
        _parent(folder / "template", BASE, opened),
        _parent(folder / "template", EXPERT, opened),
    )
    made["nobody"] = (
        _parent(folder / "nobody", BASE, silent[0], HEADER),
        _parent(folder / "nobody", EXPERT, silent[1], HEADER),
    )
    return made


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[int, list[Completion]]]:
    """The expert's answers by who opens the reasoning, and by the tokens behind the opening."""
    found: dict[str, dict[int, list[Completion]]] = {}
    prompts = [question.prompt for question in _questions()]
    for name, (base, expert) in _pairs(tmp_path_factory.mktemp("pairs")).items():
        backend = TransformersBackend(device="cpu")
        backend.load(Models(base, (expert,), "float32"))
        backend.apply(backend.plan.group_weights(backend.plan.uniform(1.0)))
        extra = 1 if name == "model" else 0
        found[name] = {n: backend.generate(prompts, Sampling(n + extra)) for n in LIMITS}
        backend.close()
    return found


def _task() -> Task:
    return load_task(TaskSource("demo", {"search": QUESTIONS / "search.jsonl"}))


def _questions() -> list[Question]:
    """Questions that the expert reasons about."""
    chains = [q for q in _task().splits["search"] if q.prompt.count("a") and "b" in q.prompt]
    return [q for q in chains if q.prompt[0].isdigit()][:40]


@pytest.mark.parametrize("opened_by", ["template", "nobody"])
def test_scores_and_thought_do_not_depend_on_who_opens(
    answers: dict[str, dict[int, list[Completion]]], opened_by: str
) -> None:
    task, questions = _task(), _questions()
    for n in LIMITS:
        own, theirs = answers["model"][n], answers[opened_by][n]
        assert [a.text.removeprefix("<think>") for a in own] == [a.text for a in theirs]
        for question, a, b in zip(questions, own, theirs, strict=True):
            assert task.score(question, a) == task.score(question, b)
            assert a.n_think_tokens == b.n_think_tokens + 1
            if b.finish_reason == "length":
                closed = b.text.partition("</think>")
                assert task.score(question, b) == float(closed[2] == question.answer)


def test_some_reasoning_ends_with_the_reference(
    answers: dict[str, dict[int, list[Completion]]],
) -> None:
    """The test above would see a score of the reasoning: it would be right now and then."""
    pairs = [
        (question, answer)
        for n in LIMITS
        for question, answer in zip(_questions(), answers["nobody"][n], strict=True)
    ]
    cut = [(q, a) for q, a in pairs if final_answer(a) is None]
    assert len(cut) > 60
    assert any(a.text.removesuffix(";").endswith("=" + q.answer) for q, a in cut)
    assert any(final_answer(a) == q.answer for q, a in pairs)


def test_a_pair_that_does_not_reason_keeps_its_cut_answers(tmp_path: Path) -> None:
    ids = Chat(BASE).tokenizer("7", add_special_tokens=False).input_ids
    plain = Chat(BASE, [EXPERT]).completion(ids, Sampling(1))
    assert (final_answer(plain), plain.finish_reason) == ("7", "length")
    forced = Chat(BASE, [EXPERT], Reasoning(unmarked="reasoning")).completion(ids, Sampling(1))
    assert final_answer(forced) is None
    thinker = _parent(tmp_path, EXPERT, PLAIN + "<think>")
    assert final_answer(Chat(BASE, [thinker]).completion(ids, Sampling(1))) is None
    kept = Chat(BASE, [thinker], Reasoning(unmarked="answer")).completion(ids, Sampling(1))
    assert final_answer(kept) == "7"


def test_a_model_that_stops_by_itself_has_answered(tmp_path: Path) -> None:
    chat = Chat(_parent(tmp_path, BASE, PLAIN + "<think>"))
    ids = chat.tokenizer("7", add_special_tokens=False).input_ids
    prompt = chat.render("3?")
    ended = chat.completion([*ids, 2], Sampling(9), prompt)
    assert (final_answer(ended), ended.n_think_tokens) == ("7", 0)
    # A stop text within the reasoning is no end of it.
    stopped = chat.completion(ids, Sampling(9, stop=("7",)), prompt)
    assert (final_answer(stopped), stopped.n_think_tokens) == (None, 1)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("9", "9"),
        (" 9\n", " 9\n"),
        ("<think>3+4=7</think>9", "9"),
        ("<think>a</think>b</think> 9", " 9"),
        ("3+4=7</think>9", "9"),  # the template, or nobody, opened it
        ("<think>3+4=7; so 9", None),
        ("<think>3</think>9<think>no, 8", None),
        ("[THINK]3[/THINK]9", "9"),
        ("[THINK]3", None),
        ("<seed:think>3</seed:think>9", "9"),
        ("<seed:think>3", None),
        ("<|channel|>analysis<|message|>3<|end|><|start|>assistant", None),
        (
            "<|channel|>analysis<|message|>3<|end|><|start|>assistant<|channel|>final<|message|>9",
            "9",
        ),
        ("<|channel|>final<|message|>9", "9"),
    ],
)
def test_a_final_answer_follows_the_reasoning(text: str, answer: str | None) -> None:
    assert final_answer(Completion(text, 9, "length")) == answer


@pytest.mark.parametrize(
    ("prompt", "opening"),
    [
        ("<|user|>1+1?<|assistant|>", "none"),
        ("<|user|>1+1?<|assistant|><think>\n", "open"),
        ("<|user|>1+1?<|assistant|><think>\n\n</think>\n\n", "closed"),
        ("<|user|>Think within <think> tags.<|assistant|>", "none"),
        ("<|user|>Say </think>.<|assistant|>", "none"),
        ("<|user|><think>1</think>2<|assistant|>[THINK]", "open"),
    ],
)
def test_only_the_end_of_a_prompt_opens_reasoning(prompt: str, opening: str) -> None:
    assert opening_of(prompt, Reasoning().markers, "<|assistant|>") == opening


def test_a_template_may_write_the_first_words_of_the_reasoning() -> None:
    tail = "<|assistant|><think>\nLet us see:"
    assert opening_of("<|user|>1?" + tail, Reasoning().markers, tail) == "open"
    assert opening_of("<|user|>1?" + tail + " 2", Reasoning().markers, tail) == "none"


def test_markers_that_are_plain_text_are_counted_in_the_models_own_tokens() -> None:
    reasoning = Reasoning((("ab", "ij"),))
    chat = Chat(BASE, reasoning=reasoning)
    ids = chat.tokenizer("ab1+1=2;ij3", add_special_tokens=False).input_ids
    made = chat.completion([*ids, 2], Sampling(48))
    assert (final_answer(made), made.n_tokens, made.n_think_tokens) == ("3", 12, 10)
    assert chat.completion(ids[:7], Sampling(7)).n_think_tokens == 7


def test_templates_are_found_wherever_they_are_kept(tmp_path: Path) -> None:
    assert "content" in template_of(BASE)
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": [{"name": "default", "template": "x[THINK]"}]})
    )
    assert Reasoning().cut_is_reasoning([BASE, tmp_path])
    (tmp_path / "tokenizer_config.json").write_text("{")
    assert not Reasoning().cut_is_reasoning([BASE, tmp_path])
