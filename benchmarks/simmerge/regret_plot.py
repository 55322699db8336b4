"""The picture of `docs/benchmarks/simmerge.md`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

_SHOWN = {"random operator", "random order and operators", "predictor"}


def draw(
    shares: Mapping[str, Mapping[str, Sequence[float]]],
    regret: Mapping[str, Sequence[Sequence[float]]],
    path: Path,
) -> None:
    """Draw shares of the gap closed, and bandits' regret over rounds.

    Args:
        shares: Title -> selector -> one number a split.
        regret: Selector -> cumulative regret over rounds, one list a split.
        path: Of the picture.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    bars = [
        (f"{title}: {name.split(' order')[0].split(' operator')[0]}", values)
        for title, rows in shares.items()
        for name, values in rows.items()
        if name in _SHOWN
    ]
    for place, (_, values) in enumerate(reversed(bars)):
        error = np.std(values, ddof=1) / np.sqrt(len(values))
        left.barh(place, np.mean(values), xerr=error, color="tab:blue", capsize=3, height=0.6)
    left.set_yticks(range(len(bars)), [name for name, _ in reversed(bars)])
    left.axvline(0, color="black", linewidth=0.8)
    left.axvline(1, color="black", linewidth=0.8, linestyle=":")
    left.set_xlabel("share of the gap closed: 0 best fixed operator, 1 oracle")
    for name, lists in regret.items():
        n = min(map(len, lists))
        curve = np.mean([values[:n] for values in lists], axis=0)
        style = "--" if name in ("random", "best fixed") else "-"
        right.plot(np.arange(1, n + 1), curve, style, label=name)
    right.set_xlabel("round: one pair of models, one merge measured")
    right.set_ylabel("cumulative regret (accuracy)")
    right.legend(frameon=False, fontsize=8)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
