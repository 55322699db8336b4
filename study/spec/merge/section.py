"""The spec's section `merge`: how candidates are merged, and by which operators."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from ....objectives.merging import (
    OPERATORS,
    Arm,
    EdgeRule,
    Granularity,
    MergeSettings,
    TowerRule,
)
from ....objectives.merging.precision import PrecisionName, precisions
from ..base import Section, check_choice
from .precision import PrecisionSection, precision_of

Density = Annotated[float, Field(gt=0, le=1)]


class OperatorSection(Section):
    """One of the operators to choose from, with its settings.

    Args:
        name: The merge formula.
        density: Share of each task vector that is kept. Defaults to None: what `merge.density`
            says, if the operator leaves out any.
        parameters: Of the operator, such as `lambda`.
    """

    name: str
    density: Density | None = None
    parameters: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_choice("operator", self.name, list(OPERATORS))
        return self


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


_Listed = Annotated[
    OperatorSection, BeforeValidator(_named, json_schema_input_type=str | OperatorSection)
]
# Told apart before they are read, so that a mistake is told once.
_Operators = Annotated[
    Annotated[str, Tag("<name>")] | Annotated[list[_Listed], Tag("<list>")],
    Discriminator(lambda value: "<list>" if isinstance(value, list) else "<name>"),
]


# Told apart in the same way.
_Precision = Annotated[
    Annotated[PrecisionName, Tag("<name>")] | Annotated[PrecisionSection, Tag("<choice>")],
    Discriminator(
        lambda value: "<choice>" if isinstance(value, dict | PrecisionSection) else "<name>"
    ),
]


class MergeSection(Section):
    """How candidates are merged, and which weights are searched.

    Args:
        operator: The merge formula, or a list of them to choose from, each a name or a name with
            settings.
        granularity: What has a weight of its own: the model, thirds, blocks, layers, the
            attention and the feed-forward module of each layer, or each layer's key/value heads,
            each with its query heads, and the rest of the layer. Blocks are layers that
            fine-tuning moved alike (`blocks`), or whose measured effects are alike
            (`learned-blocks`).
        bounds: Lowest and highest weight.
        embeddings: The embeddings are the base's, the expert's, merged with the mean layer
            weight, or searched.
        head: The same choice for final norm and output matrix.
        density: Share of each task vector that is kept; a mapping from search variables to
            shares, with `default` for the others; or two bounds between which it is searched.
        parameters: Parameters of the operator, such as `lambda`.
        seed: Random seed of the masks of sparsifying operators.
        n_blocks: Number of blocks for granularities `blocks` and `learned-blocks`.
        blocks: First layer of each block for these granularities, e.g. [0, 4, 20]. Defaults to
            None: `n_blocks` of them are found.
        router: The routers of mixtures of experts: merged with their layers, the base's, the
            expert's, or searched.
        towers: Vision and audio towers: `equal` keeps the base's and refuses experts whose towers
            differ; otherwise the base's, the expert's, merged, or searched.
        order: Whether operators that take one expert merge several one after the other: in the
            order in which they are listed (`given`), or in one that is searched. Defaults to
            None: they merge one.
        precision: In how many bits the linear layers are served: merges are rounded to it. Or
            `choose`, precisions that are searched for groups of layers. Defaults to None: as they
            are merged.
    """

    operator: _Operators = "linear"
    granularity: Granularity = "layer"
    bounds: tuple[float, float] = (0.0, 1.0)
    embeddings: EdgeRule = "merge"
    head: EdgeRule = "merge"
    density: Density | dict[str, Density] | tuple[Density, Density] = 1.0
    parameters: dict[str, float] = Field(default_factory=dict)
    seed: int = Field(default=0, ge=0)
    n_blocks: int = Field(default=6, ge=1)
    blocks: Annotated[tuple[int, ...], Field(min_length=1)] | None = None
    router: EdgeRule = "merge"
    towers: TowerRule = "equal"
    order: Literal["given", "search"] | None = None
    precision: _Precision | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_is_no_choice(cls, content: Any) -> Any:
        """Take an operator out of a list of it alone."""
        if isinstance(content, dict) and isinstance(several := content.get("precision"), list):
            raise ValueError(
                "precision must be one name, or `choose` with several, but got a list; write "
                f"precision: {_flow({'choose': several})}"
            )
        listed = content.get("operator") if isinstance(content, dict) else None
        if isinstance(listed, dict):
            raise ValueError(
                "operator must be a name, or a list to give one settings of its own: write "
                f"operator: [{_flow(listed)}]"
            )
        if not isinstance(listed, list | str | type(None)):
            raise ValueError(f"operator must be a name or a list of them, but got {listed!r:.60}")
        if not isinstance(listed, list) or not listed:
            return content
        only = listed[0]
        _check_entries(listed)
        if len(listed) > 1:
            return content
        if not isinstance(only, dict):
            return {**content, "operator": only}
        own = {key: value for key, value in only.items() if key != "name"}
        if twice := sorted(own.keys() & content.keys()):
            raise ValueError(f"{twice[0]} is given twice, for the operator and beside it")
        return {**content, **own, "operator": only.get("name")}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if isinstance(self.operator, str):
            check_choice("operator", self.operator, list(OPERATORS))
        elif not self.operator:
            raise ValueError("operator must be a name or a list of them, but the list is empty")
        elif self.parameters:
            raise ValueError(
                "parameters belong to one operator, but several are listed; write "
                "{name: OPERATOR, parameters: {...}} in the list"
            )
        low, high = self.bounds
        if not low < high:
            raise ValueError(
                f"bounds must be [low, high] with low < high, but got [{low:g}, {high:g}]; write "
                f"[{high:g}, {low:g}]"
                if low > high
                else f"bounds [{low:g}, {high:g}] are empty"
            )
        if self.blocks is not None and self.granularity not in ("blocks", "learned-blocks"):
            raise ValueError(
                "blocks belong to granularity blocks or learned-blocks, but it is "
                f"{self.granularity!r}; remove them"
            )
        if isinstance(self.density, tuple) and not self.density[0] < self.density[1]:
            raise ValueError(
                "a density that is searched must be [low, high] with low < high, but got "
                f"{list(self.density)}"
            )
        return self

    @property
    def operators(self) -> list[OperatorSection]:
        """All operators to choose from; one, if there is no choice."""
        if isinstance(self.operator, str):
            return [
                OperatorSection.model_construct(name=self.operator, parameters=self.parameters)
            ]
        return self.operator

    def settings(
        self, n_experts: int, blocks: tuple[int, ...] = (), arms: tuple[Arm, ...] = ()
    ) -> MergeSettings:
        """Return what the merge plan needs.

        Args:
            n_experts: Of all candidates.
            blocks: First layer of each block.
            arms: To choose from, if there is a choice.
        """
        return MergeSettings(
            operator=self.operators[0].name,
            granularity=self.granularity,
            embeddings=self.embeddings,
            head=self.head,
            n_experts=n_experts,
            density=self.density,
            parameters=self.parameters,
            seed=self.seed,
            blocks=blocks,
            router=self.router,
            towers=self.towers,
            arms=arms,
            precision=precision_of(self.precision),
        )

    def precision_of(self, params: Mapping[str, Any]) -> str:
        """Return a candidate's precision, `int4` or `bfloat16/int4`; "" for none."""
        return self.precision if isinstance(self.precision, str) else precisions(params)

    def density_of(self, section: OperatorSection) -> Any:
        """Return an operator's density, as a plan takes it; 1 for one that leaves nothing out."""
        if section.density is not None:
            return section.density
        sparse = OPERATORS[section.name].sparsify is not None
        return self.density if sparse or isinstance(self.operator, str) else 1.0


def _check_entries(listed: list[Any]) -> None:
    """Refuse what is neither a name nor settings, or searches one operator's density.

    Raises:
        ValueError: With what to write.
    """
    for each in listed:
        nameless = isinstance(each, dict) and "name" not in each and len(listed) == 1
        if nameless or not isinstance(each, str | dict):
            raise ValueError(
                "operator must be a list of names, or of {name: ..., density: ..., parameters: "
                f"...}}, but {each!r} is in it"
            )
        density = each.get("density") if isinstance(each, dict) else None
        if isinstance(density, list | dict) and len(listed) > 1:
            raise ValueError(
                f"the density of one of several operators must be one number, but got {density}; "
                "write it beside the list, as merge.density: it is searched, or given by "
                "variable, for all operators that have one"
            )


def _flow(section: dict[Any, Any]) -> str:
    """Return a mapping as it may stand in a YAML file."""
    return yaml.safe_dump(section, default_flow_style=True, sort_keys=False, width=1000).strip()
