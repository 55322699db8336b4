"""What finished trials measured: values, standard errors, and how many questions they asked.

Attributes of trials may hold anything: another program wrote them. What is no number is taken as
missing; it never stops a study.
"""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from optuna.trial import FrozenTrial, TrialState
from torch import Tensor

from .equating import equate
from .magnitude import LARGEST

# A PRUNED trial may be a measurement that was stopped early.
MEASURED = (TrialState.COMPLETE, TrialState.PRUNED)
# Where fewer of the errors are known than this share, the noise is inferred instead.
_ENOUGH = 0.5
# Without a count of questions, a measurement whose variance is so many times the usual one in
# every objective is taken for one of fewer questions.
_STOPPED_EARLY = 6.0


@dataclass(frozen=True)
class Measurements:
    """What was measured, in the study's own directions.

    Args:
        values: An `n x m`-dim tensor; equated where trials answered different questions.
        errors: An `n x m`-dim tensor of standard errors, a column of NaN where an objective's
            noise is to be inferred; None where all are.
        sizes: An `n`-dim tensor: questions of each trial, 1 for the usual number.
        left: An `m`-dim tensor: what the questions of all trials together leave uncertain about
            others, as a share of one trial's own variance; 1 where all answered the same.
    """

    values: Tensor
    errors: Tensor | None
    sizes: Tensor
    left: Tensor


def measurements(trials: Sequence[FrozenTrial]) -> Measurements:
    """Read finite measurements (`finite_trials`), at least one."""
    values = torch.tensor([trial.values for trial in trials], dtype=torch.double)
    errors = standard_errors(trials)
    equated = equate(trials, values.numpy())
    left = torch.ones(values.shape[1], dtype=torch.double)
    if equated is not None:
        left = torch.from_numpy(equated.left)
        values, told = torch.from_numpy(equated.values), torch.from_numpy(equated.errors)
        known = told if errors is None else torch.where(told.isnan(), errors, told)
        errors = _filled(known)
    return Measurements(values, errors, _sizes(trials, errors), left)


def is_measured(trial: FrozenTrial) -> bool:
    """Whether a trial's values are measurements.

    Those of a PRUNED trial are if it carries their standard errors; without, they are what it
    had reached at some step.
    """
    if trial.state == TrialState.PRUNED:
        told = numbers(trial.user_attrs.get("standard_errors"), len(trial.values or ()))
        return trial.values is not None and not all(map(math.isnan, told))
    return trial.state == TrialState.COMPLETE


def screened_trials(trials: Sequence[FrozenTrial], names: Iterable[str]) -> list[FrozenTrial]:
    """Keep trials that broke a constraint before any objective was measured.

    They are PRUNED, without values and with constraints: nothing is known of their objectives, but
    all that there is to know of where constraints are broken.

    Args:
        trials: Of a study.
        names: Parameters that they must have.
    """
    wanted = set(names)
    return [
        trial
        for trial in trials
        if trial.state == TrialState.PRUNED
        and trial.values is None
        and trial.constraints
        and wanted <= trial.params.keys()
    ]


def finite_trials(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Keep measurements whose values can all be reckoned with.

    An infinite one carries no information; one of a magnitude beyond `LARGEST` (1e100) is a
    penalty that stands for infinity, and is left out like it.
    """
    return [t for t in trials if is_measured(t) and all(abs(v) <= LARGEST for v in t.values)]


def standard_errors(trials: Sequence[FrozenTrial]) -> Tensor | None:
    """Return the measured standard errors, an `n x m`-dim tensor, or None if none is known.

    Each objective is decided alone. Where at least half of its errors are known, the others get
    the largest known one; otherwise its column is NaN, and one level will be inferred.
    """
    rows = [numbers(t.user_attrs.get("standard_errors"), len(t.values)) for t in trials]
    told = torch.tensor(rows, dtype=torch.double)
    _warn_of_missing(trials, told)
    return _filled(told)


def numbers(told: Any, n: int) -> list[float]:
    """Return `n` standard errors; NaN for each that is no finite number from 0, or if not `n`."""
    if not isinstance(told, list | tuple) or len(told) != n:
        return [math.nan] * n
    return [error_or_nan(error) for error in told]


def error_or_nan(told: Any) -> float:
    """Return a standard error as it was told; NaN if it is no number from 0 to `LARGEST`."""
    is_number = isinstance(told, int | float) and not isinstance(told, bool)
    return float(told) if is_number and 0 <= told <= LARGEST else math.nan


def filled(column: Tensor) -> Tensor:
    """Return one objective's errors without gaps, or all NaN if too few are known."""
    known = ~column.isnan()
    if known.double().mean() < _ENOUGH:
        return torch.full_like(column, math.nan)
    return torch.where(known, column, column[known].max())


def _filled(errors: Tensor) -> Tensor | None:
    whole = torch.stack([filled(column) for column in errors.T], dim=1)
    return None if bool(whole.isnan().all()) else whole


def _warn_of_missing(trials: Sequence[FrozenTrial], told: Tensor) -> None:
    missing = told.isnan().any(dim=1)
    if not bool(missing.any()) or bool(told.isnan().all()):
        return
    first = trials[int(missing.nonzero()[0])].number
    warnings.warn(
        f"{int(missing.sum())} of {len(trials)} trials (the first is trial {first}) lack a "
        "standard error that is a finite number from 0. They get the largest known one of their "
        "objective; where fewer than half are known, its noise is inferred.",
        stacklevel=2,
    )


def _sizes(trials: Sequence[FrozenTrial], errors: Tensor | None) -> Tensor:
    told = [_n_questions(trial) for trial in trials]
    if all(n is not None for n in told):
        counts = torch.tensor(told, dtype=torch.double)
        return counts / counts.median()
    if errors is None:
        return torch.ones(len(trials), dtype=torch.double)
    variances = errors[:, ~errors.isnan().any(dim=0)].square()
    usual = variances.median(dim=0).values.clamp_min(1e-300)
    ratio = (variances / usual).amin(dim=1)
    return torch.where(ratio > _STOPPED_EARLY, 1.0 / ratio, torch.ones_like(ratio))


def _n_questions(trial: FrozenTrial) -> int | None:
    told = trial.user_attrs.get("n_questions")
    if told is None and isinstance(answers := trial.user_attrs.get("answers"), Mapping):
        asked = answers.get("questions")
        told = len(asked) if isinstance(asked, list) else None
    counts = isinstance(told, int) and not isinstance(told, bool) and 0 < told <= LARGEST
    return told if counts else None


def warn_of_unknown(told: Iterable[str], names: Iterable[str]) -> None:
    """Warn of importances that name no parameter: a mistyped name is a search without them."""
    known = set(names)
    unknown = sorted(set(told) - known)
    if unknown and known:
        shown = ", ".join(map(repr, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        warnings.warn(
            f"Importances must name parameters of the study, but {shown} name none and are "
            f"ignored; its parameters are {', '.join(sorted(known)[:5])} ...",
            stacklevel=2,
        )
