"""What a study's sampler was told about the layers, kept with the study.

Whoever denoises the study later, in another process, then uses the same model.
"""

import json
from collections.abc import Mapping
from typing import Any

from optuna import Study

from .._gp import Trust

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


def _attributes(study: Study) -> dict[str, Any]:
    return study._storage.get_study_system_attrs(study._study_id)
