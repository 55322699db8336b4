"""A front as rows: for data frames, notebooks and terminals. One row per model."""

import html
import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial

from ...errors import MissingExtraError
from ...objectives.evaluation.diagnosis import SIGNS
from ...objectives.merging.settings import arm_name, with_arm
from ..first_trials import is_uniform

if TYPE_CHECKING:
    import pandas as pd

# Uniform merges that show how values go from one parent to the other.
_A_CURVE = 4
# Standard errors within which two values may be one: 95 %.
_WITHIN = 1.96
# Of numbers from here on what is behind the point is not told: bytes have none.
_LARGE = 1000
_STYLE = "text-align: right; padding: 2px 10px; font-variant-numeric: tabular-nums"


def rounded(value: float, error: float) -> str:
    """Return `value ± error` with two digits of the error, as many as mean something."""
    if not math.isfinite(error):
        return f"{value:.3g}"
    exact = 0 if abs(value) >= _LARGE else 3
    digits = max(0, 1 - math.floor(math.log10(error))) if error > 0 else exact
    digits = min(digits, 6)
    return f"{round(value, digits) + 0.0:.{digits}f} ± {error:.{digits}f}"  # never -0.00


def with_interval(value: float, interval: tuple[float, float] | None) -> str:
    """Return a hypervolume as a text, with its interval if that is known."""
    return f"{value:.3f}" + (
        "" if interval is None else f" [{interval[0]:.3f}, {interval[1]:.3f}]"
    )


def role(trial: FrozenTrial) -> str:
    """Return what a trial is called beside its number: `base`, `uniform 0.50`, `search`.

    Where operator, experts or precision are searched, they are named: `search, ties of 1+2`.
    A parent has the precision of most bits.
    """
    name = str(trial.user_attrs.get("label") or trial.user_attrs.get("phase", ""))
    return name if is_uniform(trial) else with_arm(name, trial.params)


def arm_counts(trials: Sequence[FrozenTrial]) -> dict[str, int]:
    """Return how many trials each operator with its experts has, most first; none if all are one.

    Parents belong to any.
    """
    named = [arm_name(t.params) for t in trials if t.user_attrs.get("phase") != "parent"]
    return dict(Counter(name for name in named if name).most_common())


def thin_curve(trials: Sequence[FrozenTrial]) -> str | None:
    """Return what is to be said where uniform merges are compared with that are no curve.

    A study over operators, experts or precisions measures a few of each choice.
    """
    if not any(with_arm("", trial.params) for trial in trials):
        return None
    merges = [trial for trial in trials if trial.user_attrs.get("phase") == "uniform"]
    most = max(Counter(with_arm("", trial.params) for trial in merges).values(), default=0)
    if most >= _A_CURVE:
        return None
    return (
        f"of each choice at most {most} uniform merges were measured, which is no curve: what the "
        "front gains beside them may be what another uniform merge gains. A study of one choice "
        "measures its curve."
    )


def errors_of(trial: FrozenTrial) -> list[float]:
    """Return a trial's standard errors; nan where it has none."""
    known: list[float] = trial.user_attrs.get("standard_errors") or [math.nan] * len(trial.values)
    return known


def tied_sets(trials: Sequence[FrozenTrial]) -> list[list[int]]:
    """Return which models of a front cannot be told apart, by number.

    Each set is a run of neighbours of which no two differ in any objective by more than their
    errors explain (95 %, errors taken as independent). Sets may overlap.

    Args:
        trials: Of a front, in order, with their denoised values and errors.
    """
    runs: list[tuple[int, int]] = []
    for start in range(len(trials)):
        end = start + 1
        while end < len(trials) and all(_tied(trials[end], t) for t in trials[start:end]):
            end += 1
        if end - start > 1 and not (runs and runs[-1][1] >= end):
            runs.append((start, end))
    return [[trial.number for trial in trials[start:end]] for start, end in runs]


def _tied(one: FrozenTrial, other: FrozenTrial) -> bool:
    values = zip(one.user_attrs["denoised"], other.user_attrs["denoised"], strict=True)
    errors = zip(
        one.user_attrs["denoised_errors"], other.user_attrs["denoised_errors"], strict=True
    )
    return all(
        abs(a - b) <= _WITHIN * math.hypot(*pair)
        for (a, b), pair in zip(values, errors, strict=True)
    )


def signs_of_trial(trial: FrozenTrial) -> tuple[dict[str, int], int]:
    """Return how many answers were cut, how many show each other sign of trouble, and of how many.

    Args:
        trial: Its answers are those that it generated, repeats included.
    """
    ends: dict[str, int] = trial.user_attrs.get("finish_reasons") or {}
    shares: dict[str, float] = trial.user_attrs.get("diagnosis") or {}
    n = sum(ends.values())
    found = {sign: round(shares.get(sign, 0.0) * n) for sign in SIGNS}
    return {"truncation": ends.get("length", 0), **found}, n


def data_frame(trials: Sequence[FrozenTrial], names: Sequence[str]) -> "pd.DataFrame":
    """Return one row per model, by trial number: believed and measured values, and weights.

    Raises:
        MissingExtraError: If pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingExtraError("Data frames need pandas; run `pip install pandas`.") from error
    frame = pd.DataFrame([_record(trial, names) for trial in trials])
    return frame.set_index("trial") if len(frame) else frame


def _record(trial: FrozenTrial, names: Sequence[str]) -> dict[str, Any]:
    record: dict[str, Any] = {"trial": trial.number, "role": role(trial)}
    believed = zip(trial.user_attrs["denoised"], trial.user_attrs["denoised_errors"], strict=True)
    measured = zip(trial.values, errors_of(trial), strict=True)
    for name, (mean, deviation), (value, error) in zip(names, believed, measured, strict=True):
        record[name], record[f"{name}_error"] = mean, deviation
        record[f"{name}_measured"], record[f"{name}_measured_error"] = value, error
    return record | dict(trial.params)


def html_table(trials: Sequence[FrozenTrial], names: Sequence[str], best: int | None) -> str:
    """Return the models as an HTML table, the chosen one in bold."""
    heads = "".join(
        f'<th style="{_STYLE}">{html.escape(name)}</th><th style="{_STYLE}">measured</th>'
        for name in names
    )
    rows = "".join(_html_row(trial, trial.number == best) for trial in trials)
    return f"<table><thead><tr><th>trial</th><th>role</th>{heads}</tr></thead>{rows}</table>"


def _html_row(trial: FrozenTrial, is_best: bool) -> str:
    believed = zip(trial.user_attrs["denoised"], trial.user_attrs["denoised_errors"], strict=True)
    measured = zip(trial.values, errors_of(trial), strict=True)
    cells = [str(trial.number), html.escape(role(trial))]
    for one, other in zip(believed, measured, strict=True):
        cells += [rounded(*one), rounded(*other)]
    weight = "font-weight: bold; " if is_best else ""
    shown = "".join(f'<td style="{weight}{_STYLE}">{cell}</td>' for cell in cells)
    return f"<tr>{shown}</tr>"
