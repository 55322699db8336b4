"""The importance of the search variables, as a spec asks for it."""

import json
from collections.abc import Mapping

import numpy as np

from ..errors import SpecError
from ..objectives import questions_of
from ..objectives.evaluation.backends.chat import Chat
from ..objectives.evaluation.tasks.lines import each_once
from ..objectives.importance import activation_distances, combine, rescale, task_vector_norms
from .spec.inputs import StudyInputs

_BATCH_SIZE = 8


def signals_of(inputs: StudyInputs) -> dict[str, dict[str, float]]:
    """Return the raw signals that the spec's importance is made of, by their names.

    Raises:
        SpecError: If activations are asked for and no task has questions for them.
    """
    asked = inputs.spec.importance
    signals = {}
    if asked.kind in ("parameter", "both"):
        signals["parameter"] = task_vector_norms(
            inputs.base, inputs.experts, inputs.plan, asked.norm, asked.tensors
        )
    if asked.kind in ("activation", "both"):
        signals["activation"] = activation_distances(
            [inputs.base.directory, *(expert.directory for expert in inputs.experts)],
            inputs.plan,
            prompts_of(inputs),
            inputs.spec.models.dtype,
            asked.pooling,
            _BATCH_SIZE,
            Chat.of(inputs.models),
        )
    return signals


def compute_importance(
    inputs: StudyInputs, signals: Mapping[str, Mapping[str, float]] | None = None
) -> dict[str, float] | None:
    """Return the importance of every parameter, in [0, 1], or None.

    Args:
        inputs: A valid spec with its models and tasks.
        signals: Defaults to None: they are computed.

    Raises:
        SpecError: If it needs questions or a file that are not there.
    """
    asked = inputs.spec.importance
    if asked.kind == "none":
        return None
    if asked.kind == "file":
        importance = _from_file(inputs)
    else:
        raw = list((signals or signals_of(inputs)).values())
        importance = rescale(raw[0]) if asked.kind == "parameter" else combine(raw)
    return _permuted(importance, inputs.spec.study.seed) if asked.permuted else importance


def check_importance(inputs: StudyInputs) -> None:
    """Check that what an importance is computed from is there.

    Raises:
        SpecError: If it needs questions or a file that are not there.
    """
    kind = inputs.spec.importance.kind
    if kind == "file":
        _from_file(inputs)
    elif kind in ("activation", "both"):
        prompts_of(inputs)


def _permuted(importance: Mapping[str, float], seed: int) -> dict[str, float]:
    """Return the same values at random parameters: what an importance is worth that is wrong."""
    order = np.random.default_rng([41, seed]).permutation(len(importance))
    values = list(importance.values())
    return {name: values[i] for name, i in zip(importance, order, strict=True)}


def prompts_of(inputs: StudyInputs) -> list[tuple[str, bool]]:
    """Return messages of the split `importance`, each with whether it is a chat's.

    Texts that are read are no messages.

    Raises:
        SpecError: If no task has any.
    """
    found = questions_of(inputs.tasks, "importance")
    asked = [q for q in found if not q.question.is_text]  # a text may be far longer than a prompt
    if not asked:
        kind = inputs.spec.importance.kind
        learned = inputs.spec.merge.granularity == "learned-blocks"
        asking = "merge.granularity 'learned-blocks'" if learned else f"importance.kind {kind!r}"
        instead = "granularity 'blocks'" if learned else "kind 'parameter'"
        raise SpecError(
            f"{asking} needs questions that no candidate is measured on: give a task a split "
            f"'importance', or use {instead}."
        )
    return [(q.question.prompt, q.sampling.chat if q.sampling else True) for q in asked]


def _from_file(inputs: StudyInputs) -> dict[str, float]:
    path = inputs.spec.folder / str(inputs.spec.importance.path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=each_once)
    except (OSError, ValueError, RecursionError) as error:
        raise SpecError(
            f"importance.path must be a readable JSON file, every key in it once, but {path}: "
            f"{error}. Correct the file, or its path."
        ) from error
    known = inputs.plan.parameter_names
    if not isinstance(content, dict) or not set(content) <= set(known):
        wrong = sorted(set(content) - set(known)) if isinstance(content, dict) else content
        raise SpecError(
            f"{path} must map search variables ({', '.join(known)}) to numbers, but holds "
            f"{wrong!r:.60}."
        )
    for name, value in content.items():
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise SpecError(f"Importance must be within [0, 1], but {path} has {name}: {value!r}.")
    return {name: float(value) for name, value in content.items()}
