"""Exact match of final answers."""

from collections.abc import Callable

# From an answer's final part, behind its reasoning, and the reference. An answer cut inside its
# reasoning has no such part and never reaches a scorer.
Scorer = Callable[[str, str], bool]


def exact_match(answer: str, reference: str) -> bool:
    """Whether an answer equals the reference, surrounding white space aside."""
    return answer.strip() == reference.strip()
