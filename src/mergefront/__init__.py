"""MergeFront: the Pareto front of merged language models.

The public Python interface, loaded when first used::

    import mergefront

    study = mergefront.run("examples/demo.yaml")
    front = mergefront.front(study)
    mergefront.export(study, front.knee, "merged")

What `__all__` here and in `mergefront.samplers` and `mergefront.study` does not name is internal
and may change without notice.
"""

from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .study import recommend as recommend
    from .study.api import export, front, load_study, merge, run, validate
    from .study.spec.study_spec import StudySpec

__all__ = [
    "StudySpec",
    "__version__",
    "export",
    "front",
    "load_study",
    "merge",
    "recommend",
    "run",
    "validate",
]

_HOMES = {
    "StudySpec": "study.spec.study_spec",
    "recommend": "study",
    **dict.fromkeys(("export", "front", "load_study", "merge", "run", "validate"), "study.api"),
}


def __getattr__(name: str) -> Any:
    # Loaded when asked for: the command line's help needs none of it, nor torch.
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
