"""Which search variable moves which tensors.

A `MergePlan` fixes, before anything is searched, for every tensor the one rule that gives its
weight: a search variable, the mean of the layers' weights, or a constant (base 0, expert 1).
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Literal

from ...errors import LayoutError
from .heads import head_axis
from .layers import Part, count_layers, is_router, locate_all
from .merger import CHUNK, Merger
from .operators import OPERATORS
from .sources import Axis, Cut, Piece, Source

Granularity = Literal[
    "uniform", "layer", "layer-module", "blocks", "learned-blocks", "thirds", "heads"
]
EdgeRule = Literal["base", "expert", "merge", "search"]
TowerRule = Literal["equal", "base", "expert", "merge", "search"]

# The search variable of a density that is searched, and what is no layer among the groups.
DENSITY = "density"
_EDGES = ("embeddings", "head", "router", "towers")
_NO_LAYERS = (*_EDGES, DENSITY)

# One number per expert: the tensor is base + sum_k w_k (expert_k - base) under `linear`.
Weights = tuple[float, ...]


@dataclass(frozen=True)
class MergeSettings:
    """How the weights of a model are parametrised.

    Args:
        operator: Name in `operators.OPERATORS`.
        granularity: One variable for the model (`uniform`), each third of its layers, each block
            of similar layers, each layer, each layer's attention and feed-forward module, or each
            key/value head of each layer with its query heads, and the rest of the layer.
        embeddings: Rule for the input embeddings: `base`, `expert` (the last one), `merge`
            (mean layer weight) or `search` (a variable of its own).
        head: The same for the final norm and the output matrix. In a model with tied
            embeddings the output matrix is the embeddings, and this rule moves the norm alone.
        router: Rule for what chooses the experts of mixture-of-experts layers: `merge` (with its
            layer), `base`, `expert` or `search` (one variable for all layers).
        towers: Rule for what reads images and sound in a multimodal model: `equal` (copied from
            the base, and refused where an expert's differ), or one of the other rules.
        n_experts: Number of experts merged into the base.
        density: Share of each task vector that is kept: one number, one a search variable
            with `default` for the rest, or a pair of bounds: then it is searched, as `density`.
        parameters: Of the operator, where they differ from its defaults.
        seed: Of random masks.
        blocks: First layer of every block, for granularities `blocks` and `learned-blocks`; see
            `find_blocks`.
        n_heads: Key/value heads of a layer, for granularity `heads`; see `count_heads`.
    """

    operator: str = "linear"
    granularity: Granularity = "layer"
    embeddings: EdgeRule = "merge"
    head: EdgeRule = "merge"
    n_experts: int = 1
    density: float | Mapping[str, float] | tuple[float, float] = 1.0
    parameters: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    blocks: tuple[int, ...] = ()
    router: EdgeRule = "merge"
    towers: TowerRule = "equal"
    n_heads: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.density, list):  # as it comes from YAML, JSON or another process
            object.__setattr__(self, "density", tuple(self.density))

    @property
    def density_bounds(self) -> tuple[float, float] | None:
        """Bounds of a density that is searched; None if it is not."""
        return self.density if isinstance(self.density, tuple) else None

    def merger(self, remember: bool = False, chunk: int = CHUNK) -> Merger:
        """Return what applies the operator to tensors; see `Merger`."""
        operator = OPERATORS[self.operator]
        # Every density has masks of its own: of a searched one they are not worth their memory.
        remember = remember and self.density_bounds is None
        return Merger(operator, operator.options(self.parameters), self.seed, remember, chunk)


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
        self._check_pieces()
        self._shares = self._layer_shares()

    @property
    def parameter_names(self) -> list[str]:
        """Names of the study's parameters; with several experts `group@1`, `group@2`, ..."""
        searched = [DENSITY] if self.settings.density_bounds else []
        return [*self._weight_names, *searched]

    @property
    def _weight_names(self) -> list[str]:
        experts = range(1, self.settings.n_experts + 1)
        return [self.parameter(group, k) for group in self.groups for k in experts]

    def parameter(self, group: str, expert: int) -> str:
        """Return the name of one group's weight of an expert, counted from 1."""
        return group if self.settings.n_experts == 1 else f"{group}@{expert}"

    def bounds(self, low: float, high: float) -> dict[str, tuple[float, float]]:
        """Return the range of every parameter.

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

    def group_weights(self, params: Mapping[str, float]) -> dict[str, Weights]:
        """Collect a trial's parameters into one tuple a group.

        Raises:
            LayoutError: If a parameter is missing or unknown.
        """
        expected = self.parameter_names
        if set(params) != set(expected):
            missing = sorted(set(expected) - set(params))
            unknown = sorted(set(params) - set(expected))
            raise LayoutError(
                f"A candidate must give exactly the {len(expected)} parameters of its plan, but "
                f"{missing=} and {unknown=}."
            )
        n = self.settings.n_experts
        values = [float(params[name]) for name in self._weight_names]
        groups = {g: tuple(values[i * n : (i + 1) * n]) for i, g in enumerate(self.groups)}
        return groups | {name: (float(params[name]),) for name in expected if name == DENSITY}

    def parse_weights(self, content: Mapping[str, object]) -> dict[str, Weights]:
        """Read a weight file's content: one number, or a list of one per expert, for each group.

        `{"uniform": w}` gives every group the same weights.

        Raises:
            LayoutError: If a group is missing or unknown, or a weight is not a finite number.
        """
        content = dict(content)
        density = self._parse_density(content.pop(DENSITY, None))
        if set(content) == {"uniform"}:
            content = dict.fromkeys(self.groups, content["uniform"])
        if set(content) != set(self.groups):
            missing = ", ".join(g for g in self.groups if g not in content) or "nothing"
            unknown = ", ".join(sorted(content.keys() - set(self.groups))) or "nothing"
            raise LayoutError(
                f"A weight file must give each of {len(self.groups)} weights, or 'uniform' alone, "
                f"but it lacks {missing}, and {unknown} is unknown."
            )
        return {g: self._parse_weight(g, content[g]) for g in self.groups} | density

    def _parse_density(self, value: object) -> dict[str, Weights]:
        if self.settings.density_bounds is None and value is None:
            return {}
        if self.settings.density_bounds is None or not (
            isinstance(value, int | float) and 0 < value <= 1
        ):
            raise LayoutError(
                "A weight file must give `density`, in (0, 1], where `merge.density` is searched, "
                f"and nowhere else, but got {value!r}."
            )
        return {DENSITY: (float(value),)}

    def _parse_weight(self, group: str, value: object) -> Weights:
        listed = value if isinstance(value, list) else [value]
        numbers = [
            float(w)
            for w in listed
            if isinstance(w, int | float) and not isinstance(w, bool) and math.isfinite(w)
        ]
        if len(numbers) != len(listed) or len(numbers) != self.settings.n_experts:
            raise LayoutError(
                f"A weight must be {self.settings.n_experts} finite number(s), one per expert, "
                f"but {group!r} has {value!r}."
            )
        return tuple(numbers)

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

    def uniform(self, weight: float) -> dict[str, float]:
        """Return the parameters of the uniform merge: every weight equal, split over experts.

        A searched density is 1 for the base, and else its upper bound.
        """
        weights = dict.fromkeys(self._weight_names, weight / self.settings.n_experts)
        density = self.settings.density_bounds
        return weights if density is None else {**weights, DENSITY: density[1] if weight else 1.0}

    def expert(self, number: int) -> dict[str, float]:
        """Return the parameters of expert `number`, counted from 1: all the weight is its.

        A searched density is 1: the expert as it is.
        """
        numbers = self._unit(number - 1) * len(self.groups)
        weights = dict(zip(self._weight_names, numbers, strict=True))
        return weights if self.settings.density_bounds is None else {**weights, DENSITY: 1.0}

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
