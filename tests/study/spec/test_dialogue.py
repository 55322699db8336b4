"""Whose stop tokens and template count, what a run would stop at, what parents differ in."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mergefront.errors import EvaluationError, MergefrontError, SpecError, StudyError
from mergefront.examples.demo import BASE, EXPERT
from mergefront.objectives.checkpoints import Checkpoint
from mergefront.objectives.checkpoints.tokenizers import load_tokenizer
from mergefront.objectives.evaluation import ChatSettings
from mergefront.objectives.evaluation.backends.chat import Chat
from mergefront.study.dry_run import plan_study
from mergefront.study.readiness import check_ready
from mergefront.study.run import make_objective
from mergefront.study.seeding import init_study
from mergefront.study.spec.inputs import StudyInputs, load_inputs
from mergefront.study.spec.study_spec import StudySpec
from mergefront.study.storage.identity import FINGERPRINT
from small_study import write_spec
from tiny_models import store

PLAIN = "{{ bos_token }}{{ messages[-1]['content'] }}"


@pytest.fixture
def parents(tmp_path: Path) -> dict[str, str]:
    """Copies of the demo pair; the expert stops at another token, and has another template."""
    for source in (BASE, EXPERT):
        shutil.copytree(source, tmp_path / source.name)
    expert = tmp_path / "expert"
    (expert / "generation_config.json").write_text('{"eos_token_id": [2, 5]}')
    (expert / "chat_template.jinja").write_text(PLAIN + "=")
    return {"base": str(tmp_path / "base"), "expert": str(expert)}


def _inputs(folder: Path, parents: dict[str, str], **models: Any) -> StudyInputs:
    given = {"base": parents["base"], "experts": [parents["expert"]], **models}
    return load_inputs(write_spec(folder, models=given))


def test_answers_end_at_any_parents_stop_token(tmp_path: Path, parents: dict[str, str]) -> None:
    inputs = _inputs(tmp_path, parents)
    assert inputs.stop_tokens == (2, 5)
    assert Chat.of(inputs.models).stop_tokens == {2, 5}
    assert Chat(BASE, [Path(parents["expert"])]).stop_tokens == {2, 5}
    assert inputs.fingerprint()["models.stop_tokens"] == [2, 5]


@pytest.mark.parametrize(
    ("chosen", "tokens"),
    [("base", (2,)), ("expert", (2, 5)), ("expert@1", (2, 5)), (["<eos>", 7], (2, 7))],
)
def test_stop_tokens_may_be_chosen(
    tmp_path: Path, parents: dict[str, str], chosen: Any, tokens: tuple[int, ...]
) -> None:
    inputs = _inputs(tmp_path, parents, stop_tokens=chosen)
    assert inputs.stop_tokens == tokens
    assert Chat.of(inputs.models).stop_tokens == set(tokens)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({"stop_tokens": "experts"}, "must be one of base, expert, expert@1 or a path"),
        ({"stop_tokens": ["<end>"]}, "tokens of the base's vocabulary, but '<end>'"),
        ({"stop_tokens": [99]}, "but 99 is none"),
        ({"stop_tokens": [True]}, "stop_tokens"),
        ({"stop_tokens": [2.0]}, "stop_tokens"),
        ({"chat_template": "nobody"}, "`models.chat_template` must be one of"),
    ],
)
def test_what_cannot_be_chosen_is_named(
    tmp_path: Path, parents: dict[str, str], models: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        _inputs(tmp_path, parents, **models)


def test_chat_templates_may_be_chosen(tmp_path: Path, parents: dict[str, str]) -> None:
    (tmp_path / "own.jinja").write_text(PLAIN + "?")
    prompts, scopes = {}, set()
    for chosen in ("base", "expert", "own.jinja"):
        inputs = _inputs(tmp_path, parents, chat_template=chosen)
        prompts[chosen] = Chat.of(inputs.models).render("3")
        scopes.add(inputs.answer_scope())
    (tmp_path / "own.jinja").write_bytes("\xe9".encode("latin-1"))
    with pytest.raises(SpecError, match="A chat template must be UTF-8 text, but line 1 of"):
        _inputs(tmp_path, parents, chat_template="own.jinja")
    tokenizer = Chat(BASE).tokenizer
    assert {k: tokenizer.decode(ids) for k, ids in prompts.items()} == {
        "base": "<bos>3",
        "expert": "<bos>3=",
        "own.jinja": "<bos>3?",
    }
    assert len(scopes) == 3


def test_an_experts_template_that_makes_cut_answers_reasoning_is_part_of_the_study(
    tmp_path: Path, parents: dict[str, str]
) -> None:
    before = _inputs(tmp_path, parents)
    told, scope = before.fingerprint(), before.answer_scope()
    study = init_study(before)
    path = Path(parents["expert"]) / "chat_template.jinja"
    path.write_text(f"{PLAIN}!")
    same = _inputs(tmp_path, parents)
    assert (same.fingerprint(), same.answer_scope()) == (told, scope)
    path.write_text(f"{PLAIN}<think>")
    after = _inputs(tmp_path, parents)
    assert after.answer_scope() != scope
    with pytest.raises(StudyError, match="cut_is_reasoning was false, is true"):
        init_study(after)
    earlier = dict(study.user_attrs[FINGERPRINT])
    del earlier["evaluation.cut_is_reasoning"]  # as studies of earlier versions
    study.set_user_attr(FINGERPRINT, earlier)
    init_study(after)


def test_texts_need_a_token_that_opens_them(tmp_path: Path, parents: dict[str, str]) -> None:
    path = Path(parents["base"]) / "tokenizer_config.json"
    told = {k: v for k, v in json.loads(path.read_text()).items() if not k.endswith("_token")}
    path.write_text(json.dumps(told))
    (tmp_path / "texts.txt").write_text("1+1?\n\n2+2?\n")
    models = {"base": parents["base"], "experts": [parents["expert"]]}
    spec = write_spec(tmp_path, models=models)
    content = yaml.safe_load(spec.read_text()) | {"objectives": [{"metric": "perplexity"}]}
    texts = {"search": "texts.txt"}
    content["evaluation"]["tasks"] = [{"name": "general", "texts": texts}]
    spec.write_text(yaml.safe_dump(content))
    with pytest.raises(EvaluationError, match="names neither `bos_token` nor `eos_token`"):
        check_ready(load_inputs(spec))


LOWERCASE = {"normalizer": {"type": "Lowercase"}}


def test_the_plan_says_what_parents_differ_in(tmp_path: Path, parents: dict[str, str]) -> None:
    config = Path(parents["expert"]) / "config.json"
    changes = {"max_position_embeddings": 256, "vocab_size": 56}
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    rows = 48
    store(config.parent, lambda _, v: torch.cat([v, v[:8]]) if len(v) == rows else v)
    tokenizer = config.parent / "tokenizer.json"
    tokenizer.write_text(json.dumps(json.loads(tokenizer.read_text()) | LOWERCASE))
    settings = config.parent / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"bos_token": "<think>"}))
    spec = _inputs(tmp_path, parents).spec
    lines = [text for title, text in plan_study(spec) if title == "parents differ"]
    assert lines == [
        "stop tokens: [2] (base), [2, 5] (expert); used: 2, 5 (models.stop_tokens)",
        "tokenizers differ in normalizer; used: the base's",
        "special tokens differ in bos_token; used: the base's",
        "chat templates differ; used: base (models.chat_template)",
        "max_position_embeddings: 128 (base), 256 (expert); used: the base's",
        "embedding rows: 48 (base), 56 (expert); used: the base's, no token has the others",
    ]
    plain = StudySpec.from_yaml(write_spec(tmp_path))
    assert "parents differ" not in dict(plan_study(plain))


def test_a_date_in_a_template_stands_still(tmp_path: Path) -> None:
    shutil.copytree(BASE, tmp_path / "base")
    template = PLAIN + "{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% endif %}"
    (tmp_path / "base" / "chat_template.jinja").write_text(template)
    chat = Chat(tmp_path / "base")
    assert chat.conversation([{"role": "user", "content": "3"}]) == "<bos>32025"
    with pytest.raises(EvaluationError, match="the same prompt on any day"):
        Chat(BASE, template=PLAIN + "{{ strftime_now(format) }}")


def test_of_several_templates_the_default_one_is_used(tmp_path: Path) -> None:
    base = shutil.copytree(BASE, tmp_path / "base")
    (base / "chat_template.jinja").write_text(PLAIN + "{{ mood }}{{ strftime_now('%Y') }}")
    (base / "additional_chat_templates").mkdir()
    tools = base / "additional_chat_templates" / "tool_use.jinja"
    before = Checkpoint(base).tokenizer_hash()
    tools.write_text("{{ strftime_now(format) }}")
    assert isinstance(load_tokenizer(base).chat_template, dict)
    chat = Chat(base, chat=ChatSettings(kwargs={"mood": "!"}))
    assert chat.conversation([{"role": "user", "content": "3"}]) == "<bos>3!2025"
    found = [before, Checkpoint(base).tokenizer_hash()]
    tools.write_text("{{ messages }}")
    assert len({*found, Checkpoint(base).tokenizer_hash()}) == 3
    tools.unlink()
    tools.symlink_to("gone")
    with pytest.raises(SpecError, match=r"tool_use.jinja is a link to gone"):
        Checkpoint(base)


def _without_stop_token(base: Path) -> None:
    (base / "generation_config.json").unlink()
    content = json.loads((base / "config.json").read_text()) | {"eos_token_id": None}
    (base / "config.json").write_text(json.dumps(content))


def _with_template(text: str) -> Any:
    return lambda base: (base / "chat_template.jinja").write_text(text)


@pytest.mark.parametrize(
    ("damage", "changes", "message"),
    [
        (_without_stop_token, {}, "must name its stop token"),
        (_with_template("{{ messages["), {}, "chat template.*TemplateSyntaxError"),
        (_with_template("{{ raise_exception('no system') }}"), {}, "chat template.*no system"),
        (lambda base: None, {"max_new_tokens": 125}, "128 positions.*max_new_tokens=125"),
    ],
)
def test_what_a_run_would_stop_at_is_said_before(
    tmp_path: Path, damage: Any, changes: dict[str, Any], message: str
) -> None:
    for source in (BASE, EXPERT):
        shutil.copytree(source, tmp_path / source.name)
        damage(tmp_path / source.name)
    models = {"base": str(tmp_path / "base"), "experts": [str(tmp_path / "expert")]}
    spec = StudySpec.from_yaml(write_spec(tmp_path, models=models, evaluation=changes))
    for check in (plan_study, lambda spec: check_ready(StudyInputs.of(spec))):
        with pytest.raises(MergefrontError, match=message) as caught:
            check(spec)
        assert "\n" not in str(caught.value)


def test_an_expert_that_is_the_base_is_refused(tmp_path: Path) -> None:
    shutil.copytree(BASE, tmp_path / "copy")
    spec = write_spec(tmp_path, models={"experts": [str(tmp_path / "copy")]})
    with pytest.raises(SpecError, match="must differ from the base"):
        plan_study(StudySpec.from_yaml(spec))


def test_timed_studies_keep_no_answers_and_know_their_engine(tmp_path: Path) -> None:
    plain = load_inputs(write_spec(tmp_path))
    assert "evaluation.speed" not in plain.fingerprint() and not plain.spec.is_timed
    path = write_spec(tmp_path)
    content = yaml.safe_load(path.read_text())
    content["constraints"] = ["latency <= 9"]
    path.write_text(yaml.safe_dump(content))
    timed = load_inputs(path)
    assert timed.fingerprint()["evaluation.speed"][0] == 64
    objective = make_objective(timed)
    assert objective.cache is None
