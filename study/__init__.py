"""Studies: who proposes, who measures, and what it all comes to.

A trial's way through the rooms::

    spec        what a study is: a YAML file, checked, with its models and tasks
    seeding     the first trials: parents and uniform merges
    workers     many processes on one study: claim a trial, measure it, deliver the result
    storage     Optuna's database: locks, transactions, outages, artifacts
    results     front, validation, report, export
    comparison  several samplers on one spec
    selection   what to merge at all (SimMerge)
    cli         the commands; nothing that the library lacks

`run` tells the story from a spec to a finished study. What is not named in `__all__` is internal.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .results.front import pareto_front
    from .results.recommendations import recommend
    from .spec.study_spec import StudySpec

__all__ = ["StudySpec", "pareto_front", "recommend"]

_HOMES = {
    "StudySpec": ".spec.study_spec",
    "pareto_front": ".results.front",
    "recommend": ".results.recommendations",
}


def __getattr__(name: str) -> Any:
    # Loaded when asked for: the command line's help needs none of it, nor torch.
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
