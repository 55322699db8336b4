"""One table of a model's tensors: what its files hold, and what loading makes of it.

Everything that touches weights walks this table: merges in place, tensors for vLLM, exported
files, mergekit's configuration. What a file holds and nobody reads, and what a model needs and no
file gives, is an error with its name. Made from headers and the configuration alone; only a copy
of the embeddings is read, to see whether it is one.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from ....errors import SpecError
from ..reader import Checkpoint
from ..tensor_files import FileTensor
from .links import Link, links_of
from .skeleton import skeleton

Kind = Literal["parameter", "buffer", "unused"]
# Output matrices that may be a copy of the embeddings, and the embeddings.
_HEADS = re.compile(r"(?:^|\.)(?:lm_head|embed_out)\.weight$")
_EMBEDDINGS = re.compile(
    r"(?:^|\.)(?:embed_tokens|word_embeddings|wte|embed_in|embeddings)\.weight$"
)
_PART = 1 << 22


class Readable(Protocol):
    """A tensor in a file, perhaps with an adapter added."""

    @property
    def shape(self) -> torch.Size:
        """Its shape."""

    @property
    def dtype(self) -> torch.dtype:
        """As stored."""

    def numel(self) -> int:
        """Number of elements."""

    def stored(self, start: int, stop: int) -> Tensor:
        """Return a part of the flattened tensor."""


@dataclass(frozen=True)
class TensorRow:
    """One tensor of the files.

    Args:
        name: In the files.
        live: Its names in the live model: one, or several that it is split into, or none.
        kind: A parameter, a persistent buffer, or unused: left out by transformers.
        stored: Its precision in the base's files.
        kept: The precision that the model class gives it whatever the study's; None for most.
        fused_from: All tensors that loading puts together with it; itself alone for most.
    """

    name: str
    live: tuple[str, ...]
    kind: Kind
    stored: torch.dtype
    kept: torch.dtype | None
    fused_from: tuple[str, ...]


class TensorTable:
    """All tensors of one architecture.

    Args:
        checkpoint: Whose files are read.
        model: The model without numbers; None where transformers lacks the family.

    Raises:
        SpecError: If a tensor of the files has no use, or one of the model no source.
    """

    def __init__(self, checkpoint: Checkpoint, model: Any) -> None:
        self._names = list(checkpoint.layout)
        self._checkpoint, self.model = checkpoint, model
        if model is None:
            self.links = [Link((name,), (name,)) for name in self._names]
            self.tied = _looks_tied(checkpoint)
            return
        self.links, unused = links_of(model, self._names)
        _check_unused(checkpoint, model, unused)
        self.tied = _ties(checkpoint, model, {t for link in self.links for t in link.targets})
        _check_complete(checkpoint, model, self.links)

    @cached_property
    def rows(self) -> dict[str, TensorRow]:
        """By name in the files, in their order."""
        of_source = {name: link for link in self.links for name in link.sources}
        live = {} if self.model is None else self.model.state_dict()
        buffers = set() if self.model is None else {n for n, _ in self.model.named_buffers()}
        return {name: self._row(name, of_source.get(name), live, buffers) for name in self._names}

    def _row(
        self, name: str, link: Link | None, live: Mapping[str, Tensor], buffers: set[str]
    ) -> TensorRow:
        stored = self._checkpoint.tensor(name).dtype
        if link is None:
            return TensorRow(name, (), "unused", stored, None, (name,))
        kind: Kind = "buffer" if link.targets[0] in buffers else "parameter"
        own = live[link.targets[0]].dtype if live else torch.bfloat16
        kept = None if own == torch.bfloat16 else own
        return TensorRow(name, link.targets, kind, stored, kept, link.sources)

    @property
    def merged(self) -> list[str]:
        """Names of the tensors that the running model has, in the order of the files."""
        used = {name for link in self.links for name in link.sources}
        return [name for name in self._names if name in used]

    @property
    def ties(self) -> dict[str, str]:
        """Live names of one tensor: the second is kept under the first as well."""
        return {} if self.model is None else dict(self.model.all_tied_weights_keys)

    @property
    def heads(self) -> list[str]:
        """Names of the output matrix in the files: one, or none."""
        return [name for name in self._names if _HEADS.search(name)]

    def is_copy(self, name: str) -> bool:
        """Whether a tensor is an output matrix that equals the embeddings."""
        return bool(_HEADS.search(name)) and _is_copy(self._checkpoint)

    @property
    def file_names(self) -> dict[str, str]:
        """Live name -> name in the files, of tensors that loading leaves as they are."""
        return {x.targets[0]: x.sources[0] for x in self.links if x.transform is None}

    @property
    def converted(self) -> set[str]:
        """Live names of the tensors that are not in the files as they are run."""
        return {t for link in self.links if link.transform is not None for t in link.targets}

    def dtype_of(self, name: str, dtype: torch.dtype) -> torch.dtype:
        """Return the precision in which a tensor is run, and written.

        Args:
            name: In the files.
            dtype: The study's.
        """
        row = self.rows[name]
        if not row.stored.is_floating_point or row.kind == "unused":
            return row.stored
        if row.kept is not None:
            return row.kept
        plan = {} if self.model is None else self.model._get_dtype_plan(dtype)
        return next((plan[p] for p in plan if any(_has(p, n) for n in row.live)), dtype)

    def source(self, checkpoint: Checkpoint, name: str) -> FileTensor | None:
        """Return a tensor of a parent; None for one that it does not hold.

        A parent without a copy of its embeddings gives the embeddings themselves.

        Args:
            checkpoint: Any parent.
            name: In the base's files.
        """
        if name in checkpoint.layout:
            return checkpoint.tensor(name)
        if _HEADS.search(name) and (own := embeddings_name(checkpoint.layout)) is not None:
            return checkpoint.tensor(own)
        return None


def _has(pattern: str, name: str) -> bool:
    """Whether a name holds a module of a class's list, in transformers' notation."""
    return re.search(pattern.replace("*", ".*"), name) is not None


def tensor_table(checkpoint: Checkpoint) -> TensorTable:
    """Return the table of a checkpoint, made once.

    Raises:
        SpecError: If a tensor of the files has no use, or one of the model no source.
    """
    if checkpoint.table is None:
        checkpoint.table = TensorTable(checkpoint, skeleton(checkpoint.directory))
    table: TensorTable = checkpoint.table
    return table


def is_tied(checkpoint: Checkpoint) -> bool:
    """Whether the output matrix is the embeddings, in the model that transformers runs."""
    return tensor_table(checkpoint).tied


def embeddings_name(names: Iterable[str]) -> str | None:
    """Return the name of the input embeddings."""
    return next((name for name in names if _EMBEDDINGS.search(name)), None)


def _looks_tied(checkpoint: Checkpoint) -> bool:
    """Whether the head is the embeddings in a family that transformers lacks."""
    text = checkpoint.config.get("text_config", checkpoint.config)
    heads = any(_HEADS.search(name) for name in checkpoint.layout)
    return not heads or bool(text.get("tie_word_embeddings"))


def _check_unused(checkpoint: Checkpoint, model: Any, unused: list[str]) -> None:
    """Refuse tensors that nobody reads, but those that the family leaves out on purpose."""
    allowed = {*(model._keys_to_ignore_on_load_unexpected or ()), r"rotary_emb\.inv_freq$"}
    allowed.add(r"(^|\.)position_ids$")
    for name in unused:
        if not any(re.search(pattern, name) for pattern in allowed):
            raise _no_use(checkpoint, model, name)


def _no_use(checkpoint: Checkpoint, model: Any, name: str) -> SpecError:
    from transformers import __version__

    return SpecError(
        f"Every tensor must be part of the model that is run, but {name!r} of "
        f"{checkpoint.directory} is not: {type(model).__name__} of transformers {__version__} "
        "has no place for it. Give a checkpoint without it, or a transformers that reads it."
    )


def _ties(checkpoint: Checkpoint, model: Any, given: set[str]) -> bool:
    """Whether the head is the embeddings; unties the model if its copies differ."""
    head = next((name for name in model.all_tied_weights_keys if _HEADS.search(name)), None)
    if head is None:
        return False
    source = model.all_tied_weights_keys[head]
    if head in given and source in given and not _is_copy(checkpoint):
        model.all_tied_weights_keys.pop(head)
        return False
    return True


def is_head(name: str) -> bool:
    """Whether a tensor is called as output matrices are."""
    return _HEADS.search(name) is not None


def _is_copy(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint's output matrix equals its embeddings."""
    head = next(name for name in checkpoint.layout if _HEADS.search(name))
    own = embeddings_name(checkpoint.layout)
    return own is None or same(checkpoint.tensor(head), checkpoint.tensor(own))


def same(one: Readable, other: Readable) -> bool:
    """Whether two tensors of files hold the same numbers; read in parts."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    n = one.numel()
    ranges = ((i, min(i + _PART, n)) for i in range(0, n, _PART))
    return all(torch.equal(one.stored(*r), other.stored(*r)) for r in ranges)


def _check_complete(checkpoint: Checkpoint, model: Any, links: list[Link]) -> None:
    """Refuse files that lack a parameter of the model."""
    given = {name for link in links for name in link.targets}
    for target, source in model.all_tied_weights_keys.items():
        if target in given or source in given:
            given |= {target, source}
    allowed = model._keys_to_ignore_on_load_missing or ()
    # Buffers that no file holds are constants, which the model computes.
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for name in sorted(parameters - given):
        if not any(re.search(pattern, name) for pattern in allowed):
            raise SpecError(
                f"A checkpoint must hold the whole model, but {checkpoint.directory} has nothing "
                f"for {name!r} of {type(model).__name__}: it would be filled at random. Fetch its "
                "files again, or correct config.json."
            )
