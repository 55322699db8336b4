"""What is known about an ordered pair of models."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean, pstdev
from typing import Any

# Places of two models, the merge's first one first.
Pair = tuple[int, int]
_RATIO = "norm_ratio"
# Signals that depend on the order. The reversed pair's `kl` is called `reverse_kl`: one of both is
# enough.
_ONE_SIDED, _MIRRORED = re.compile(r"\bkl\b|^entropy|norm_ratio"), re.compile(r"\breverse_kl\b")
_SMALLEST = 1e-12


@dataclass(frozen=True)
class Signals:
    """Numbers of a pair: single ones, and profiles with one number per layer.

    Args:
        scalars: Name -> number.
        profiles: Name -> one number per layer, in depth.
    """

    scalars: Mapping[str, float] = field(default_factory=dict)
    profiles: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def __or__(self, other: "Signals") -> "Signals":
        """Return both together."""
        return Signals({**self.scalars, **other.scalars}, {**self.profiles, **other.profiles})

    def features(self) -> dict[str, float]:
        """Return the same numbers of features for models of any depth.

        A profile becomes its mean, standard deviation and extremes, and the means of its thirds.
        Ratios become logarithms, which the reversed pair has with the other sign.
        """
        features = {name: _linear(name, value) for name, value in self.scalars.items()}
        for name, profile in self.profiles.items():
            summary = _summary(tuple(_linear(name, value) for value in profile))
            features |= {f"{name}.{key}": value for key, value in summary.items()}
        return features

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        profiles = {name: list(profile) for name, profile in self.profiles.items()}
        return {"scalars": dict(self.scalars), "profiles": profiles}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Signals":
        """Read what `to_json` returned."""
        profiles = {name: tuple(profile) for name, profile in content["profiles"].items()}
        return cls(dict(content["scalars"]), profiles)


def merge_features(there: Signals, back: Signals, is_ordered: bool) -> dict[str, float]:
    """Return the features of a merge, of one length for models of any depth.

    Most operators treat both models alike, and so do these: the mean of both orders, and for the
    few signals that depend on the order half the difference, `name.gap` at least 0 and, for an
    operator that does not treat both alike, `name.order` with its sign (0 for others).

    Args:
        there: Signals of the first and second model.
        back: Signals of the second and first.
        is_ordered: Whether the operator's result depends on the order.
    """
    backward = back.features()
    features: dict[str, float] = {}
    for name, forward in there.features().items():
        if _MIRRORED.search(name):
            continue
        features[name] = (forward + backward[name]) / 2
        if _ONE_SIDED.search(name):
            half = (forward - backward[name]) / 2
            features[f"{name}.gap"] = abs(half)
            features[f"{name}.order"] = half if is_ordered else 0.0
    return features


def _linear(name: str, value: float) -> float:
    return math.log(max(value, _SMALLEST)) if name.endswith(_RATIO) else value


def _summary(profile: tuple[float, ...]) -> dict[str, float]:
    n = len(profile)
    cuts = [round(third * n / 3) for third in range(4)]
    thirds = [profile[start:end] or profile for start, end in pairwise(cuts)]
    ends = dict(zip(("early", "middle", "late"), map(fmean, thirds), strict=True))
    summary = {"mean": fmean(profile), "std": pstdev(profile)}
    return summary | {"min": min(profile), "max": max(profile)} | ends
