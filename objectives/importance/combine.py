"""From raw scores to importance in [0, 1]."""

import math
import re
from collections.abc import Mapping, Sequence
from statistics import fmean, median

_NUMBERED = re.compile(r"(.*?)(\d+)(.*)")
_KERNEL = (0.25, 0.5, 0.25)
# AP-BMM's floor: no layer is declared unimportant.
_FLOOR = 0.05
_SMALLEST_MAD = 1e-8
# Makes the median absolute deviation of a normal distribution its standard deviation.
_MAD_TO_DEVIATION = 1.4826


def rescale(scores: Mapping[str, float]) -> dict[str, float]:
    """Return the scores mapped linearly so that the smallest is 0 and the largest 1.

    Equal scores say nothing about which parameter matters, and all become 0.5.
    """
    low, high = min(scores.values()), max(scores.values())
    if high <= low:
        return dict.fromkeys(scores, 0.5)
    return {name: (score - low) / (high - low) for name, score in scores.items()}


def robust(scores: Mapping[str, float]) -> dict[str, float]:
    """Return AP-BMM's normalisation: a sigmoid of the distance from the median, in robust units.

    The unit is 1.4826 times the median absolute deviation; where that is 0, `rescale` is used.
    """
    centre = median(scores.values())
    deviation = median(abs(score - centre) for score in scores.values())
    if deviation < _SMALLEST_MAD:
        return rescale(scores)
    unit = _MAD_TO_DEVIATION * deviation
    # The sigmoid, written so that nothing overflows.
    return {name: 0.5 + 0.5 * math.tanh((v - centre) / unit / 2) for name, v in scores.items()}


def smooth(scores: Mapping[str, float]) -> dict[str, float]:
    """Return the scores averaged with their neighbours' in depth, by 1/4, 1/2, 1/4.

    Parameters whose names differ in one number alone are layers, in its order. First and last
    ones, and what has no number, stay as they are.
    """
    smoothed = dict(scores)
    for names in _profiles(scores).values():
        for i in range(1, len(names) - 1):
            near = [scores[name] for name in names[i - 1 : i + 2]]
            smoothed[names[i]] = sum(w * v for w, v in zip(_KERNEL, near, strict=True))
    return smoothed


def _profiles(scores: Mapping[str, float]) -> dict[tuple[str, str], list[str]]:
    profiles: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for name in scores:
        if match := _NUMBERED.fullmatch(name):
            stem, number, rest = match.groups()
            profiles.setdefault((stem, rest), []).append((int(number), name))
    return {key: [name for _, name in sorted(rows)] for key, rows in profiles.items()}


def combine(signals: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return AP-BMM's importance: signals made robust, averaged, smoothed, and floored at .05.

    Args:
        signals: Parameter name -> raw score, one mapping a signal, over the same names.
    """
    normal = [robust(signal) for signal in signals]
    mean = {name: fmean(signal[name] for signal in normal) for name in signals[0]}
    return {name: min(max(value, _FLOOR), 1.0) for name, value in smooth(mean).items()}
