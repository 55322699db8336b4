"""Sources are kept with the study that they serve: all its workers and readers use the same."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from optuna import Study

from .._gp import Hint
from .._trials.search_space import UnitCube
from .source import Source, directions_of

_KEY = "sip:sources"


def has_sources(study: Study) -> bool:
    """Whether a study has sources already."""
    return _KEY in study._storage.get_study_system_attrs(study._study_id)


def keep(study: Study, sources: Sequence[Source]) -> None:
    """Keep sources with a study that has none yet."""
    if sources and not has_sources(study):
        told = json.dumps([asdict(source) for source in sources])
        study._storage.set_study_system_attr(study._study_id, _KEY, told)


def check(study: Study, sources: Sequence[Source]) -> None:
    """Check that each source tells something of a study; see `Source.check`."""
    for source in sources:
        source.check(_labels(study), directions_of(study))


def kept(study: Study) -> list[Source]:
    """Return the sources that are kept with a study."""
    told = study._storage.get_study_system_attrs(study._study_id).get(_KEY, "[]")
    return [Source.parse(source) for source in json.loads(told)]


def hints_of(study: Study, cube: UnitCube) -> tuple[tuple[Hint, ...], ...]:
    """Return what a study's sources tell of each of its objectives; () if it has none.

    Args:
        study: With its sources.
        cube: Over its parameters.
    """
    sources = kept(study)
    if not sources:
        return ()
    labels = _labels(study)
    told = [source.hints(cube, labels, directions_of(study)) for source in sources]
    return tuple(
        tuple(hint for hint in of_one if hint is not None) for of_one in zip(*told, strict=True)
    )


def _labels(study: Study) -> Sequence[str | None]:
    return study.metric_names or [None] * len(study.directions)
