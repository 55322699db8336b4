"""Exact match of what follows the reasoning."""

from collections.abc import Callable

Scorer = Callable[[str, str], bool]

_END_THINK = "</think>"


def final_answer(text: str) -> str | None:
    """Return what follows the last `</think>`, stripped; None if reasoning never ended.

    An answer without any reasoning is its own final answer.
    """
    if _END_THINK in text:
        return text.rsplit(_END_THINK, 1)[1].strip()
    return None if "<think>" in text else text.strip()


def exact_match(text: str, reference: str) -> bool:
    """Whether the final answer equals the reference, surrounding white space aside.

    An answer cut in the middle of its reasoning is wrong, even if the reference appears in it.
    """
    return final_answer(text) == reference.strip()
