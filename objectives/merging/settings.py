"""How the weights of a model are parametrised, and by which operators they are merged."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ...errors import LayoutError
from .merger import CHUNK, Merger
from .operators import OPERATORS
from .precision import Precision, is_precision, precisions

Granularity = Literal[
    "uniform", "layer", "layer-module", "blocks", "learned-blocks", "thirds", "heads"
]
EdgeRule = Literal["base", "expert", "merge", "search"]
TowerRule = Literal["equal", "base", "expert", "merge", "search"]
# One number, one a search variable with `default` for the rest, or bounds: then it is searched.
Density = float | Mapping[str, float] | tuple[float, float]

# The search variable of a density that is searched, and those of the arm.
DENSITY, OPERATOR, EXPERTS = "density", "operator", "experts"
# Where a candidate's weights say which arm merges them.
ARM = "arm"


def is_choice(parameter: str) -> bool:
    """Whether a parameter of a study is a text: of the arm, or a precision."""
    return parameter in (OPERATOR, EXPERTS) or is_precision(parameter)


def is_weight(parameter: str) -> bool:
    """Whether a parameter of a study is a weight."""
    return parameter != DENSITY and not is_choice(parameter)


def other_than_default(operator: str, given: Mapping[str, float]) -> dict[str, float]:
    """Return an operator's parameters without those that have their default."""
    defaults = {parameter.name: parameter.default for parameter in OPERATORS[operator].parameters}
    return {name: value for name, value in given.items() if value != defaults.get(name)}


def arm_name(params: Mapping[str, Any]) -> str:
    """Return operator and experts of a candidate, `ties of 1+2`; what is fixed is left out."""
    return " of ".join(str(params[name]) for name in (OPERATOR, EXPERTS) if name in params)


def with_arm(name: str, params: Mapping[str, Any]) -> str:
    """Return a candidate's name with its operator, experts and precision.

    `trial 3, ties of 1+2, int4`, or what of these is searched.
    """
    return ", ".join(part for part in (name, arm_name(params), precisions(params)) if part)


@dataclass(frozen=True)
class Arm:
    """An operator with its settings, and the experts that it merges.

    Args:
        operator: Name in `OPERATORS`.
        experts: Their numbers from 1. In this order they are merged one after the other where the
            operator takes one expert, and all at once by other operators.
        density: See `MergeSettings`.
        parameters: Of the operator, where they differ from its defaults.
    """

    operator: str
    experts: tuple[int, ...]
    density: Density = 1.0
    parameters: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "experts", tuple(self.experts))
        if isinstance(self.density, list):  # as it comes from another process
            object.__setattr__(self, "density", tuple(self.density))
        object.__setattr__(self, "parameters", other_than_default(self.operator, self.parameters))

    @property
    def label(self) -> str:
        """The operator, with its settings where they are not the defaults."""
        fixed = isinstance(self.density, int | float) and self.density != 1.0
        given: dict[str, Any] = {"density": self.density} if fixed else {}
        shown = [f"{name}={value:g}" for name, value in {**given, **self.parameters}.items()]
        return f"{self.operator}({', '.join(shown)})" if shown else self.operator

    @property
    def is_chain(self) -> bool:
        """Whether its experts are merged one after the other."""
        return len(self.experts) > 1 and OPERATORS[self.operator].max_experts == 1

    @property
    def experts_label(self) -> str:
        """Numbers of the experts: `1+2` are merged at once, `2>1` first the second."""
        return (">" if self.is_chain else "+").join(map(str, self.experts))

    @property
    def formula(self) -> Hashable:
        """What decides its merges: arms of one formula are the same merge at all weights.

        TIES elects signs among several experts; of one expert that is kept whole it is the linear
        merge, and so are its relatives.
        """
        operator = OPERATORS[self.operator]
        if operator.dense is None or self.density != 1.0:
            return self.label, self.experts
        options = {"lambda": 1.0, "normalize": 0.0, **operator.options(self.parameters)}
        elects = operator.dense == "election" and len(self.experts) > 1
        return elects, options["lambda"], options["normalize"], self.experts

    @property
    def keeps_experts(self) -> bool:
        """Whether one expert at weight 1, the others at 0, can be that expert exactly."""
        operator, density = OPERATORS[self.operator], self.density
        if isinstance(density, Mapping):
            density = min(density.values())
        whole = 1.0 if isinstance(density, tuple) else density
        return operator.keeps_expert(operator.options(self.parameters), whole)


def _text(choice: object) -> object:
    """Return a choice as it is named: JSON files may say the number of an expert alone, `1`."""
    return str(choice) if isinstance(choice, int) and not isinstance(choice, bool) else choice


@dataclass(frozen=True)
class MergeSettings:
    """How the weights of a model are parametrised.

    Args:
        operator: Name in `operators.OPERATORS`. An operator that takes one expert merges several
            one after the other.
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
        arms: What is searched beside weights, instead of `operator`, `density` and `parameters`.
            Defaults to (): they are fixed, and all experts are merged.
        precision: Of the linear layers, as they are served. Defaults to None: as they are merged.
    """

    operator: str = "linear"
    granularity: Granularity = "layer"
    embeddings: EdgeRule = "merge"
    head: EdgeRule = "merge"
    n_experts: int = 1
    density: Density = 1.0
    parameters: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    blocks: tuple[int, ...] = ()
    router: EdgeRule = "merge"
    towers: TowerRule = "equal"
    n_heads: int = 0
    arms: tuple[Arm, ...] = ()
    precision: Precision | None = None

    def __post_init__(self) -> None:
        if isinstance(self.density, list):  # as it comes from YAML, JSON or another process
            object.__setattr__(self, "density", tuple(self.density))
        if isinstance(self.precision, Mapping):
            object.__setattr__(self, "precision", Precision(**self.precision))
        arms = tuple(Arm(**arm) if isinstance(arm, Mapping) else arm for arm in self.arms)
        object.__setattr__(self, "arms", arms)

    @property
    def density_bounds(self) -> tuple[float, float] | None:
        """Bounds of a density that is searched; None if it is not."""
        given = [self.density] if not self.arms else [arm.density for arm in self.arms]
        return next((density for density in given if isinstance(density, tuple)), None)

    @property
    def widest(self) -> dict[str, str]:
        """Parameters of the precision that changes weights least; none if it is not searched."""
        return {} if self.precision is None else self.precision.widest

    @property
    def categories(self) -> dict[str, list[str]]:
        """All that is chosen beside weights, the arm and precisions: parameter -> values."""
        if self.precision is None:
            return self.choices
        return self.choices | {n: [*self.precision.choices] for n in self.precision.names}

    @property
    def choices(self) -> dict[str, list[str]]:
        """What names the arm, where there is a choice: parameter -> values."""
        found = {
            OPERATOR: list(dict.fromkeys(arm.label for arm in self.arms)),
            EXPERTS: list(dict.fromkeys(arm.experts_label for arm in self.arms)),
        }
        return {name: values for name, values in found.items() if len(values) > 1}

    def choice(self, arm: int) -> dict[str, str]:
        """Return an arm's values of the same parameters."""
        chosen = self.arms[arm]
        values = {OPERATOR: chosen.label, EXPERTS: chosen.experts_label}
        return {name: values[name] for name in self.choices}

    def arm_of(self, params: Mapping[str, Any]) -> int:
        """Return the place of the arm that a candidate's parameters name.

        An arm that is left out because another one is the same merge is that one: studies that
        measured both are read, and weights files may name either.

        Raises:
            LayoutError: If there is no such arm.
        """
        wanted = {name: _text(params.get(name)) for name in self.choices}
        for place in range(len(self.arms)):
            if self.choice(place) == wanted:
                return place
        for named in [arm for arm in self.arms if arm.label == wanted.get(OPERATOR)][:1]:
            for place, arm in enumerate(self.arms):
                same = replace(named, experts=arm.experts).formula == arm.formula
                if same and arm.experts_label == wanted.get(EXPERTS):
                    return place
        raise LayoutError(
            f"A candidate must name an operator and the experts that it merges: "
            f"{self._why_none(wanted)}."
        )

    def _why_none(self, wanted: Mapping[str, object]) -> str:
        """Return which choice is none; where each is one, which experts the operator merges."""
        for name, values in self.choices.items():
            if wanted[name] not in values:
                return f"{name!r} must be one of {', '.join(values)}, but got {wanted[name]!r}"
        of = [arm.experts_label for arm in self.arms if arm.label == wanted[OPERATOR]]
        return f"{wanted[OPERATOR]} merges {', '.join(of)}, but {EXPERTS!r} is {wanted[EXPERTS]!r}"

    def fixed(self) -> Sequence["MergeSettings"]:
        """Return the settings of every arm, as those of a study of it alone."""
        return [
            replace(
                self,
                operator=arm.operator,
                n_experts=len(arm.experts),
                density=arm.density,
                parameters=arm.parameters,
                arms=(),
            )
            for arm in self.arms
        ] or [self]

    def merger(self, remember: bool = False, chunk: int = CHUNK) -> Merger:
        """Return what applies the operator to tensors; see `Merger`."""
        operator = OPERATORS[self.operator]
        # Every density has masks of its own: of a searched one they are not worth their memory.
        remember = remember and self.density_bounds is None
        return Merger(operator, operator.options(self.parameters), self.seed, remember, chunk)
