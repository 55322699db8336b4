"""What `math_equal` runs in its scoring process; imports nothing of ours."""

import logging

from math_verify import parse, verify

# It warns that timeouts are off: the process has a deadline of its own.
logging.getLogger("math_verify").setLevel(logging.ERROR)


def equal(answer: str, reference: str) -> bool:
    """Whether an answer's last expression equals the reference."""
    gold = parse(f"${reference}$", parsing_timeout=None)
    given = parse(answer, parsing_timeout=None)
    return bool(verify(gold, given, timeout_seconds=None))
