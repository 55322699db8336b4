"""`evaluation.chat`: system messages, variables of the template, another template."""

import json
from pathlib import Path
from typing import Any

import pytest

from mergefront.errors import MergefrontError, SpecError
from mergefront.examples.demo import EXPERT, QUESTIONS
from mergefront.objectives.evaluation import ChatSettings
from mergefront.objectives.evaluation.backends.chat import Chat
from mergefront.study.readiness import check_ready
from mergefront.study.spec import StudyInputs, load_inputs
from small_study import write_spec

# A hybrid model's: it closes the reasoning itself if it is told not to think.
TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    "{% if mood is defined and mood not in ('calm', 'wild') %}"
    "{{ raise_exception('mood must be calm\nor wild') }}{% endif %}"
    "{% if add_generation_prompt %}[assistant]"
    "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
    "{% endif %}"
)


def _inputs(folder: Path, **chat: Any) -> StudyInputs:
    template = folder / "hybrid.jinja"
    template.write_text(TEMPLATE)
    return load_inputs(
        write_spec(folder, evaluation={"chat": {"template": str(template), **chat}})
    )


def _text(inputs: StudyInputs) -> str:
    chat = Chat.of(inputs.models)
    return chat.conversation([{"role": "user", "content": "1+1?"}])


def test_templates_are_given_what_the_spec_says(tmp_path: Path) -> None:
    plain = _inputs(tmp_path)
    assert _text(plain) == "[user]1+1?[assistant]"
    short = _inputs(tmp_path, system="Be short.", kwargs={"enable_thinking": False})
    assert _text(short) == "[system]Be short.[user]1+1?[assistant]<think></think>"
    shots = [{"role": "system", "content": "Examples:"}, {"role": "user", "content": "2?"}]
    joined = Chat.of(short.models).conversation(shots)
    assert joined.startswith("[system]Be short.\n\nExamples:[user]2?")


def test_they_are_part_of_what_is_measured_and_of_what_is_cached(tmp_path: Path) -> None:
    one = _inputs(tmp_path)
    others = [_inputs(tmp_path, system="x"), _inputs(tmp_path, kwargs={"mood": "calm"})]
    scopes = {inputs.answer_scope() for inputs in (one, *others)}
    assert len(scopes) == 3
    assert "evaluation.chat" not in one.fingerprint()
    assert others[0].fingerprint()["evaluation.chat"] == {"system": "x", "kwargs": {}}
    assert others[1].spec.with_overrides(trials=5).evaluation.chat.kwargs == {"mood": "calm"}


@pytest.mark.parametrize(
    ("chat", "message"),
    [
        ({"kwargs": {"enable_thinkin": False}}, "did you mean 'enable_thinking'"),
        (
            {"kwargs": {"tokenize": True}},
            r"chat template \(enable_thinking, mood\)",
        ),
        ({"kwargs": {"mood": "sad"}}, "mood must be calm or wild"),
        ({"sistem": "x"}, "did you mean 'system'"),
        ({"template": "missing.jinja"}, "missing.jinja"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, chat: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        _inputs(tmp_path, **chat)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("chat", [{"kwargs": {"mood": "calm"}}, {"system": "x"}, {}])
def test_a_template_that_is_none_is_one_line(tmp_path: Path, chat: dict[str, Any]) -> None:
    (tmp_path / "broken.jinja").write_text("{% for m in messages %}\n{{ mood }")
    given = {"template": str(tmp_path / "broken.jinja"), **chat}
    with pytest.raises(MergefrontError, match=r"TemplateSyntaxError: .* Correct it") as caught:
        check_ready(load_inputs(write_spec(tmp_path, evaluation={"chat": given})))
    assert "\n" not in str(caught.value)


def test_two_templates_are_one_too_many(tmp_path: Path) -> None:
    models = {"chat_template": "expert"}
    path = write_spec(tmp_path, models=models, evaluation={"chat": {"template": "base"}})
    with pytest.raises(SpecError, match="remove one"):
        load_inputs(path)


def test_the_experts_template(tmp_path: Path) -> None:
    inputs = load_inputs(write_spec(tmp_path, evaluation={"chat": {"template": "expert"}}))
    prompt = json.loads((QUESTIONS / "search.jsonl").read_text().splitlines()[0])["prompt"]
    assert Chat.of(inputs.models).render(prompt) == Chat(EXPERT).render(prompt)
    assert ChatSettings() == inputs.models.chat
