"""Final answers that are read out of a sentence: numbers, letters of choices, patterns, JSON.

Also what their scoring process runs; imports nothing of ours.
"""

import json
import re
from decimal import Decimal, InvalidOperation

_NUMBER = re.compile(r"[-+]?(?:\d[\d,]{0,40}(?:\.\d{1,40})?|\.\d{1,40})(?:[eE][-+]?\d{1,3})?")
_LETTER = re.compile(r"(?<![A-Za-z])\(?([A-Z])\)?(?![A-Za-z'])")
_SAID = re.compile(
    r"(?i:answer|option|choice)(?i:\s+is)?\s{0,5}:?\s{0,5}\**\(?([A-Z])\)?(?![A-Za-z'])"
)
# Where a letter or a number is looked for: the end of an answer says it.
_END = 20_000


def last_number(answer: str, reference: str) -> bool:
    """Whether an answer's last number is the reference's, by value: `1,234.0` is 1234."""
    found, expected = _last(answer), _last(reference)
    return found is not None and found == expected


def _last(text: str) -> Decimal | None:
    numbers = _NUMBER.findall(text[-_END:])
    try:
        return Decimal(numbers[-1].replace(",", "")) if numbers else None
    except InvalidOperation:
        return None


def choice_letter(answer: str, reference: str) -> bool:
    """Whether an answer chooses the reference's letter.

    The letter that the answer names last (`the answer is (B)`), else the last letter that stands
    alone, else that of a whole answer in small letters (`b`).
    """
    end = answer[-_END:]
    chosen = _SAID.findall(end) or _LETTER.findall(end)
    letter = chosen[-1] if chosen else end.strip(" ().*\n")
    return letter.upper() == reference.strip(" ().*\n").upper()


def matches(answer: str, reference: str) -> bool:
    """Whether the reference, a regular expression, is found in an answer."""
    return re.search(reference, answer) is not None


def fits_schema(answer: str, reference: str) -> bool:
    """Whether an answer is JSON that keeps to the reference, a JSON Schema.

    A fence of Markdown around it does not count.
    """
    import jsonschema

    fenced = re.search(r"```(?:json)?\n(.*?)```", answer, flags=re.DOTALL)
    try:
        content = json.loads(fenced.group(1) if fenced else answer)
        schema = json.loads(reference)
        jsonschema.validators.validator_for(schema)(schema).validate(content)
    except (ValueError, RecursionError, jsonschema.ValidationError):
        return False
    return True
