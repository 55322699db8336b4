"""Scorers: (final answer, reference) -> correct or not.

Where a scorer evaluates what a model wrote, or is a user's own, it runs in a `ScoringProcess`:
`server` is the process, `equality` and `patterns` are what it runs. Metrics of lm-eval run in a
`ForkedScorer`, a copy of the worker. Programs run in `sandbox`, confined.
"""

import functools
from pathlib import Path

from ....errors import MissingExtraError, SpecError
from . import patterns
from .deadline import ScoringProcess
from .exact_match import Scorer, exact_match
from .fences import blocks
from .math import check_installed, math_equal
from .patterns import choice_letter, last_number
from .schemas import check_schema
from .unit_tests import passes_tests


def regex(answer: str, reference: str) -> bool:
    """Whether the reference, a regular expression, is found in an answer; late means no."""
    return bool(_process("matches")(answer, reference))


def json_schema(answer: str, reference: str) -> bool:
    """Whether an answer is JSON that keeps to the reference, a JSON Schema.

    Its first block that Markdown fences as JSON, or as no language, is taken for the answer.
    """
    fenced = blocks(answer, ("", "json"))
    return bool(_process("fits_schema")(fenced[0] if fenced else answer, reference))


@functools.cache
def _process(name: str) -> ScoringProcess:
    return ScoringProcess(f"{Path(patterns.__file__)}:{name}")


SCORERS: dict[str, Scorer] = {
    "exact_match": exact_match,
    "last_number": last_number,
    "choice_letter": choice_letter,
    "regex": regex,
    "math": math_equal,
    "json_schema": json_schema,
    "unit_tests": passes_tests,
}


_REFERENCES = {
    "regex": patterns.check_pattern,
    "json_schema": check_schema,
    "last_number": patterns.check_number,
    "choice_letter": patterns.check_letter,
}


def check_reference(scorer: str, reference: str) -> None:
    """Check that a scorer can use a reference.

    Raises:
        ValueError: With the reason.
    """
    if scorer in _REFERENCES:
        _REFERENCES[scorer](reference)


def check_scorer(name: str) -> None:
    """Check that a scorer of this list can work on this machine.

    Raises:
        MissingExtraError: If it needs what is not installed.
        SpecError: If programs cannot be confined.
    """
    if name == "math":
        check_installed()
    if name == "json_schema" and not _has_jsonschema():
        raise MissingExtraError(
            "The scorer 'json_schema' needs jsonschema; run `pip install 'mergefront[eval]'`."
        )
    if name == "unit_tests" and not passes_tests("", ""):
        raise SpecError(
            "The scorer 'unit_tests' cannot run an empty program on this machine. Choose another "
            "scorer, or run it on Linux (x86_64 or aarch64)."
        )


def _has_jsonschema() -> bool:
    import importlib.util

    return importlib.util.find_spec("jsonschema") is not None


__all__ = [
    "SCORERS",
    "Scorer",
    "ScoringProcess",
    "check_reference",
    "check_scorer",
    "choice_letter",
    "exact_match",
    "json_schema",
    "last_number",
    "math_equal",
    "passes_tests",
    "regex",
]
