"""What an adapter's configuration promises: its file must hold a part for each module named."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from ....errors import SpecError
from ..reader import Checkpoint
from ..tensors import TensorTable, is_head, tensor_table
from ..tensors.table import TensorRow
from .settings import CONFIG, read_tensors

PREFIX = "base_model.model."
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
# Text models were often trained without these, and PEFT then had no such modules.
_TOWERS = re.compile(r"(?:^|[._])(?:vision|visual|audio|image|tower|projector|connector|mtp)")


@dataclass(frozen=True)
class _Matrix:
    """A matrix of the base that an adapter may change.

    Args:
        weight: Its name in the files.
        modules: The names of its module, in the files and in the live model.
        is_sure: Whether PEFT finds that module; not if experts are fused in the live model.
    """

    weight: str
    modules: tuple[str, ...]
    is_sure: bool

    @property
    def kind(self) -> str:
        """Its name, the same in all layers."""
        return _NUMBER.sub("*", self.weight)


def check_promises(
    directory: Path, settings: Mapping[str, Any], base: Checkpoint, changed: Collection[str]
) -> None:
    """Check that an adapter changes what its configuration names: PEFT fills up what is missing.

    Args:
        directory: The adapter's.
        settings: The adapter's.
        base: What it is added to.
        changed: Names in the base's files of the tensors that it changes.

    Raises:
        SpecError: At the first module that it should change and does not.
    """
    table = tensor_table(base)
    _check_saved(directory, settings.get("modules_to_save") or (), table, changed)
    matrices = [_matrix(row, table) for row in table.rows.values() if _is_matrix(row, base)]
    held = {matrix.kind for matrix in matrices if matrix.weight in changed}
    for matrix in matrices:
        is_due = matrix.is_sure or matrix.kind in held
        if is_due and matrix.weight not in changed and _is_target(matrix, directory, settings):
            raise _lacks(directory, "target_modules", matrix.weight)


def _lacks(directory: Path, key: str, name: str) -> SpecError:
    return SpecError(
        f"An adapter's file must hold what its configuration names, but {directory} has nothing "
        f"for {name!r} of the base, which {key!r} of its {CONFIG} names. Save the adapter again, "
        "or correct the configuration."
    )


def _check_saved(
    directory: Path, saved: Collection[str], table: TensorTable, changed: Collection[str]
) -> None:
    """Check modules that were trained whole. Of names that the base lacks PEFT takes no notice."""
    names = [name.removeprefix(PREFIX) for name in read_tensors(directory)]
    held = {*changed, *(name.replace(".modules_to_save.", ".") for name in names)}
    due = {row.name: row.live for row in table.rows.values() if row.kind == "parameter"}
    due |= {live: (live,) for live in table.ties}
    for name, live in due.items():
        parts = [f".{each}" for each in (name, *live) if not _TOWERS.search(each)]
        if name not in held and any(f".{s}." in part for s in saved for part in parts):
            raise _lacks(directory, "modules_to_save", name)


def _is_matrix(row: TensorRow, base: Checkpoint) -> bool:
    is_weight = row.kind == "parameter" and row.name.endswith(".weight")
    return is_weight and len(base.tensor(row.name).shape) == 2


def _matrix(row: TensorRow, table: TensorTable) -> _Matrix:
    modules = tuple(n.removesuffix(".weight") for n in (row.name, *row.live))
    live = modules[-1]
    if table.model is None:
        is_sure = ".experts." not in live
    else:
        is_plain = len(row.live) == 1 and row.live[0] not in table.converted
        kinds = (nn.Linear, nn.Embedding)
        is_sure = is_plain and isinstance(table.model.get_submodule(live), kinds)
    return _Matrix(row.name, modules, is_sure and not _TOWERS.search(live))


def _is_target(matrix: _Matrix, directory: Path, settings: Mapping[str, Any]) -> bool:
    """Whether PEFT would give a matrix an adapter; by any of its names."""
    targets, excluded = settings.get("target_modules"), settings.get("exclude_modules")
    if any(_matches(name, excluded, directory) for name in matrix.modules):
        return False
    if targets == "all-linear":
        return not is_head(matrix.weight) and "embed" not in matrix.weight
    if isinstance(targets, str):
        return any(_matches(name, targets, directory) for name in matrix.modules)
    in_layers = partial(_in_layers, settings=settings)
    return any(
        name in (targets or ()) or (_matches(name, targets, directory) and in_layers(name))
        for name in matrix.modules
    )


def _matches(module: str, pattern: str | list[str] | None, directory: Path) -> bool:
    """Whether a module has one of some last parts, or all of its name fits an expression."""
    if not isinstance(pattern, str):
        return any(module == part or module.endswith(f".{part}") for part in pattern or ())
    try:
        return re.fullmatch(pattern, module) is not None
    except re.error as error:
        raise SpecError(
            f"An adapter's modules must be a list or a regular expression, but {directory} has "
            f"{pattern!r} ({error}). Correct its {CONFIG}."
        ) from None


def _in_layers(module: str, settings: Mapping[str, Any]) -> bool:
    """Whether a module is in one of the layers that were trained, as PEFT finds their numbers."""
    layers, patterns = settings.get("layers_to_transform"), settings.get("layers_pattern")
    if layers in (None, []):
        return True
    patterns = [patterns] if isinstance(patterns, str) else patterns
    for pattern in patterns or [r"[^.]*"]:
        if number := re.match(rf".*\.{pattern}\.(\d+)\.", module):
            return int(number[1]) in (layers if isinstance(layers, list) else [layers])
    return False
