"""Mathematical answers, compared by value rather than by spelling."""

from ....errors import MissingExtraError
from .exact_match import final_answer


def math_equal(text: str, reference: str) -> bool:
    r"""Whether the final answer's last expression equals the reference, by `math-verify`.

    Expressions are read from LaTeX, `\boxed{...}` first, or as plain numbers: `0.5` equals
    `\frac{1}{2}`. An answer cut in the middle of its reasoning is wrong.

    Raises:
        MissingExtraError: If math-verify is not installed.
    """
    try:
        from math_verify import parse, verify
    except ImportError as error:
        raise MissingExtraError(
            "The scorer 'math' needs math-verify; run `pip install 'mergefront[eval]'`."
        ) from error
    answer = final_answer(text)
    if answer is None:
        return False
    # Timeouts by signals work in the main thread alone, and answers are short.
    gold = parse(f"${reference}$", parsing_timeout=None)
    given = parse(answer, parsing_timeout=None)
    return bool(verify(gold, given, timeout_seconds=None))
