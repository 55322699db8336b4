"""The text files beside an exported checkpoint: model card and recipe."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from ....objectives.merging.precision import FORMATS
from .licences import joined_licence

_HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")


# Metric -> value and standard error.
Scores = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Provenance:
    """Where a merged checkpoint comes from.

    Args:
        title: First heading of the card.
        parents: Role (`base`, `expert 1`, ..., numbers as in the study) -> name and hash of the
            weights; `source` is what the spec names, `licence` what the parent's card says, both
            where they are known.
        operator: Of the merge.
        dtype: Of the merge's inputs and output.
        weights: Search variable -> one number per expert, in the order of `parents`.
        settings: What else decides the bytes: granularity, rules of embeddings and head, density,
            parameters, seed.
        scores: Heading -> scores; what is worth most comes first. Empty for an unmeasured merge.
        mergekit: The same merge as a configuration of mergekit; empty if it has none.
        picture: File of the front's picture beside the card; empty if there is none.
        arm: Operator and experts as the study names them; empty if it searched neither.
        parameters: Of the trial in such a study; empty if no trial made it.
        precision: Of the linear layers, `int4`, or of each group of layers, `bfloat16/int4`; empty
            if they are as they were merged.
    """

    title: str
    parents: Mapping[str, Mapping[str, str]]
    operator: str
    dtype: str
    weights: Mapping[str, Any]
    settings: Mapping[str, Any]
    scores: Mapping[str, Scores]
    mergekit: str = ""
    picture: str = ""
    arm: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    precision: str = ""


def recipe_yaml(provenance: Provenance) -> str:
    """Return all that is needed to make the same bytes again."""
    content = {
        "parents": {role: dict(parent) for role, parent in provenance.parents.items()},
        "operator": provenance.operator,
        "dtype": provenance.dtype,
        "settings": dict(provenance.settings),
        "weights": dict(provenance.weights),
        **({"arm": provenance.arm} if provenance.arm else {}),
        **({"precision": provenance.precision} if provenance.precision else {}),
        **({"study_parameters": dict(provenance.parameters)} if provenance.parameters else {}),
    }
    return str(yaml.safe_dump(content, sort_keys=False))


def model_card(provenance: Provenance) -> str:
    """Return the README of a merged checkpoint, with the metadata that model hubs read."""
    picture = f"![All measured models, and this one's front]({provenance.picture})\n"
    return "\n".join(
        [
            "---",
            yaml.safe_dump(_metadata(provenance), sort_keys=False).strip(),
            "---",
            f"# {provenance.title}",
            "",
            f"A layer-wise merge ({provenance.operator}, {provenance.dtype}) made by "
            "[MergeFront](https://github.com/mergefront/mergefront).",
            *_arm(provenance),
            *_precision(provenance),
            "",
            *_scores(provenance),
            *([picture] if provenance.picture else []),
            "## Use",
            "",
            *_USAGE,
            "## Parents",
            "",
            "| parent | model | licence | weights |",
            "|---|---|---|---|",
            *(_parent_row(role, parent) for role, parent in provenance.parents.items()),
            "",
            "## Weights",
            "",
            "Weight 0 is the base, 1 the expert; of several experts each has one, in the order "
            "of the table above. `recipe.yaml` holds the exact numbers.",
            "",
            "| variable | weight |",
            "|---|---|",
            *(f"| {name} | {_shown(weight)} |" for name, weight in provenance.weights.items()),
            "",
            *_mergekit(provenance),
        ]
    )


def _arm(provenance: Provenance) -> list[str]:
    if not provenance.arm:
        return []
    return [
        f"It is what its study calls `{provenance.arm}`, and its experts have the study's numbers."
    ]


def _precision(provenance: Provenance) -> list[str]:
    named = provenance.precision.split("/")
    if FORMATS.keys().isdisjoint(named):
        return []  # nothing is rounded
    merged = [f" `{name}` is as merged." for name in dict.fromkeys(named) if name not in FORMATS]
    return [
        f"Its linear layers are rounded to the nearest in `{provenance.precision}` (one name for "
        "all layers, or one for each group of neighbouring layers), stored by compressed-tensors, "
        "which loading needs: `pip install compressed-tensors`." + "".join(merged)
    ]


_USAGE = [
    "```python",
    "from transformers import AutoModelForCausalLM, AutoTokenizer",
    "",
    'folder = "."  # of this file, or the name of this model on the hub',
    "tokenizer = AutoTokenizer.from_pretrained(folder)",
    "model = AutoModelForCausalLM.from_pretrained(folder)",
    'messages = [{"role": "user", "content": "..."}]',
    "inputs = tokenizer.apply_chat_template(",
    '    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True',
    ")",
    "answer = model.generate(**inputs, max_new_tokens=512)",
    'print(tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :]))',
    "```",
    "",
]


def _metadata(provenance: Provenance) -> dict[str, Any]:
    """Return what model hubs read: family tree, licence, library."""
    parents = list(provenance.parents.values())
    sources = [p["source"] for p in parents if _HUB_ID.match(p.get("source", ""))]
    licence = joined_licence([parent.get("licence") for parent in parents])
    return {
        **({"base_model": sources, "base_model_relation": "merge"} if sources else {}),
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["merge", "mergefront"],
        **({"license": licence} if licence else {}),
    }


def _parent_row(role: str, parent: Mapping[str, str]) -> str:
    name = parent.get("source") or parent["name"]
    return f"| {role} | {name} | {parent.get('licence') or 'not named'} | `{parent['hash']}` |"


def _scores(provenance: Provenance) -> list[str]:
    if not provenance.scores:
        return ["Not measured.", ""]
    heads = list(provenance.scores)
    metrics = dict.fromkeys(m for scores in provenance.scores.values() for m in scores)
    rows = [
        f"| {m} | {' | '.join(_score(provenance.scores[head].get(m)) for head in heads)} |"
        for m in metrics
    ]
    return [
        "Values ± standard errors; what is worth most comes first:",
        "",
        f"| metric | {' | '.join(heads)} |",
        f"|---|{'---|' * len(heads)}",
        *rows,
        "",
    ]


def _score(pair: tuple[float, float] | None) -> str:
    return "" if pair is None else f"{pair[0]:.4g} ± {pair[1]:.2g}"


def _mergekit(provenance: Provenance) -> list[str]:
    if not provenance.mergekit:
        return []
    return [
        "## The same merge in mergekit",
        "",
        "```yaml",
        provenance.mergekit.strip(),
        "```",
        "",
    ]


def _shown(weight: object) -> str:
    numbers = weight if isinstance(weight, list | tuple) else [weight]
    return ", ".join(each if isinstance(each, str) else f"{each:.4f}" for each in numbers)
