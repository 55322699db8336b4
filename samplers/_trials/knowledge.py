"""What a study's sampler was told about the layers, kept with the study.

Whoever denoises the study later, in another process, then uses the same model.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from optuna import Study

from .._gp import Trust
from .magnitude import LARGEST
from .measurements import MEASURED

_KEY = "sip:knowledge"


def remember(study: Study, importance: Mapping[str, float] | None, trust: Trust) -> None:
    """Keep importance and trust with the study, if they are not there already."""
    told = json.dumps({"importance": dict(importance or {}), "trust": trust})
    if _attributes(study).get(_KEY) != told:
        study._storage.set_study_system_attr(study._study_id, _KEY, told)


def recall(study: Study) -> tuple[dict[str, float] | None, Trust]:
    """Return the importance and the trust that the study was searched with."""
    told = json.loads(_attributes(study).get(_KEY, "{}"))
    return told.get("importance") or None, told.get("trust", "learned")


def check_told(importance: Mapping[str, float] | None, trust: Trust) -> None:
    """Check importance and trust.

    Raises:
        ValueError: If a number is out of its range.
    """
    if trust != "learned" and not 0 <= trust <= 1:
        raise ValueError(f"trust must be 'learned' or within [0, 1], but got {trust}.")
    for name, value in (importance or {}).items():
        if not 0 <= value <= 1:
            raise ValueError(f"Importance must be within [0, 1], but got {value} for {name!r}.")


def check_point(
    name: str, told: Sequence[float] | None, m: int | None = None, lowest: float = -LARGEST
) -> None:
    """Check a reference point or a span, where one is given.

    Args:
        name: Of the option.
        told: One number an objective.
        m: How many objectives there are. Defaults to None: not known yet.
        lowest: What all must be above.

    Raises:
        ValueError: If their number is another, or one is no number in range.
    """
    if told is None:
        return
    fits = m is None or len(told) == m
    if not fits or not all(lowest < float(value) <= LARGEST for value in told):
        kind = "positive number" if lowest == 0 else "number"
        raise ValueError(
            f"{name} must have one value an objective{'' if m is None else f', {m}'}, each a "
            f"{kind} up to {LARGEST:g}, but got {told}; leave it out to have it inferred."
        )


def last_parameters(study: Study) -> Iterable[str]:
    """Return the names of the last measured trial's parameters, those with one value included."""
    trials = study.get_trials(deepcopy=False, states=MEASURED)
    return trials[-1].params if trials else ()


def _attributes(study: Study) -> dict[str, Any]:
    return study._storage.get_study_system_attrs(study._study_id)
