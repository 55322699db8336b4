"""One step of a chain of merges, as a spec and the engine see it."""

from dataclasses import dataclass, field
from pathlib import Path

from ...errors import SpecError
from ...objectives.checkpoints import is_adapter
from ...objectives.merging import OPERATORS, MergeSettings

# Without an ancestor, at equal shares.
_SYMMETRIC = ("linear", "slerp", "nuslerp", "multislerp", "karcher")


@dataclass(frozen=True)
class Method:
    """An operator with its settings.

    Args:
        operator: Name in `OPERATORS`.
        density: Share of task vectors that is kept.
        parameters: Of the operator.
    """

    operator: str
    density: float = 1.0
    parameters: dict[str, float] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The operator, with its settings where they are not the defaults."""
        given = {} if self.density == 1.0 else {"density": self.density}
        shown = [f"{name}={value:g}" for name, value in {**given, **self.parameters}.items()]
        return f"{self.operator}({', '.join(shown)})" if shown else self.operator

    def is_ordered(self, has_ancestor: bool) -> bool:
        """Whether the order of two models with equal shares matters."""
        return self.operator not in _SYMMETRIC and not (self.needs_ancestor and has_ancestor)

    @property
    def needs_ancestor(self) -> bool:
        """Whether it works on what fine-tuning added to a common ancestor, if there is one."""
        return OPERATORS[self.operator].on_deltas


@dataclass(frozen=True)
class Step:
    """A two-way merge: what is the base, what are the experts, and at which weights.

    Args:
        base: Weight 0.
        experts: One, or both models where the base is their ancestor.
        weights: One per expert, such that the right model has its share in the result.
        method: The operator and its settings.
    """

    base: Path
    experts: tuple[Path, ...]
    weights: tuple[float, ...]
    method: Method

    @property
    def settings(self) -> MergeSettings:
        """For a model-level merge."""
        return MergeSettings(
            operator=self.method.operator,
            granularity="uniform",
            n_experts=len(self.experts),
            density=self.method.density,
            parameters=self.method.parameters,
        )


def make_step(
    left: Path, right: Path, method: Method, share: float = 0.5, ancestor: Path | None = None
) -> Step:
    """Return the step that merges `right` into `left`.

    Args:
        left: First of the ordered pair, perhaps a merge itself.
        right: Second.
        method: The operator and its settings.
        share: Of the right model in the result; the last of `n` equal ones has `1 / n`.
        ancestor: Common ancestor, if there is one: task vectors are taken from it, and from the
            left model otherwise.

    Raises:
        SpecError: If one is an adapter and the operator would add it to something else than its
            base, the ancestor.
    """
    adapter = next((path for path in (left, right) if is_adapter(path)), None)
    # Averages of both are the same from whatever base, and adapters are read on theirs alone.
    is_average = method.operator == "linear" and adapter is not None
    if ancestor is not None and (method.needs_ancestor or is_average):
        return Step(ancestor, (left, right), (1 - share, share), method)
    if adapter is not None and left != ancestor:
        raise SpecError(
            f"A spec of `{method.operator}` needs whole models, but {adapter} is an adapter. "
            "Merge it with PEFT (merge_and_unload), or leave the operator out of `operators`."
        )
    return Step(left, (right,), (share,), method)
