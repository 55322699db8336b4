"""How tensors of files become tensors of the live model: renamed, fused, split."""

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Link:
    """Tensors of the files that become tensors of the live model together.

    Args:
        sources: Names in the files, in the order in which they are put together.
        targets: Names in the live model.
        transform: transformers' own conversion; None for a tensor that is only renamed.
        patterns: The transform's name of each source.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    transform: Any = None
    patterns: tuple[str, ...] = ()

    def convert(self, read: Callable[[str], Tensor], model: Any) -> dict[str, Tensor]:
        """Return the live tensors, as loading makes them.

        Args:
            read: Gives a tensor of the files by its name.
            model: Whose configuration some conversions look at.
        """
        if self.transform is None:
            return {self.targets[0]: read(self.sources[0])}
        transform = deepcopy(self.transform)
        for name, pattern in zip(self.sources, self.patterns, strict=True):
            transform.add_tensor(self.targets[0], name, pattern, read(name))
        made = transform.convert(self.targets[0], model=model, config=model.config)
        return {n: t[0] if isinstance(t, list) else t for n, t in made.items()}


def links_of(model: Any, names: Iterable[str]) -> tuple[list[Link], list[str]]:
    """Return how names of files become names of the model, and the names that do not.

    The same walk as transformers' loader, over names alone.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key

    mapping = get_model_conversion_mapping(model)
    renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
    by_pattern = {p: converter for converter in converters for p in converter.source_patterns}
    live = model.state_dict()
    unused: list[str] = []
    found: dict[str, list[tuple[str, str | None]]] = {}
    for name in sorted(names, key=dot_natural_key):
        target, pattern = _renamed(name, renamings, converters, model, live)
        if target in live:
            found.setdefault(target, []).append((name, pattern))
        else:
            unused.append(name)
    return [_link(t, s, by_pattern, model) for t, s in found.items()], unused


def _renamed(
    name: str, renamings: list[Any], converters: list[Any], model: Any, live: Mapping[str, Tensor]
) -> tuple[str, str | None]:
    from transformers.core_model_loading import rename_source_key

    prefix = model.base_model_prefix
    target, pattern = rename_source_key(name, renamings, converters, prefix, live)  # type: ignore[arg-type]
    if target not in live and name in live:
        target, pattern = rename_source_key(name, [], [], prefix, live)  # type: ignore[arg-type]
    return target, pattern


def _link(
    target: str,
    sources: list[tuple[str, str | None]],
    by_pattern: Mapping[str, Any],
    model: Any,
) -> Link:
    patterns = [pattern for _, pattern in sources if pattern is not None]
    if not patterns:
        return Link((sources[0][0],), (target,))
    transform = deepcopy(by_pattern[patterns[0]])
    # A conversion of one tensor into several names only the first of them in its target.
    names = [target.replace(transform.target_patterns[0], p, 1) for p in transform.target_patterns]
    known = model.state_dict()
    targets = tuple(name for name in names if name in known) or (target,)
    if targets[0] != target:
        targets = (target,)
    return Link(tuple(name for name, _ in sources), targets, transform, tuple(patterns))
