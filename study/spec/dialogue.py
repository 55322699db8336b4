"""How merges are asked and where their answers end, as `models` says: by whose rules."""

from collections.abc import Sequence
from pathlib import Path

from ...errors import EvaluationError, MissingExtraError, SpecError
from ...objectives.checkpoints import Checkpoint
from ...objectives.checkpoints.configs import positions, stop_tokens
from ...objectives.checkpoints.text_files import read_text
from ...objectives.checkpoints.tokenizers import load_tokenizer
from ...objectives.evaluation import ChatSettings, Sampling, Task, load_task
from ...objectives.evaluation.backends.chat import Chat
from ...objectives.evaluation.tasks import JudgeSource, judged, load_texts
from ...objectives.evaluation.tasks.jsonl import JUDGED
from .base import resolve
from .evaluation import TaskSection
from .sampling import JudgeSection
from .study_spec import StudySpec

# Where a fingerprint says what `cut_is_reasoning` found.
CUT = "evaluation.cut_is_reasoning"


def stop_tokens_of(spec: StudySpec, parents: Sequence[Checkpoint]) -> tuple[int, ...]:
    """Return the ids that end an answer.

    Args:
        spec: With `models.stop_tokens`.
        parents: The base first.

    Raises:
        SpecError: If there are none.
    """
    chosen = spec.models.stop_tokens
    if not isinstance(chosen, str):
        return tuple(sorted(_token_id(token, parents[0]) for token in chosen))
    whose = [p.directory for p in parents]
    if chosen != "all":
        whose = [_directory("stop_tokens", chosen, spec, parents)]
    found = frozenset[int]().union(*map(stop_tokens, whose))
    if not found:
        raise SpecError(
            "A model must name its stop token, but neither generation_config.json nor "
            f"config.json of {' or '.join(map(str, whose))} has eos_token_id. Name it under "
            "`models.stop_tokens`, e.g. ['<|im_end|>']."
        )
    return tuple(sorted(found))


def cut_is_reasoning(spec: StudySpec, parents: Sequence[Checkpoint]) -> bool:
    """Whether answers that are cut without a marker are reasoning, by the parents' templates.

    No hash of the base tells it: an expert's template may be the one that has the markers.
    """
    settings = spec.evaluation.reasoning.settings
    return settings.cut_is_reasoning(parent.directory for parent in parents)


def chat_template_of(spec: StudySpec, parents: Sequence[Checkpoint]) -> str | None:
    """Return the source of the chat template that is not the base's; None if the base's is used.

    Raises:
        SpecError: If whoever is to give it has none.
    """
    chosen, again = spec.models.chat_template, spec.evaluation.chat.template
    if again is not None and chosen not in ("base", again):
        raise SpecError(
            f"models.chat_template is {chosen!r} and evaluation.chat.template is {again!r}; "
            "remove one."
        )
    chosen = again or chosen
    if chosen == "base":
        return None
    file = resolve(spec.folder, chosen)
    if file.is_file():
        return read_text(file, "A chat template")
    directory = _directory("chat_template", chosen, spec, parents)
    template = load_tokenizer(directory).chat_template
    if not isinstance(template, str):
        raise SpecError(
            f"`models.chat_template` must name a model with one chat template, but {directory} "
            "has none. Give the path of a .jinja file."
        )
    return template


def _token_id(token: int | str, base: Checkpoint) -> int:
    vocabulary = load_tokenizer(base.directory).get_vocab()
    known = token in vocabulary if isinstance(token, str) else token in vocabulary.values()
    if not known:
        raise SpecError(
            f"`models.stop_tokens` must name tokens of the base's vocabulary, but {token!r} is "
            f"none of {base.directory}."
        )
    return int(vocabulary[token]) if isinstance(token, str) else token


def _directory(key: str, chosen: str, spec: StudySpec, parents: Sequence[Checkpoint]) -> Path:
    """Return whose rules count: `base`, `expert`, `expert@2`, or a model's directory."""
    roles = {"base": parents[0], "expert": parents[1]}
    roles |= {f"expert@{k}": parent for k, parent in enumerate(parents[1:], start=1)}
    if chosen in roles:
        return roles[chosen].directory
    directory = resolve(spec.folder, chosen)
    if not directory.is_dir():
        raise SpecError(
            f"`models.{key}` must be one of {', '.join(roles)} or a path, but {chosen!r} is "
            f"neither (looked in {spec.folder})."
        )
    return directory


def load_task_of(
    task: TaskSection, spec: StudySpec, base: Checkpoint, sampling: Sampling, template: str | None
) -> Task:
    """Load one of a spec's tasks, with prompts rendered by the chosen chat template.

    Raises:
        SpecError: If its questions cannot be read.
        MissingExtraError: If it is one of lm-eval's, which is not installed.
    """
    fractions = dict(spec.evaluation.splits)
    if task.texts is not None:
        return load_texts(task.source(spec.folder, fractions, sampling))
    if task.lm_eval is None:
        loaded = load_task(task.source(spec.folder, fractions, sampling))
        if task.scorer != JUDGED:
            return loaded
        limit = (loaded.sampling or sampling).max_new_tokens
        return judged(loaded, _judge(task, spec, base, template, limit))
    try:
        from ...objectives.evaluation.tasks.lm_eval import HarnessSource, load_harness_task
    except ImportError as error:
        raise MissingExtraError(
            f"Task {task.name!r} needs lm-evaluation-harness; run "
            "`pip install 'mergefront[eval]'`."
        ) from error
    source = HarnessSource(
        task.name,
        task.harness_name(spec.folder),
        fractions,
        task.local_dataset(spec.folder),
        task.metric,
        task.filter,
        task.num_fewshot,
        task.chat,
        task.max_new_tokens,
        None if task.stop is None else tuple(task.stop),
        task.reasoning,
        task.cluster,
    )
    settings = spec.evaluation.chat.settings
    drawn = task.own_sampling(sampling)
    return load_harness_task(source, base.directory, drawn, template, settings)


def _judge(
    task: TaskSection, spec: StudySpec, base: Checkpoint, template: str | None, limit: int
) -> JudgeSource:
    """Return how a task's judge is asked.

    Raises:
        SpecError: If no weights of the merge are the base's.
    """
    merge = spec.merge.model_dump()
    foreign = [key for key in ("embeddings", "head", "router", "towers") if merge[key] == "expert"]
    if foreign:
        raise SpecError(
            f"`scorer: judge` asks the base, but with merge.{foreign[0]}: expert no candidate is "
            "the base. Choose another rule, or another scorer."
        )
    chat = Chat(base.directory, template=template, chat=spec.evaluation.chat.settings)
    vllm = spec.evaluation.backend == "vllm"
    known = (positions(base.directory), spec.evaluation.engine.max_model_len if vllm else None)
    room = min((n for n in known if n is not None), default=None)
    asked = task.judge or JudgeSection()
    n_reply = asked.max_new_tokens

    def fits(prompt: str, more: int) -> bool:
        return room is None or len(chat.render(prompt)) + n_reply + more <= room

    return JudgeSource(task.name, asked.prompt, n_reply, limit, fits)


def check_chat(spec: StudySpec, base: Path, template: str | None) -> None:
    """Render a message, if the template is given anything.

    Raises:
        SpecError: With the template's own error.
    """
    settings = spec.evaluation.chat.settings
    if settings == ChatSettings():
        return
    try:
        Chat(base, template=template, chat=settings).render("0")
    except EvaluationError as error:
        raise SpecError(str(error)) from error
