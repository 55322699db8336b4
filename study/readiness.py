"""What a run would stop at, found before anything is created: prompts, lengths, operators."""

import math
import re
import sys
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from ..errors import EvaluationError, SpecError
from ..objectives import questions_of
from ..objectives.checkpoints import LoraCheckpoint
from ..objectives.checkpoints.adapters.settings import read_settings
from ..objectives.checkpoints.configs import POSITIONS, positions, stop_tokens
from ..objectives.checkpoints.hub import public_name
from ..objectives.checkpoints.identity import is_same_model
from ..objectives.checkpoints.tensors import PaddedCheckpoint, embeddings_name
from ..objectives.checkpoints.tokenizers import has_tokenizer, load_tokenizer, rules_of
from ..objectives.evaluation import SPLITS, Sampling
from ..objectives.evaluation.backends.chat import Chat, check_length
from ..objectives.evaluation.backends.likelihood import opening_token, text_windows, windows
from ..objectives.evaluation.backends.vllm_memory import longest_read
from ..objectives.evaluation.metric_table import split_name
from ..objectives.evaluation.scored_question import ScoredQuestion
from .first_trials import first_trials
from .spec.base import near_hint
from .spec.inputs import StudyInputs

_TRIAL = re.compile(r"trial \d+")
# From fewer texts an error is as uncertain as the value: one text's is as large as its value.
_TEXTS_TO_SCREEN = 5


def check_ready(inputs: StudyInputs) -> None:
    """Check that a study's models can be asked its questions and merged by its operator.

    Raises:
        SpecError: If an expert is the base, the chat template fails, an operator does not fit, a
            criterion names a model that there is not, no model can keep to a constraint, `memory`
            is an objective and the same for all candidates, a budget of tokens would never be
            used, there are too few texts to screen by, the embeddings have no row for a token, or
            vLLM would cut a compared text.
        EvaluationError: If a prompt and its answer do not fit the model's positions, or texts are
            read and no token opens them.
    """
    # One of several may be the base: SimMerge merges a model with its own ancestor.
    if all(is_same_model(inputs.base, expert) for expert in inputs.experts):
        raise SpecError(
            f"An expert must differ from the base, but {inputs.experts[0].directory} holds the "
            f"very weights of {inputs.base.directory}: all merges would be one model. Correct "
            "`models.experts`."
        )
    _check_criteria(inputs)
    _check_sizes(inputs)
    _check_limits(inputs)
    _check_size_limits(inputs)
    _check_tokens(inputs)
    _check_screen(inputs)
    _check_prompts(inputs)
    _check_known(inputs)
    _check_pairs(inputs)


def same_weights(inputs: StudyInputs) -> list[str]:
    """Return which models hold the weights of one before them: one line each.

    Nothing is wrong with a base among several experts, but it may be a slip, and two experts that
    are one search its weights twice.
    """
    models, found, known = (inputs.base, *inputs.experts), list[str](), set[int]()
    for (i, one), (k, other) in combinations(enumerate(models), 2):
        if k not in known and is_same_model(one, other):
            known.add(k)
            names = f"experts {i} and {k}" if i else f"the base and expert {k}"
            found.append(
                f"{names} hold the same weights: {one.directory} and {other.directory}. Correct "
                "`models.experts`, or leave one out"
            )
    return found


def _check_criteria(inputs: StudyInputs) -> None:
    """Check that criteria compare with models that the study will have.

    Raises:
        SpecError: At the first label that no model has.
    """
    trials = first_trials(inputs.spec, inputs.plan)
    labels = [str(trial.user_attrs["label"]) for trial in trials]
    for aim in inputs.spec.aims:
        label = aim.metric[1] if aim.metric else labels[0]
        if label not in labels and not _TRIAL.fullmatch(label):
            raise SpecError(
                f"A criterion must name a model that is measured ({', '.join(labels)}, or 'trial "
                f"N'), but {aim.text!r} names {label!r}{near_hint(label, labels)}"
            )


def _check_sizes(inputs: StudyInputs) -> None:
    """Check that models differ in what they take, where that is minimized.

    Raises:
        SpecError: If no precision makes a difference.
    """
    if "memory" not in {split_name(name)[0] for name in inputs.spec.metric_names}:
        return
    sizes = {*inputs.recipe.sizes.values()}
    if len(sizes) == 1:
        raise SpecError(
            f"`memory` must differ between candidates, but each takes {sizes.pop()} bytes. Search "
            "the precision (`merge.precision: {choose: [int8, int4]}`), or remove the objective."
        )


def _check_limits(inputs: StudyInputs) -> None:
    """Check that there can be a model that keeps to all limits.

    Raises:
        SpecError: At the first that none can keep to, alone or beside another.
    """
    for limit in inputs.spec.limits:
        least, largest = limit.objective.range
        if limit.bound < least if limit.sign > 0 else limit.bound > largest:
            raise SpecError(
                f"`constraints` must leave some models, but `{limit.objective.name}` is between "
                f"{least:g} and {largest:g}, and none keeps to `{limit.name}`. Change the number."
            )
    for one, other in combinations(inputs.spec.limits, 2):
        both = {limit.sign: limit.bound for limit in (one, other)}
        if one.objective.name == other.objective.name and both.get(-1, 0) > both.get(1, math.inf):
            raise SpecError(
                f"`constraints` must leave some models, but none keeps to both `{one.name}` and "
                f"`{other.name}`. Change one."
            )


def _check_size_limits(inputs: StudyInputs) -> None:
    """Check that some candidate keeps to the limits of what models take.

    Raises:
        SpecError: At the first limit to which none does.
    """
    for limit in inputs.spec.limits:
        if limit.objective.metric.name != "memory":
            continue
        which, best = ("smallest", min) if limit.sign > 0 else ("largest", max)
        size = best(inputs.recipe.sizes.values())
        if limit.sign * (size - limit.bound) > 0:
            raise SpecError(
                f"A candidate must be able to keep to `{limit.name}`, but the {which} takes "
                f"{size} bytes. Change the limit, or the precisions (`merge.precision`)."
            )


def _check_tokens(inputs: StudyInputs) -> None:
    """Check that a budget of tokens ends the study.

    Raises:
        SpecError: If no task generates.
    """
    tokens = inputs.spec.ends.tokens
    if tokens is not None and all(task.kind != "generated" for task in inputs.tasks):
        raise SpecError(
            f"A budget of {tokens:g} tokens needs a task that generates, but nothing is generated "
            f"for {', '.join(repr(task.name) for task in inputs.tasks)}, and the study would "
            "never end. Write `study.trials` or `budget: {gpu_hours: N}` instead."
        )


def _check_screen(inputs: StudyInputs) -> None:
    """Check that errors of constraints on texts are small enough to screen by.

    Raises:
        SpecError: At the first task of such a constraint that has too few texts.
    """
    limits = [c.objective for c in inputs.spec.limits if c.objective.metric.kinds == ("read",)]
    for task in inputs.tasks if inputs.spec.evaluation.screen else ():
        names = {q.cluster or q.id for q in task.splits.get("search", ())}
        judged = task.kind == "read" and any(c.task in (None, task.name) for c in limits)
        if judged and len(names) < _TEXTS_TO_SCREEN:
            raise SpecError(
                f"`evaluation.screen` needs {_TEXTS_TO_SCREEN} texts or clusters of them in the "
                f"split 'search' of a constraint's task, but {task.name!r} has {len(names)}. Add "
                "texts (an empty line ends one), or remove `screen`."
            )


def _check_prompts(inputs: StudyInputs) -> None:
    chat = Chat.of(inputs.models)
    limit = _limit(inputs)
    default = inputs.sampling
    if any(task.kind != "generated" for task in inputs.tasks):
        opening_token(chat.tokenizer)
    for split in SPLITS:
        for asked in questions_of(inputs.tasks, split):
            if asked.kind != "generated":
                continue  # likelihoods: texts and contexts are cut to fit, and may be empty
            sampling = asked.sampling or default
            length = len(chat.render(asked.question.prompt, sampling.chat))
            if limit is not None:
                check_length(length, sampling.max_new_tokens, limit)
            if length == 0:
                raise EvaluationError(
                    f"A prompt must have tokens, but that of question {asked.question.id!r} has "
                    "none. Correct the question or the chat template."
                )


def _check_known(inputs: StudyInputs) -> None:
    """Check that the embeddings have a row for every token that is read.

    Raises:
        SpecError: At the first question with one that has none.
    """
    chat, own = Chat.of(inputs.models), embeddings_name(inputs.base.layout)
    rows = sys.maxsize if own is None else inputs.base.tensor(own).shape[0]
    if max(chat.tokenizer.get_vocab().values(), default=0) < rows:
        return  # true of nearly all models: nothing is tokenized for it
    for asked in (q for split in SPLITS for q in questions_of(inputs.tasks, split)):
        last = max(_token_ids(chat, asked, asked.sampling or inputs.sampling), default=0)
        if last >= rows:
            token = chat.tokenizer.convert_ids_to_tokens(last)
            raise SpecError(
                f"A token must have a row of the embeddings, but question {asked.question.id!r} "
                f"has {token!r}, number {last}, and {inputs.base.directory} has {rows} rows. "
                "Correct the question or the chat template, or give models with a row for it."
            )


def _token_ids(chat: Chat, asked: ScoredQuestion, sampling: Sampling) -> list[int]:
    question = asked.question
    if asked.kind == "generated":
        return chat.render(question.prompt, sampling.chat)
    if asked.kind == "read":
        read = text_windows(chat.tokenizer, [question.prompt], sys.maxsize)
    else:
        read = windows(chat.tokenizer, question.pairs, sys.maxsize)
    return [number for window in read for number in window.ids]


def _check_pairs(inputs: StudyInputs) -> None:
    """Check that vLLM reads what is compared as far as the model does.

    Raises:
        SpecError: At the first question of which `max_model_len` would cut a text.
    """
    evaluation = inputs.spec.evaluation
    chosen = evaluation.engine.max_model_len if evaluation.backend == "vllm" else None
    own = positions(inputs.base.directory) or sys.maxsize
    if chosen is None or chosen >= own:
        return
    tokenizer = Chat.of(inputs.models).tokenizer
    for asked in (q for split in SPLITS for q in questions_of(inputs.tasks, split)):
        read = windows(tokenizer, asked.question.pairs, longest_read(own))
        length = max((len(window.ids) for window in read), default=0)
        if length > longest_read(chosen) + 1:
            needed = min(own, length - 1 + own - longest_read(own))
            raise SpecError(
                f"Texts whose likelihoods are compared must not be cut, but that of question "
                f"{asked.question.id!r} has {length} tokens and evaluation.engine.max_model_len "
                f"is {chosen}. Set it to {needed} or more, or remove it."
            )


def _limit(inputs: StudyInputs) -> int | None:
    """Return how many tokens a prompt and its answer may have."""
    known = positions(inputs.base.directory)
    evaluation = inputs.spec.evaluation
    chosen = evaluation.engine.max_model_len if evaluation.backend == "vllm" else None
    return min((n for n in (known, chosen) if n is not None), default=None)


def differences(inputs: StudyInputs) -> list[str]:
    """Return what parents differ in besides weights, and whose rules count: one line each."""
    parents = {"base": inputs.base}
    many = len(inputs.experts) > 1
    parents |= {f"expert@{k}" if many else "expert": e for k, e in enumerate(inputs.experts, 1)}
    of_files = {k: p for k, p in parents.items() if not isinstance(p, LoraCheckpoint)}
    found = []
    stops = {name: sorted(stop_tokens(parent.directory)) for name, parent in of_files.items()}
    if len({tuple(ids) for ids in stops.values()}) > 1:
        used = ", ".join(map(str, inputs.stop_tokens))
        found.append(f"stop tokens: {_each(stops)}; used: {used} (models.stop_tokens)")
    found += _of_tokenizers(
        [load_tokenizer(p.directory) for p in parents.values() if has_tokenizer(p.directory)],
        inputs,
    )
    for name, parent in parents.items():
        if isinstance(parent, LoraCheckpoint):
            found += _of_adapter(name, parent, inputs)
    lengths = {name: positions(parent.directory) for name, parent in of_files.items()}
    if len(set(lengths.values())) > 1:
        found.append(f"{POSITIONS}: {_each(lengths)}; used: the base's")
    return found + [
        f"embedding rows: {expert.rows} (base), {expert.own_rows} ({name}); used: the base's, no "
        f"token has the others"
        for name, expert in of_files.items()
        if isinstance(expert, PaddedCheckpoint)
    ]


def _of_adapter(name: str, adapter: LoraCheckpoint, inputs: StudyInputs) -> list[str]:
    """Return what an adapter brings along or expects, and does not get."""
    found, base = [], inputs.base.directory
    ours = {base.name, inputs.spec.models.base, public_name(base) or ""}
    known = {re.split(r"[@:]", each.rstrip("/").split("/")[-1])[0].lower() for each in ours}
    trained = read_settings(adapter.directory).get("base_model_name_or_path")
    if trained and trained.rstrip("/").split("/")[-1].lower() not in known:
        found.append(f"trained on: {trained} ({name}, an adapter); added to: the base")
    if has_tokenizer(adapter.directory):
        both = [load_tokenizer(d).get_vocab().items() for d in (base, adapter.directory)]
        if tokens := sorted({token for token, _ in both[0] ^ both[1]}):
            more = f", ... ({len(tokens)})" if len(tokens) > 1 else ""
            found.append(f"vocabulary: {tokens[0]!r}{more} ({name}, an adapter); used: the base's")
    return found


def _each(values: dict[str, object] | dict[str, list[int]] | dict[str, int | None]) -> str:
    return ", ".join(f"{value} ({name})" for name, value in values.items())


def _of_tokenizers(tokenizers: Sequence[Any], inputs: StudyInputs) -> list[str]:
    """Return what tokenizers differ in: rules, special tokens, and templates of chats."""
    found = []
    rules = [rules_of(tokenizer) for tokenizer in tokenizers]
    differing = [name for name in rules[0] if len({one.get(name) for one in rules}) > 1]
    if differing:
        found.append(f"tokenizers differ in {', '.join(differing)}; used: the base's")
    special = [tokenizer.special_tokens_map for tokenizer in tokenizers]
    roles = sorted({role for one in special for role in one})
    if other := [r for r in roles if len({str(one.get(r)) for one in special}) > 1]:
        found.append(f"special tokens differ in {', '.join(other)}; used: the base's")
    if len({str(tokenizer.chat_template) for tokenizer in tokenizers}) > 1:
        chosen = inputs.spec.models.chat_template
        found.append(f"chat templates differ; used: {chosen} (models.chat_template)")
    return found
