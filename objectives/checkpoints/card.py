"""The text files beside an exported checkpoint: model card and recipe."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml


@dataclass(frozen=True)
class Provenance:
    """Where a merged checkpoint comes from.

    Args:
        title: First heading of the card.
        parents: Role (`base`, `expert 1`, ...) -> name and hash of the weights.
        operator: Of the merge.
        dtype: Of the merge's inputs and output.
        weights: Search variable -> one number per expert.
        settings: What else decides the bytes: granularity, rules of embeddings and head, density,
            parameters, seed.
        scores: Metric -> (value, standard error), as measured; empty for an unmeasured merge.
        measured_on: What the scores were measured on.
    """

    title: str
    parents: Mapping[str, Mapping[str, str]]
    operator: str
    dtype: str
    weights: Mapping[str, Any]
    settings: Mapping[str, Any]
    scores: Mapping[str, tuple[float, float]]
    measured_on: str


def recipe_yaml(provenance: Provenance) -> str:
    """Return all that is needed to make the same bytes again."""
    content = {
        "parents": {role: dict(parent) for role, parent in provenance.parents.items()},
        "operator": provenance.operator,
        "dtype": provenance.dtype,
        "settings": dict(provenance.settings),
        "weights": dict(provenance.weights),
    }
    return str(yaml.safe_dump(content, sort_keys=False))


def model_card(provenance: Provenance) -> str:
    """Return the README of a merged checkpoint, with the metadata that model hubs read."""
    return "\n".join(
        [
            "---",
            "tags: [merge, mergefront]",
            "---",
            f"# {provenance.title}",
            "",
            f"A layer-wise merge ({provenance.operator}, {provenance.dtype}) made by MergeFront.",
            "",
            "| parent | model | weights |",
            "|---|---|---|",
            *(
                f"| {role} | {parent['name']} | `{parent['hash']}` |"
                for role, parent in provenance.parents.items()
            ),
            "",
            *_scores(provenance),
            "Weight 0 is the base, 1 the expert:",
            "",
            "| variable | weight |",
            "|---|---|",
            *(f"| {name} | {_shown(weight)} |" for name, weight in provenance.weights.items()),
            "",
            "`recipe.yaml` holds the exact numbers.",
            "",
        ]
    )


def _scores(provenance: Provenance) -> list[str]:
    if not provenance.scores:
        return ["Not measured.", ""]
    rows = [f"| {m} | {v:.4g} | {e:.2g} |" for m, (v, e) in provenance.scores.items()]
    return [
        f"Measured on {provenance.measured_on}:",
        "",
        "| metric | value | standard error |",
        "|---|---|---|",
        *rows,
        "",
    ]


def _shown(weight: object) -> str:
    numbers = weight if isinstance(weight, list | tuple) else [weight]
    return ", ".join(f"{number:.4f}" for number in numbers)
