"""The picture of `docs/benchmarks/simmerge.md`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

# Okabe and Ito: they stay apart for colour-blind readers; line styles and markers differ as well.
_LINES = {
    "random": ("#7f7f7f", "--", ""),
    "best fixed operator": ("#000000", "--", ""),
    "LinUCB, knowing nothing": ("#E69F00", "-", "o"),
    "LinUCB, after other models": ("#D55E00", "-", "s"),
    "neural-linear, knowing nothing": ("#56B4E9", "-", "^"),
    "neural-linear, after other models": ("#0072B2", "-", "D"),
}
_SHOWN = {"random operator": "random", "random order and operators": "random", "predictor": ""}


def draw(
    shares: Mapping[str, Sequence[Mapping[str, float]]],
    regret: Sequence[Mapping[str, Sequence[float]]],
    path: Path,
) -> None:
    """Draw shares of the gap closed, and bandits' regret over rounds; bars are standard errors.

    Args:
        shares: Title -> for each split, selector -> share.
        regret: For each split, selector -> cumulative regret over rounds.
        path: Of the picture.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    bars = [
        (f"{title}: {_SHOWN[name] or name}", [split[name] for split in splits])
        for title, splits in shares.items()
        for name in splits[0]
        if name in _SHOWN
    ]
    for place, (_, values) in enumerate(reversed(bars)):
        error = _error(values)
        left.barh(place, np.mean(values), xerr=error, color="#0072B2", capsize=3, height=0.6)
    left.set_yticks(range(len(bars)), [name for name, _ in reversed(bars)])
    left.axvline(0, color="black", linewidth=0.8)
    left.axvline(1, color="black", linewidth=0.8, linestyle=":")
    left.set_xlabel("share of the gap closed: 0 best fixed operator, 1 oracle")
    for place, name in enumerate(regret[0], start=1):
        lists = [split[name] for split in regret]
        n = min(map(len, lists))
        curve = np.mean([values[:n] for values in lists], axis=0)
        colour, style, marker = _LINES[name]
        right.plot(
            np.arange(1, n + 1),
            curve,
            style,
            color=colour,
            marker=marker,
            markevery=9,
            markersize=4,
            label=name,
        )
        error = _error([values[n - 1] for values in lists])
        # Side by side behind the last round, so that they can be told apart.
        right.errorbar(n + place, curve[-1], error, color=colour, capsize=2)
    left.set_title("How much of the possible gain the choice gets", fontsize=10)
    right.set_title("Learning while merging (lower is better)", fontsize=10)
    right.set_xlabel("round (one merge measured); bars: standard errors")
    right.set_ylabel("cumulative regret (sum of lost accuracy)")
    right.set_ylim(bottom=0)
    right.legend(frameon=False, fontsize=8, loc="upper left")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _error(values: Sequence[float]) -> float:
    """Return the standard error of the mean over splits."""
    return float(np.std(values, ddof=1)) / float(np.sqrt(len(values)))
