"""The spec's sections on what is merged, and how: models, operators, and arms to choose from."""

from collections.abc import Iterable, Iterator
from itertools import combinations, permutations
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Discriminator, Field, StrictInt, Tag, model_validator

from ...errors import SpecError
from ...objectives.merging import (
    OPERATORS,
    Arm,
    EdgeRule,
    Granularity,
    MergeSettings,
    TowerRule,
)
from ...objectives.merging.operators import check_operator
from .base import Section, check_choice

_Name = Annotated[str, Field(min_length=1)]
Density = Annotated[float, Field(gt=0, le=1)]
# A proposal looks at every arm.
_MOST_ARMS = 100


class ChooseSection(Section):
    """How many of the experts a candidate merges.

    Args:
        min: The fewest.
        max: The most. Defaults to None: all of them.
    """

    min: int = Field(default=1, ge=1)
    max: int | None = Field(default=None, ge=1)


class ModelsSection(Section):
    """The parents.

    Args:
        base: The model at weight 0: a directory, relative to the spec's folder, or a hub id,
            `ORG/NAME[@REVISION][:SUBFOLDER]`.
        experts: The models at weight 1, or LoRA adapters of the base: directories or hub ids.
        dtype: Number format of the merged models; parents are converted when they are loaded.
        stop_tokens: Whose tokens end an answer: `all` parents', those of `base`, `expert`,
            `expert@2` or another model's directory, or a list of tokens or their numbers.
        chat_template: Whose renders the prompts: that of `base`, `expert`, `expert@2`, of a
            `.jinja` file, or of another model's directory.
        choose: How many experts a candidate merges; which, is searched. Defaults to None: all.
    """

    base: str
    experts: list[str] = Field(min_length=1)
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    stop_tokens: _Name | Annotated[list[StrictInt | _Name], Field(min_length=1)] = "all"
    chat_template: _Name = "base"
    choose: ChooseSection | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        low, high = self.sizes.start, self.sizes.stop - 1
        if not low <= high <= len(self.experts):
            raise ValueError(
                f"`min <= max` and at most {len(self.experts)} experts must hold in `choose`, but "
                f"got min {low} and max {high}"
            )
        return self

    @property
    def sizes(self) -> range:
        """How many experts a candidate may merge."""
        n = len(self.experts)
        if self.choose is None:
            return range(n, n + 1)
        return range(self.choose.min, (self.choose.max or n) + 1)


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


# Told apart before they are read, so that a mistake is told once.
_Operators = Annotated[
    Annotated[str, Tag("<name>")] | Annotated[list[OperatorSection], Tag("<list>")],
    Discriminator(lambda value: "<list>" if isinstance(value, list) else "<name>"),
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

    @model_validator(mode="before")
    @classmethod
    def _one_is_no_choice(cls, content: Any) -> Any:
        """Take an operator out of a list of it alone, and read names as operators."""
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
            named = [{"name": each} if isinstance(each, str) else each for each in listed]
            return {**content, "operator": named}
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
        listed = self.operator
        return [OperatorSection(name=o) if isinstance(o, str) else o for o in listed]

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
        )

    @property
    def densities(self) -> list[float]:
        """All densities that occur."""
        if isinstance(self.density, dict):
            return list(self.density.values())
        return list(self.density) if isinstance(self.density, tuple) else [self.density]

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
    """Return what a candidate may be merged by, and which operators do not take which experts.

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
        arms += found
        left_out += missing
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
