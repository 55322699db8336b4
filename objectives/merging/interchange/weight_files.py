"""Files of merge weights, for models that no search proposed."""

import math
from collections.abc import Mapping, Sequence

from ....errors import LayoutError
from ..plan import MergePlan, Weights
from ..precision import PRECISION
from ..settings import DENSITY, MergeSettings


def parse_weights(plan: MergePlan, content: Mapping[str, object]) -> dict[str, Weights]:
    """Read a weight file's content: one number, or a list of one per expert, for each group.

    `{"uniform": w}` gives every group the same weights. Searched precisions are texts,
    `{"precision_0": "int4"}`. Lists are in the order in which the plan's
    experts are merged.

    Args:
        plan: Whose operator and experts are fixed.
        content: Group -> weights.

    Raises:
        LayoutError: If a group is missing or unknown, or a weight is not a finite number.
    """
    content = dict(content)
    others = _density(plan.settings, content.pop(DENSITY, None))
    others |= _precisions(plan.settings, content)
    if set(content) == {"uniform"}:
        _weights("uniform", content["uniform"], plan.settings.n_experts)
        content = dict.fromkeys(plan.groups, content["uniform"])
    if set(content) != set(plan.groups):
        missing = ", ".join(g for g in plan.groups if g not in content) or "nothing"
        unknown = ", ".join(sorted(content.keys() - set(plan.groups))) or "nothing"
        raise LayoutError(
            f"A weight file must give each of {len(plan.groups)} weights, or 'uniform' alone, "
            f"but it lacks {missing}, and {unknown} is unknown."
        )
    return {g: _weights(g, content[g], plan.settings.n_experts) for g in plan.groups} | others


def weight_file(
    plan: MergePlan, groups: Mapping[str, Sequence[float]]
) -> dict[str, float | list[float] | str]:
    """Return a candidate as the content of a weight file; `parse_weights` reads it again."""
    precision = plan.settings.precision
    content: dict[str, float | list[float] | str] = {
        name: values[0] if len(values) == 1 else list(values)
        for name, values in groups.items()
        if name != PRECISION
    }
    return content | (precision.params(groups[PRECISION]) if precision and precision.names else {})


def _precisions(settings: MergeSettings, content: dict[str, object]) -> dict[str, Weights]:
    """Take searched precisions out of a file's content.

    Raises:
        LayoutError: If one is missing or unknown.
    """
    names = [] if settings.precision is None else settings.precision.names
    if not names or settings.precision is None:
        return {}
    given = {name: content.pop(name, None) for name in names}
    return {PRECISION: settings.precision.places(given)}


def _density(settings: MergeSettings, value: object) -> dict[str, Weights]:
    if settings.density_bounds is None and value is None:
        return {}
    if settings.density_bounds is None or not (isinstance(value, int | float) and 0 < value <= 1):
        raise LayoutError(
            "A weight file must give `density`, in (0, 1], where `merge.density` is searched, "
            f"and nowhere else, but got {value!r}."
        )
    return {DENSITY: (float(value),)}


def _weights(group: str, value: object, n_experts: int) -> Weights:
    listed = value if isinstance(value, list) else [value]
    numbers = [
        float(w)
        for w in listed
        if isinstance(w, int | float) and not isinstance(w, bool) and math.isfinite(w)
    ]
    if len(numbers) != len(listed) or len(numbers) != n_experts:
        like = "0.4" if n_experts == 1 else str([0.4] * n_experts)
        raise LayoutError(
            f"A weight must be {n_experts} finite number(s), one per expert, such as {like}, but "
            f"{group!r} has {value!r}."
        )
    return tuple(numbers)
