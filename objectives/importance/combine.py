"""From raw scores to importance in [0, 1]."""

from collections.abc import Mapping


def rescale(scores: Mapping[str, float]) -> dict[str, float]:
    """Return the scores mapped linearly so that the smallest is 0 and the largest 1.

    Equal scores say nothing about which parameter matters, and all become 0.5.
    """
    low, high = min(scores.values()), max(scores.values())
    if high <= low:
        return dict.fromkeys(scores, 0.5)
    return {name: (score - low) / (high - low) for name, score in scores.items()}
