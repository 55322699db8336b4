"""From a spec to its inputs: blocks of layers are those that were measured for its study."""

import logging
from dataclasses import replace

from ..objectives.checkpoints import resolve_model
from ..objectives.evaluation.backends.chat import Chat
from ..objectives.importance import layer_effects
from ..objectives.merging import find_blocks
from .importance import prompts_of
from .spec.inputs import Resolve, StudyInputs
from .spec.study_spec import StudySpec
from .storage.connection import (
    NoStudyYetError,
    load_study,
    sqlite_path,
    wait_for_storage,
    wait_for_study,
)
from .storage.identity import FINGERPRINT

logger = logging.getLogger(__name__)

# Digits of an effect: no block may depend on the last bits of a sum.
_DIGITS = 6


def open_inputs(
    spec: StudySpec, resolve: Resolve = resolve_model, wait_seconds: float = 0.0
) -> StudyInputs:
    """Find and check everything a spec names; create nothing.

    Blocks that are learned are taken from the study, if it exists, so that all its workers agree.
    Else they are measured: the spec of what is returned names them.

    Args:
        spec: What was asked for.
        resolve: Finds a model's directory, given its name in the spec and the spec's folder.
        wait_seconds: How long to wait for the database, where blocks are learned.

    Raises:
        SpecError: At the first thing that is missing or does not fit.
        LayoutError: If a tensor is covered by no merge rule.
        StudyError: If blocks are learned, and it cannot be known whether the study has them.
    """
    if not _is_open(spec):
        return StudyInputs.of(spec, resolve)
    if sqlite_path(spec.study.storage) is None:
        wait_for_storage(spec.study.storage, wait_seconds)
    if (stored := _stored(spec)) is not None:
        return StudyInputs.of(with_blocks(spec, stored), resolve)
    measured = measured_blocks(StudyInputs.of(with_blocks(spec, (0,)), resolve))
    return replace(StudyInputs.of(with_blocks(spec, measured), resolve), has_measured=True)


def with_stored_blocks(inputs: StudyInputs) -> StudyInputs:
    """Return inputs with the blocks of their study, if these were measured elsewhere meanwhile."""
    stored = _stored(inputs.spec) if inputs.has_measured else None
    if stored in (None, inputs.plan.settings.blocks):
        return inputs
    logger.info("blocks are those of another process, which created the study first: %s", stored)
    return StudyInputs.of(with_blocks(inputs.spec, stored))


def worker_inputs(spec: StudySpec, wait_seconds: float = 0.0) -> StudyInputs:
    """Find and check what one more worker of a study needs; measure nothing.

    Blocks that are learned are the study's: its creator measures them, and workers that hold no
    GPU yet wait for it.

    Args:
        spec: Of the study.
        wait_seconds: How long to wait for the database and the study, where they are needed.

    Raises:
        SpecError: At the first thing that is missing or does not fit.
        StudyError: If blocks are learned, and there is no study at the end.
    """
    if _is_open(spec):
        wait_for_study(spec, wait_seconds, FINGERPRINT)
    return open_inputs(spec)


def planned_inputs(spec: StudySpec, resolve: Resolve) -> tuple[StudyInputs, bool]:
    """Return inputs without a look at weights, and whether their blocks are yet to be measured.

    Until then blocks are of equal length.

    Raises:
        SpecError: As `open_inputs` does; also if there are no questions to measure them with.
    """
    if not _is_open(spec):
        return StudyInputs.of(spec, resolve), False
    if (blocks := _stored(spec)) is not None:
        return StudyInputs.of(with_blocks(spec, blocks), resolve), False
    draft = StudyInputs.of(with_blocks(spec, (0,)), resolve)
    prompts_of(draft)
    layers = draft.plan.n_layers
    n = min(spec.merge.n_blocks, layers)
    even = tuple(block * layers // n for block in range(n))
    return StudyInputs.of(with_blocks(spec, even), resolve), True


def measured_blocks(inputs: StudyInputs) -> tuple[int, ...]:
    """Return the first layer of each block: those whose effects vary least within.

    The dynamic programme of `find_blocks` without balance (Fisher and Jenks), on `layer_effects`.

    Raises:
        SpecError: If no task has questions that no candidate is measured on.
    """
    parents = [inputs.base.directory, *(expert.directory for expert in inputs.experts)]
    chat = Chat.of(inputs.models)
    effects = layer_effects(parents, prompts_of(inputs), inputs.spec.models.dtype, chat=chat)
    rounded = [float(f"{effect:.{_DIGITS}g}") for effect in effects]
    return find_blocks(rounded, inputs.spec.merge.n_blocks, balance=0.0)


def with_blocks(spec: StudySpec, blocks: tuple[int, ...]) -> StudySpec:
    """Return a spec that names its blocks."""
    content = spec.model_dump(mode="json")
    content["merge"]["blocks"] = list(blocks)
    return StudySpec.parse(content, spec.folder)


def _is_open(spec: StudySpec) -> bool:
    """Whether a spec's blocks are still to be learned."""
    return spec.merge.granularity == "learned-blocks" and spec.merge.blocks is None


def _stored(spec: StudySpec) -> tuple[int, ...] | None:
    """Return the blocks of the spec's study; None if there is none yet."""
    try:
        known = load_study(spec).user_attrs[FINGERPRINT].get("merge.blocks")
    except NoStudyYetError:
        return None
    return None if known is None else tuple(known)
