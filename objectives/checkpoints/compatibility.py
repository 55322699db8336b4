"""Refuse experts that cannot be merged into the base, naming what differs."""

from collections.abc import Sequence

from ...errors import SpecError
from .configs import check_same_forward
from .lora import LoraCheckpoint
from .reader import Checkpoint
from .tensors import PaddedCheckpoint, tensor_table
from .tokenizers import load_tokenizer


def check_mergeable(base: Checkpoint, experts: Sequence[Checkpoint]) -> None:
    """Check configuration, tensors and vocabulary of every expert against the base.

    Raises:
        SpecError: At the first difference, with both values.
    """
    base.shapes()  # every header is read: what is broken is said before anything else
    check_not_quantized(base)
    check_floating(base)
    for expert in experts:
        if isinstance(expert, LoraCheckpoint):
            continue  # checked against the base when it was opened
        padded = isinstance(expert, PaddedCheckpoint)
        check_same_forward(base.directory, expert.directory, fitted=padded)
        check_not_quantized(expert)
        check_tensors(base, expert)
        check_floating(expert)
        _check_vocabulary(base, expert)


def check_not_quantized(checkpoint: Checkpoint) -> None:
    """Refuse a model that says it is quantized: an average of packed integers means nothing.

    Raises:
        SpecError: With the method.
    """
    config = checkpoint.config
    for section in (config, config.get("text_config") or {}):
        if (method := section.get("quantization_config")) is not None:
            how = method.get("quant_method", "unknown") if isinstance(method, dict) else method
            raise SpecError(
                f"Quantized weights cannot be merged, but {checkpoint.directory} is quantized "
                f"({how}). Dequantize it first: load it with transformers' option for that, and "
                "save it in bfloat16."
            )


def check_floating(checkpoint: Checkpoint) -> None:
    """Refuse integers where the model has numbers.

    Raises:
        SpecError: With the first such tensor.
    """
    table = tensor_table(checkpoint)
    for name in table.merged:
        row = table.rows[name]
        if not row.stored.is_floating_point and (row.kept is None or row.kept.is_floating_point):
            raise SpecError(
                f"Weights must be stored as floating-point numbers, but {name!r} is {row.stored} "
                f"in {checkpoint.directory}: it is quantized. Dequantize the checkpoint first."
            )


def check_tensors(base: Checkpoint, expert: Checkpoint) -> None:
    """Compare what the two models run; copies of the embeddings and unused tensors may differ."""
    ours = tensor_table(base)
    lacking = {name for name in ours.merged if ours.source(expert, name) is None}
    if lacking:
        raise _other_tensors(base, expert, lacking, {*expert.layout} - {*base.layout})
    theirs = tensor_table(expert)
    more = {*theirs.merged} - {*base.layout}
    if surplus := {name for name in more if not (ours.tied and theirs.is_copy(name))}:
        raise _other_tensors(base, expert, set(), surplus)
    if ours.tied and not theirs.tied and not all(map(theirs.is_copy, theirs.heads)):
        raise SpecError(
            f"Base and expert must tie their output matrix to the embeddings, or neither, but "
            f"{base.directory} does and {expert.directory} has another. Untie the base: save it "
            "with tie_word_embeddings=False and a copy of the embeddings as lm_head.weight."
        )
    for name in ours.merged:
        shape, other = base.tensor(name).shape, ours.source(expert, name)
        if other is not None and shape != other.shape:
            raise SpecError(
                f"An expert must have the base's tensor shapes, but {name} is {tuple(shape)} in "
                f"{base.directory} and {tuple(other.shape)} in {expert.directory}."
            )


def _other_tensors(
    base: Checkpoint, expert: Checkpoint, lacking: set[str], surplus: set[str]
) -> SpecError:
    return SpecError(
        "An expert must have the base's tensors, but "
        f"{_some(lacking)} only in {base.directory} and {_some(surplus)} only in "
        f"{expert.directory}. Save both with the same version of transformers."
    )


def _check_vocabulary(base: Checkpoint, expert: Checkpoint) -> None:
    ours, theirs = (load_tokenizer(c.directory).get_vocab() for c in (base, expert))
    differing = {
        token for token in ours.keys() | theirs.keys() if ours.get(token) != theirs.get(token)
    }
    if differing:
        raise SpecError(
            f"An expert must have the base's vocabulary, but the tokenizers differ in "
            f"{len(differing)} token(s): {_some(differing)} ({base.directory}, "
            f"{expert.directory}). Align them first, e.g. with mergekit-tokensurgeon."
        )
    if isinstance(expert, PaddedCheckpoint):
        _check_padding(base, expert, max(ours.values(), default=-1))


def _check_padding(base: Checkpoint, expert: PaddedCheckpoint, last: int) -> None:
    """Refuse embeddings of different sizes where a token has one of the rows."""
    if last >= min(expert.rows, expert.own_rows):
        raise SpecError(
            f"Embeddings may differ in rows that no token has, but {base.directory} has "
            f"{expert.rows} rows, {expert.directory} {expert.own_rows}, and the tokenizer's last "
            f"token is number {last}. Choose models fine-tuned from one ancestor."
        )


def _some(names: set[str], limit: int = 3) -> str:
    shown = ", ".join(repr(name) for name in sorted(names)[:limit])
    return (shown or "none") + (f", ... ({len(names)})" if len(names) > limit else "")
