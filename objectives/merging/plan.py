"""Which search variable moves which tensors.

A `MergePlan` fixes, before anything is searched, for every tensor the one rule that gives its
weight: a search variable, the mean of the layers' weights, or a constant (base 0, expert 1).
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ...errors import LayoutError
from .heads import head_axis
from .layers import Part, count_layers, is_router, locate_all
from .operators import OPERATORS
from .precision import FORMATS, PRECISION, Format
from .settings import ARM, DENSITY, MergeSettings
from .sources import Axis, Cut, Piece, Source

_EDGES = ("embeddings", "head", "router", "towers")
_NO_LAYERS = (*_EDGES, DENSITY, PRECISION)

# One number per expert: the tensor is base + sum_k w_k (expert_k - base) under `linear`.
Weights = tuple[float, ...]
# The parameters of a trial: weights, and choices where the arm is searched.
Params = dict[str, Any]


@dataclass(frozen=True)
class Candidate:
    """A candidate as a study of its arm alone would merge it.

    Args:
        plan: Of the arm.
        groups: Weights of every search variable, one number per expert of the arm.
        experts: Their numbers from 1, in the order in which they are merged.
    """

    plan: "MergePlan"
    groups: Mapping[str, Sequence[float]]
    experts: tuple[int, ...]


class MergePlan:
    """The search variables of one architecture, and the weight of each tensor under a candidate.

    Args:
        tensor_names: The names of all tensors that are merged.
        settings: How they are parametrised.
        tied: Whether the output matrix is the embeddings (`tie_word_embeddings`).

    Raises:
        LayoutError: If a tensor is covered by no rule.
    """

    def __init__(
        self, tensor_names: Iterable[str], settings: MergeSettings, tied: bool = False
    ) -> None:
        self._of(locate_all(tensor_names, tied), settings)

    @classmethod
    def of_parts(cls, parts: Mapping[str, Part], settings: MergeSettings) -> "MergePlan":
        """Return the plan of tensors whose parts are known, under whatever names."""
        plan = cls.__new__(cls)
        plan._of(parts, settings)
        return plan

    def _of(self, parts: Mapping[str, Part], settings: MergeSettings) -> None:
        self.settings = settings
        self.parts: dict[str, Part] = dict(parts)
        self.n_layers = count_layers(self.parts.values())
        self._block_starts = self._starts()
        self._variables_of = {n: self._variables(n, part) for n, part in self.parts.items()}
        self.groups = self._ordered_groups()
        self._shares = self._layer_shares()
        # What each arm's study would be: the same tensors, other settings.
        each = settings.fixed() if settings.arms else ()
        self.arms = tuple(MergePlan.of_parts(parts, fixed) for fixed in each)
        if not self.arms:
            self._check_pieces()

    @property
    def parameter_names(self) -> list[str]:
        """Names of the study's parameters; with several experts `group@1`, `group@2`, ..."""
        searched = [DENSITY] if self.settings.density_bounds else []
        return [*self.settings.categories, *self._weight_names, *searched]

    @property
    def _weight_names(self) -> list[str]:
        experts = range(1, self.settings.n_experts + 1)
        return [self.parameter(group, k) for group in self.groups for k in experts]

    def parameter(self, group: str, expert: int) -> str:
        """Return the name of one group's weight of an expert, counted from 1."""
        return group if self.settings.n_experts == 1 else f"{group}@{expert}"

    def bounds(self, low: float, high: float) -> dict[str, tuple[float, float]]:
        """Return the range of every parameter that is a number.

        Args:
            low: Of the weights.
            high: Of the weights.
        """
        ranges = dict.fromkeys(self._weight_names, (low, high))
        density = self.settings.density_bounds
        return ranges if density is None else {**ranges, DENSITY: density}

    def tensors_of(self, group: str) -> list[str]:
        """Names of the tensors that the variable `group` moves, whole or in part."""
        return [name for name, variables in self._variables_of.items() if group in variables]

    def variables_of(self, name: str) -> tuple[str, ...]:
        """Return the variable or constant rule that a tensor follows, or each of its pieces."""
        return self._variables_of[name]

    def piece_of(self, group: str, name: str, source: Source) -> Source:
        """Return what of a tensor a variable moves: all of it, or a piece.

        Args:
            group: The variable.
            name: Of the tensor.
            source: The tensor in any model.
        """
        variables = self._variables_of[name]
        if len(variables) == 1:
            return source
        return Piece(source, _axis(name), variables.index(group), len(variables))

    def group_weights(self, params: Mapping[str, Any]) -> dict[str, Weights]:
        """Collect a trial's parameters into one tuple a group, and the place of its arm.

        Raises:
            LayoutError: If a parameter is missing or unknown.
        """
        expected = self._checked_names(params)
        n = self.settings.n_experts
        values = [float(params[name]) for name in self._weight_names]
        groups = {g: tuple(values[i * n : (i + 1) * n]) for i, g in enumerate(self.groups)}
        if self.settings.precision is not None and self.settings.widest:
            groups[PRECISION] = self.settings.precision.places(params)
        if self.arms:
            groups[ARM] = (float(self.settings.arm_of(params)),)
        return groups | {name: (float(params[name]),) for name in expected if name == DENSITY}

    def format_of(self, name: str, groups: Mapping[str, Sequence[float]]) -> Format | None:
        """Return the format that a tensor of a candidate is rounded to; None if it is not."""
        part, precision = self.parts[name], self.settings.precision
        if precision is None or not part.linear or part.index is None:
            return None
        places = groups.get(PRECISION, ())
        return FORMATS.get(precision.of_layer(part.index, self.n_layers, places))

    def _checked_names(self, params: Mapping[str, Any]) -> list[str]:
        expected = self.parameter_names
        if set(params) != set(expected):
            missing = sorted(set(expected) - set(params))
            unknown = sorted(set(params) - set(expected))
            raise LayoutError(
                f"A candidate must give exactly the {len(expected)} parameters of its plan, but "
                f"{missing=} and {unknown=}."
            )
        return expected

    def at(self, groups: Mapping[str, Sequence[float]]) -> Candidate:
        """Return a candidate as a study of its arm alone would merge it.

        Args:
            groups: From `group_weights`.
        """
        if not self.arms:
            return Candidate(self, groups, tuple(range(1, self.settings.n_experts + 1)))
        place = int(groups[ARM][0])
        plan, experts = self.arms[place], self.settings.arms[place].experts
        chosen = {g: tuple(groups[g][k - 1] for k in experts) for g in self.groups}
        if plan.settings.density_bounds is not None:
            chosen[DENSITY] = tuple(groups[DENSITY])
        if self.settings.widest:
            chosen[PRECISION] = tuple(groups[PRECISION])
        return Candidate(plan, chosen, experts)

    def arm_params(self, arm: int) -> Params:
        """Return what an arm fixes: its choices, and what it leaves out, which has no effect.

        Experts that are not merged have weight 0; a density that is searched for other operators
        is its upper bound.
        """
        chosen, params = self.settings.arms[arm], dict[str, Any](self.settings.choice(arm))
        for k in range(1, self.settings.n_experts + 1):
            if k not in chosen.experts:
                params |= {self.parameter(group, k): 0.0 for group in self.groups}
        bounds = self.settings.density_bounds
        if bounds is not None and not isinstance(chosen.density, tuple):
            params[DENSITY] = bounds[1]
        return params

    def _lifted(self, arm: int, params: Mapping[str, Any]) -> Params:
        """Return parameters of an arm's own study as those of this one."""
        plan, experts = self.arms[arm], self.settings.arms[arm].experts
        names = {
            plan.parameter(group, place): self.parameter(group, k)
            for group in self.groups
            for place, k in enumerate(experts, 1)
        }
        here = {names.get(own, own): value for own, value in params.items()}
        return {**self.arm_params(arm), **here}

    def tensor_weights(self, groups: Mapping[str, Sequence[float]]) -> dict[str, Weights | Cut]:
        """Return the weights of every tensor, one number per expert, or those of its pieces.

        Args:
            groups: The weights of every search variable, one number per expert.
        """
        layers = [group for group in groups if group not in _NO_LAYERS]
        shares = [self._shares[group] for group in layers]
        columns = zip(*(groups[group] for group in layers), strict=True)
        mean = tuple(fmean(column, shares) for column in columns)
        constants = {"base": self._unit(None), "expert": self._unit(-1), "merge": mean}
        known = constants | {group: tuple(weights) for group, weights in groups.items()}
        return {
            name: known[variables[0]]
            if len(variables) == 1
            else Cut(_axis(name), tuple(known[variable] for variable in variables))
            for name, variables in self._variables_of.items()
        }

    def uniform(self, weight: float, arm: int = 0) -> Params:
        """Return the parameters of the uniform merge: every weight equal, split over experts.

        A searched density is 1 for the base, and else its upper bound; searched precisions are
        the one of most bits.

        Args:
            weight: Of all experts together.
            arm: Its place, where the arm is searched.
        """
        if self.arms:
            return self._lifted(arm, self.arms[arm].uniform(weight))
        weights = dict.fromkeys(self._weight_names, weight / self.settings.n_experts)
        density, params = self.settings.density_bounds, {**self.settings.widest, **weights}
        return params if density is None else {**params, DENSITY: density[1] if weight else 1.0}

    def expert(self, number: int) -> Params:
        """Return the parameters of expert `number`, counted from 1: all the weight is its.

        A searched density is 1: the expert as it is. Where the arm is searched, it is the first
        that can give the expert exactly, and merges as few others as possible.
        """
        if self.arms:
            found = [p for p, each in enumerate(self.settings.arms) if number in each.experts]
            arms = self.settings.arms
            arm = min(found, key=lambda p: (not arms[p].keeps_experts, len(arms[p].experts)))
            place = arms[arm].experts.index(number) + 1
            return self._lifted(arm, self.arms[arm].expert(place))
        numbers = self._unit(number - 1) * len(self.groups)
        params = {**self.settings.widest, **dict(zip(self._weight_names, numbers, strict=True))}
        return params if self.settings.density_bounds is None else {**params, DENSITY: 1.0}

    def _unit(self, expert: int | None) -> Weights:
        weights = [0.0] * self.settings.n_experts
        if expert is not None:
            weights[expert] = 1.0
        return tuple(weights)

    def _variables(self, name: str, part: Part) -> tuple[str, ...]:
        """Return what moves a tensor: one variable or rule, or one for each of its pieces."""
        in_heads = self.settings.granularity == "heads" and part.kind == "layer"
        if not in_heads or head_axis(name) is None:
            return (self._variable(name, part),)
        heads = range(self.settings.n_heads)
        return tuple(f"layer_{part.index:03d}.head_{head:02d}" for head in heads)

    def _variable(self, name: str, part: Part) -> str:
        """Return a group's name, or one of the constant rules `base`, `expert`, `merge`."""
        settings = self.settings
        if part.kind == "layer":
            if settings.router == "merge" or not is_router(name):
                return self._layer_variable(part)
            return "router" if settings.router == "search" else settings.router
        if part.kind == "tower":
            named = {"equal": "base", "search": "towers"}
            return named.get(settings.towers, settings.towers)
        rule = settings.embeddings if part.kind == "embeddings" else settings.head
        return part.kind if rule == "search" else rule

    def _check_pieces(self) -> None:
        """Refuse operators for which a piece of a tensor is not a part of the whole."""
        whole = not OPERATORS[self.settings.operator].elementwise or not self.is_dense
        if self.settings.granularity == "heads" and whole:
            raise LayoutError(
                f"Granularity 'heads' cuts tensors, but operator {self.settings.operator!r} "
                "looks at whole ones, or a density leaves out a share of them. Use an "
                "elementwise operator such as 'linear' with density 1, or granularity 'layer'."
            )

    def _layer_shares(self) -> dict[str, float]:
        """Return how many layers each variable moves; a layer's modules share it evenly."""
        of_layer: dict[int, set[str]] = {}
        for name, part in self.parts.items():
            if part.index is not None:
                in_heads = head_axis(name) is not None
                moved = self._variables_of[name] if in_heads else (self._layer_variable(part),)
                of_layer.setdefault(part.index, set()).update(moved)
        shares: dict[str, float] = {}
        for variables in of_layer.values():
            for variable in variables:
                shares[variable] = shares.get(variable, 0.0) + 1 / len(variables)
        return shares

    def _layer_variable(self, part: Part) -> str:
        match self.settings.granularity:
            case "uniform":
                return "uniform"
            case "layer":
                return f"layer_{part.index:03d}"
            case "layer-module":
                return f"layer_{part.index:03d}.{part.module}"
            case "heads":
                return f"layer_{part.index:03d}.rest"
            case "blocks" | "learned-blocks" | "thirds":
                assert part.index is not None
                return f"block_{bisect_right(self._block_starts, part.index) - 1:03d}"

    def _starts(self) -> tuple[int, ...]:
        """Return the first layer of each block."""
        if self.settings.granularity == "thirds":
            return tuple(sorted({round(third * self.n_layers / 3) for third in range(3)}))
        starts = self.settings.blocks
        if self.settings.granularity in ("blocks", "learned-blocks") and (
            not starts
            or starts[0] != 0
            or starts[-1] >= self.n_layers
            or sorted(set(starts)) != [*starts]
        ):
            raise LayoutError(
                f"Blocks must start at increasing layers from 0 to {self.n_layers - 1}, but got "
                f"{list(starts)}."
            )
        return starts

    def density_of(self, name: str, groups: Mapping[str, Sequence[float]] | None = None) -> float:
        """Return the share of a tensor's task vectors that a candidate keeps.

        Args:
            name: Of the tensor.
            groups: Of the candidate; needed where the density is searched.
        """
        density = self.settings.density
        if isinstance(density, tuple):
            return (groups or {})[DENSITY][0]
        if isinstance(density, Mapping):
            return density.get(self._variables_of[name][0], density.get("default", 1.0))
        return density

    @property
    def is_dense(self) -> bool:
        """Whether every candidate keeps all of every task vector."""
        if self.settings.density_bounds is not None:
            return False
        return all(self.density_of(name) >= 1 for name in self.parts)

    def _ordered_groups(self) -> tuple[str, ...]:
        """Layers by index, then the edges; every group moves at least one tensor."""
        moved = (variable for row in self._variables_of.values() for variable in row)
        used = {*moved} - {"base", "expert", "merge"}
        edges = [edge for edge in _EDGES if edge in used]
        groups = (*sorted(used - set(edges)), *edges)
        if not groups:
            raise LayoutError("A merge needs at least one layer, but the model has none.")
        return groups


def _axis(name: str) -> Axis:
    axis = head_axis(name)
    assert axis is not None, "only such tensors have pieces"
    return axis
