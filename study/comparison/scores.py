"""Finished searches in numbers, on one scale."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from optuna.study import StudyDirection

from ...samplers import signs
from ..results.front import FrontReport, hypervolume
from ..results.indicators import Array, igd_plus, non_dominated, spacing
from .simulation import Usage


@dataclass(frozen=True)
class Search:
    """One finished search with its front on fresh questions.

    Args:
        variant: Label.
        seed: Of the search.
        study: Name.
        report: Its denoised front.
        validated: Values of the front's models on the fresh split, `n x m`-dim.
        use: Of the workers' time.
    """

    variant: str
    seed: int
    study: str
    report: FrontReport
    validated: Array
    use: Usage


@dataclass(frozen=True)
class Scores:
    """One search in numbers.

    Args:
        hypervolume: Of the denoised trials, on the search's questions.
        validated_hypervolume: Of the front's models on fresh questions.
        igd_plus: Of the validated front, to the best validated points of all searches.
        spacing: Of the validated front.
        n_front: Models of the reported front.
        seconds: Wall-clock: real, or simulated.
        utilisation: Share of the workers' time that was evaluation until the last claim.
        overall: The same until the last end.
    """

    hypervolume: float
    validated_hypervolume: float
    igd_plus: float
    spacing: float
    n_front: int
    seconds: float
    utilisation: float
    overall: float


def score(searches: Sequence[Search]) -> list[Scores]:
    """Return every search's scores; all share one reference point and one best front.

    Args:
        searches: Of one spec.
    """
    reference = searches[0].report.reference_point
    directions = [StudyDirection[name.upper()] for name in searches[0].report.directions]
    flips = signs(directions).numpy()
    origin = np.array(reference) * flips
    reach = [s.validated * flips - origin for s in searches if len(s.validated)]
    best = non_dominated(np.concatenate(reach))
    unit = np.maximum(best.max(axis=0), 1e-12)
    return [_scores(s, reference, directions, origin, unit, best / unit) for s in searches]


def _scores(
    found: Search,
    reference: Sequence[float],
    directions: Sequence[StudyDirection],
    origin: Array,
    unit: Array,
    best: Array,
) -> Scores:
    report = found.report
    searched = torch.tensor([t.user_attrs["denoised"] for t in report.trials]).double()
    values = found.validated
    front = non_dominated((values * signs(directions).numpy() - origin) / unit)
    return Scores(
        hypervolume(searched, reference, directions),
        hypervolume(torch.from_numpy(values), reference, directions),
        igd_plus(front, best),
        spacing(front),
        len(report.trials),
        found.use.seconds,
        found.use.utilisation,
        found.use.overall,
    )


def to_json(searches: Sequence[Search], scores: Sequence[Scores]) -> list[dict[str, Any]]:
    """Return one record a search; null for what cannot be told (JSON has no nan)."""
    return [
        {"variant": s.variant, "seed": s.seed, "study": s.study}
        | {key: None if value != value else value for key, value in asdict(numbers).items()}
        for s, numbers in zip(searches, scores, strict=True)
    ]
