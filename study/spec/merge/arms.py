"""Which arms a spec has: what its operators and experts can be merged by."""

from collections.abc import Iterable, Iterator
from itertools import combinations, permutations
from typing import Any

from ....errors import SpecError
from ....objectives.merging import OPERATORS, Arm
from ....objectives.merging.operators import check_operator
from .models import ModelsSection
from .section import MergeSection, OperatorSection

# A proposal looks at every arm.
_MOST_ARMS = 100


def check_order(arms: Iterable[Arm], merge: MergeSection) -> None:
    """Refuse an order where nothing is merged one after the other.

    Raises:
        ValueError: If it has no effect.
    """
    if merge.order and not any(arm.is_chain for arm in arms):
        raise ValueError(
            "`order` is for operators that take one expert, merging several, but there is none; "
            "remove it"
        )


def arms_of(models: ModelsSection, merge: MergeSection) -> tuple[tuple[Arm, ...], list[str]]:
    """Return what a candidate may be merged by, and what is left out, with the reason.

    An operator may not take so many experts, or merge them as another one does.

    Returns:
        All arms, none where there is no choice; and one text for each thing left out.

    Raises:
        ValueError: If something asked for cannot be done at all.
    """
    if isinstance(merge.operator, str) and models.choose is None and merge.order != "search":
        return (), []
    arms: list[Arm] = []
    left_out: list[str] = []
    for section in merge.operators:
        found, missing = _arms_of_one(section, models, merge)
        new, known = _new_among(found, arms)
        arms += new
        left_out += [*missing, *known]
    _check_arms(arms, merge)
    return tuple(arms), left_out


def _arms_of_one(
    section: OperatorSection, models: ModelsSection, merge: MergeSection
) -> tuple[list[Arm], list[str]]:
    density, arms, left_out = merge.density_of(section), list[Arm](), list[str]()
    reasons: list[str] = []
    for n in models.sizes:
        groups = list(_groups(section, n, len(models.experts), merge))
        given = [Arm(section.name, group, density, section.parameters) for group in groups]
        try:
            check_arm(given[0], merge)
        except SpecError as error:
            reason = str(error).split(". ")[0]
            left_out.append(f"{given[0].label} of {n} expert{'s' * (n > 1)} ({reason})")
            reasons.append(str(error).removesuffix("."))
            continue
        arms += given
    if not arms and len({*reasons}) == 1:
        raise ValueError(reasons[0])
    if not arms:
        raise ValueError(
            f"{section.name} merges none of the numbers of experts asked for: "
            f"{'; '.join(left_out)}. Remove it, or change models.choose"
        )
    return arms, left_out


def _new_among(found: list[Arm], known: list[Arm]) -> tuple[list[Arm], list[str]]:
    """Return the arms of an operator that merge otherwise than known ones; what the others are.

    Raises:
        ValueError: If none does.
    """
    alike = [(arm, next((k for k in known if k.formula == arm.formula), None)) for arm in found]
    new = [arm for arm, like in alike if like is None]
    first = {len(arm.experts): like for arm, like in reversed(alike) if like is not None}
    if not new and first:
        label, other = found[0].label, next(iter(first.values())).label
        if label != other:  # told better where it is spelled twice
            raise ValueError(
                f"operators to choose from must differ, but {label} gives the merges of {other}; "
                "remove one of them, or give it a density below 1 if it takes one"
            )
        return found, []
    return new, [
        f"{found[0].label} of {n} expert{'s' * (n > 1)} (the merge of {like.label})"
        for n, like in sorted(first.items())
    ]


def _groups(
    section: OperatorSection, n: int, of: int, merge: MergeSection
) -> Iterator[tuple[int, ...]]:
    """Yield the numbers of the experts that are merged, in each order that is another merge."""
    ordered = merge.order == "search" and OPERATORS[section.name].max_experts == 1
    yield from (permutations if ordered else combinations)(range(1, of + 1), n)


def check_arm(arm: Arm, merge: MergeSection) -> None:
    """Refuse what an operator is not defined for.

    Raises:
        SpecError: If the number of experts, a parameter or a density does not fit.
    """
    operator = OPERATORS[arm.operator]
    chained = merge.order is not None and operator.max_experts == 1
    density = arm.density
    listed = [density] if isinstance(density, int | float) else list(_numbers(density))
    check_operator(operator, 1 if chained else len(arm.experts), arm.parameters, listed)


def _numbers(density: Any) -> list[float]:
    return list(density.values()) if isinstance(density, dict) else list(density)


def _check_arms(arms: list[Arm], merge: MergeSection) -> None:
    keys = [(arm.label, arm.experts_label) for arm in arms]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise ValueError(f"operators to choose from must differ, but {twice[0]!r} is there twice")
    if len(arms) == 1:
        raise ValueError(
            f"there is one way to merge, {keys[0][0]} of experts {keys[0][1]}, and nothing to "
            "choose; remove `choose` and `order`"
        )
    if len(arms) > _MOST_ARMS:
        raise ValueError(
            f"at most {_MOST_ARMS} pairs of an operator and experts can be searched, but there "
            f"are {len(arms)}; list fewer operators, or lower `models.choose.max`"
        )
    check_order(arms, merge)
    if merge.density != 1.0 and all(arm.density == 1.0 for arm in arms):
        raise ValueError("density belongs to sparsifying operators, but none is listed; remove it")
    if merge.density != 1.0 and all(arm.density != merge.density for arm in arms):
        raise ValueError(
            "`merge.density` is for operators without a density of their own, but none of those "
            "listed needs it; remove it"
        )
