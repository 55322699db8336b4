"""Searches of `make bench-smollm2` beside each other, on fresh questions.

    python benchmarks/smollm2/ways.py --plot docs/images/smollm2-ways.png

`searches.json` has them; `searches.py` adds what was finished on this machine. Two scores: the
hypervolume (one reference point for all), and the selection regret of who picks, for each of 19
preferences, the model whose believed utility is best: what is lacking to the best utility of any
model measured in these searches, a long one among them, or of the merge that the pair was made
for, as a share of it.
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from optuna.study import StudyDirection
from searches import WAYS, Rows, Search, Searches

from mergefront.samplers import preference_weights
from mergefront.study.results.front import hypervolume

PREFERENCES = preference_weights(None, 2).numpy()
DIRECTIONS = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]
_MARGIN, _FEW_TOKENS = 0.1, 20.0
# Colours that stay apart for colour-blind readers (Okabe and Ito), and shapes.
_COLORS = [
    "#0072B2",
    "#56B4E9",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#000000",
    "#999999",
    "#CC79A7",
    "#555555",
    "#7B3F00",
    "#56B4E9",
]
_MARKERS = "oDxs^PvP*+h"

Array = NDArray[np.float64]


class Scale:
    """Utilities in units of the parents' range, and the best of any model that was measured."""

    def __init__(self, known: Searches) -> None:
        base, expert = (np.array(known.landmarks[name]) for name in ("base", "expert"))
        self._low, self._high = np.array([base[0], expert[1]]), np.array([expert[0], base[1]])
        models = [*known.landmarks.values(), *(row for s in known.searches for row in s.fresh)]
        self._best = self.utilities(models).max(axis=0)

    def utilities(self, values: Rows) -> Array:
        """Return the utility of each model for each preference."""
        units = (np.array(values) - self._low) / (self._high - self._low) + _MARGIN
        worth: Array = (units[:, None, :] / PREFERENCES).min(axis=2)
        return worth

    def regret(self, search: Search) -> float:
        """Return what picks by belief lack, as a mean share of the best."""
        picks = self.utilities(search.believed).argmax(axis=0)
        got = self.utilities(search.fresh)[picks, np.arange(len(PREFERENCES))]
        return float(np.mean((self._best - got) / self._best))


@dataclass(frozen=True)
class Scored:
    """A search with its scores."""

    search: Search
    reference_point: list[float]
    regret: float

    @property
    def name(self) -> str:
        """What the way is called in tables."""
        return WAYS[self.search.way]

    @cached_property
    def volume(self) -> float:
        """Hypervolume on fresh questions."""
        return self._volume(self.search.fresh)

    @cached_property
    def believed(self) -> float:
        """Hypervolume as the search believes it."""
        return self._volume(self.search.believed)

    @property
    def shortest(self) -> str:
        """The best model with fewer than 20 tokens, with the standard error of its accuracy."""
        models = zip(self.search.fresh, self.search.errors, strict=True)
        (accuracy, tokens), errors = max(m for m in models if m[0][1] < _FEW_TOKENS)
        return f"{accuracy:.3f} ± {errors[0]:.3f}, {tokens:.1f} tokens"

    def _volume(self, rows: Rows) -> float:
        values = torch.tensor(rows, dtype=torch.double)
        return float(hypervolume(values, self.reference_point, DIRECTIONS))


def main() -> None:
    """Print the tables as Markdown, and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    known = Searches.read()
    scale = Scale(known)
    found = [Scored(s, known.reference_point, scale.regret(s)) for s in known.searches]
    _print_searches(found)
    _print_ways(found)
    if arguments.plot:
        _draw(found).savefig(arguments.plot)


def _print_searches(found: Sequence[Scored]) -> None:
    further = ("selection regret", "models", "tokens generated", "best with fewer than 20 tokens")
    print(_head("way", "seed", "hypervolume, searched", "fresh", *further))
    for one in found:
        volumes = f"{one.believed:.1f} | {one.volume:.1f} | {one.regret:.3f}"
        rest = f"{len(one.search.fresh)} | {one.search.tokens:,} | {one.shortest}"
        print(f"| {one.name} | {one.search.seed} | {volumes} | {rest} |")


def _print_ways(found: Sequence[Scored]) -> None:
    """Print means over seeds, and differences from the first way paired by seed."""
    ours = {one.search.seed: one for one in found if one.name == found[0].name}
    ways: dict[str, list[Scored]] = defaultdict(list)
    for one in found:
        ways[one.name].append(one)
    print(
        "\n" + _head("way", "seeds", "hypervolume", "less than ours", "regret", "more", "tokens")
    )
    for name, group in ways.items():
        pairs = [(ours[one.search.seed], one) for one in group if one.search.seed in ours]
        less = _mean([a.volume - b.volume for a, b in pairs], 1)
        more = _mean([b.regret - a.regret for a, b in pairs], 3)
        volume, regret = _mean([s.volume for s in group], 1), _mean([s.regret for s in group], 3)
        tokens = fmean(one.search.tokens for one in group)
        print(f"| {name} | {len(group)} | {volume} | {less} | {regret} | {more} | {tokens:,.0f} |")


def _head(*titles: str) -> str:
    return f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}"


def _mean(values: Sequence[float], digits: int) -> str:
    if not values:
        return ""
    error = f" ± {stdev(values) / len(values) ** 0.5:.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{error}"


def _draw(found: Sequence[Scored]) -> Figure:
    """Draw each search: what it generated, and what its front is worth."""
    figure = Figure(figsize=(8.0, 4.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for name, color, marker in zip(WAYS.values(), _COLORS, _MARKERS, strict=True):
        own = [(one.search.tokens / 1000, one.volume) for one in found if one.name == name]
        if own:
            axes.plot(*zip(*own, strict=True), marker, color=color, markersize=8, label=name)
    axes.set_xlabel("tokens generated by a search, thousands")
    axes.set_ylabel("hypervolume on fresh questions, higher is better")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e8ebee", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


if __name__ == "__main__":
    main()
