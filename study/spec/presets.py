"""Presets: the published methods as bundles of spec keys.

A preset fills in what a spec leaves open; keys that the spec gives are kept. `mergefront compare`
lets the preset win, so that one spec serves all methods.
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args

Preset = Literal[
    "mergefront",
    "qnehvi",
    "sip-bmm",
    "ap-bmm",
    "bambo",
    "gp",
    "tpe",
    "nsga2",
    "moead-cmaes",
    "random",
    "uniform",
    "task-arithmetic",
    "ties",
    "dare",
    "breadcrumbs",
    "della",
]
PRESETS: tuple[Preset, ...] = get_args(Preset)
Overrides = Mapping[str, Mapping[str, Any]]

_BMM = {"startup": "sobol"}
# One weight for the whole model; embeddings and head follow it.
_MODEL_LEVEL = {"granularity": "uniform", "embeddings": "merge", "head": "merge"}
# As AP-BMM's baselines: weights over the bounds at three densities.
_DENSITIES = [0.7, 0.9]


def _sweep(operator: str, **merge: Any) -> Overrides:
    return {
        "merge": {**_MODEL_LEVEL, "operator": operator, "density": 1.0, "parameters": {}, **merge},
        "importance": {"kind": "none"},
        "sampler": {"startup": "grid"},
    }


_OVERRIDES: dict[str, Overrides] = {
    "sip-bmm": {
        "importance": {"kind": "parameter", "norm": "absolute"},
        "sampler": {**_BMM, "batch": 4},
    },
    "ap-bmm": {
        "importance": {"kind": "both"},
        "sampler": {**_BMM, "rerank": {"gap": 0.25, "proximity": 0.15, "pool": 6}},
    },
    "bambo": {
        "merge": {"granularity": "blocks"},
        "importance": {"kind": "none"},
        "sampler": {**_BMM, "batch": 4, "acquisition": "qehvi", "lengthscales": "default"},
    },
    "moead-cmaes": {"importance": {"kind": "none"}, "sampler": {"startup": "sobol"}},
    "uniform": _sweep("linear"),
    "task-arithmetic": _sweep("task_arithmetic"),
    "ties": _sweep("ties", density=_DENSITIES),
    "dare": _sweep("dare_linear", density=_DENSITIES),
    "breadcrumbs": _sweep("breadcrumbs", density=_DENSITIES),
    # DELLA keeps elements with probabilities around the density: 0.9 + 0.05 is still one.
    "della": _sweep("della_linear", density=_DENSITIES, parameters={"epsilon": 0.05}),
}


def overrides_of(preset: str) -> Overrides:
    """Return a preset's keys by section; nothing for what is no preset of a bundle."""
    return _OVERRIDES.get(preset, {})


def fill_in(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a spec's content with what its preset says where the spec says nothing."""
    sampler = content.get("sampler")
    preset = sampler.get("preset", "") if isinstance(sampler, Mapping) else ""
    filled = dict(content)
    for section, keys in overrides_of(str(preset)).items():
        given = filled.get(section, {})
        if isinstance(given, Mapping):
            filled[section] = {**keys, **given}
    return filled


def with_overrides(content: Mapping[str, Any], overrides: Overrides) -> dict[str, Any]:
    """Return a spec's content with other values for some of its keys."""
    changed = dict(content)
    for section, keys in overrides.items():
        changed[section] = {**(changed.get(section) or {}), **keys}
    return changed
