"""Final answers that are read out of a sentence: numbers, letters of choices, patterns, JSON.

Also what their scoring process runs; imports nothing of ours.
"""

import json
import re
from collections import deque
from decimal import Decimal, InvalidOperation

# A sign belongs to a number (`x = -3`, `$-5`, `-$5`), unless it stands behind something that it
# joins to the number: `10-12`, `5%-10%`, `(a)-3`, `COVID-19`. A comma belongs to it where it parts
# thousands (`1,234`; in India `1,00,000`), and parts numbers elsewhere: `(3,4)`.
_NUMBER = re.compile(
    r"(?:(?<![\w)\]%°])([-+\u2212])[$€£]?)?"
    r"((?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d{1,2}(?:,\d{2})+,\d{3}(?!\d)|\d+)(?:\.\d+)?|\.\d+)"
    r"(?:[eE][-+]?\d+)?)"
)
# The article and the pronoun are no choices: a word follows them, of which a few may also follow
# the letter of a choice.
_ARTICLE = r"(?!A[ \t]+(?!(?:is|was|and|or|but|not|because|since|as)\b)[A-Za-z])"
_PRONOUN = r"(?!I[ \t]+(?!is\b)[A-Za-z])"
_ALONE = r"(?![A-Za-z'\u2019])"
_LONE = rf"(?<![A-Za-z])(?:\(([A-Z])\)|{_ARTICLE}{_PRONOUN}([A-Z])){_ALONE}"
# Behind these words an A is the choice, whatever follows it: `Answer: A Paris`. An option that is
# only spoken of (`option A is wrong`) is a letter like others.
_BEHIND = rf"\s{{0,5}}:?\s{{0,5}}\**(?:\(([A-Z])\)|{_PRONOUN}([A-Z])){_ALONE}"
_OPTION = r"(?i:option|choice)"
_SAID = re.compile(
    rf"(?:(?i:answer|choose|chose|pick|select)(?i:\s{{1,5}}is)?|{_OPTION}(?:(?i:\s{{1,5}}is)|(?=:)))"
    rf"(?:\s{{0,5}}:?\s{{1,5}}{_OPTION})?{_BEHIND}"
)
_LETTER = re.compile(rf"{_OPTION}{_BEHIND}|{_LONE}")
# Where a letter or a number is looked for: the end of an answer says it.
_END = 20_000
_OF_NUMBERS = "0123456789.,eE+-\u2212$€£"


def last_number(answer: str, reference: str) -> bool:
    """Whether an answer's last number is the reference's, by value: `1,234.0` is 1234.

    A minus that joins two numbers is no sign: the last number of `10-12` is 12.
    """
    found, expected = _last(answer), _last(reference)
    return found is not None and found == expected


def _last(text: str) -> Decimal | None:
    # Not in the middle of a number.
    start = len(text[:-_END].rstrip(_OF_NUMBERS))
    numbers = deque(_NUMBER.finditer(text, start), maxlen=1)
    if not numbers:
        return None
    sign, number = numbers[0].groups("")
    try:
        value = Decimal(number.replace(",", ""))
    except InvalidOperation:
        return None
    return value if sign in ("", "+") else value.copy_negate()  # `-` would round to 28 digits


def choice_letter(answer: str, reference: str) -> bool:
    """Whether an answer chooses the reference's letter.

    The letter that is named last as the answer (`the answer is (B)`, `I choose B`), else the last
    letter that stands alone (`option A is wrong, so B`), else that of a whole answer in small
    letters (`b`). The article "A" and the pronoun "I" are words of a sentence, and no choices.
    """
    end = answer[-_END:]
    chosen = _SAID.findall(end) or _LETTER.findall(end)
    letter = "".join(chosen[-1]) if chosen else end.strip(" ().*\n")
    return letter.upper() == reference.strip(" ().*\n").upper()


def matches(answer: str, reference: str) -> bool:
    """Whether the reference, a regular expression, is found in an answer."""
    return re.search(reference, answer) is not None


def fits_schema(answer: str, reference: str) -> bool:
    """Whether an answer is JSON, and nothing else, that keeps to the reference, a JSON Schema."""
    import jsonschema

    try:
        content = json.loads(answer)
        schema = json.loads(reference)
        jsonschema.validators.validator_for(schema)(schema).validate(content)
    except (ValueError, ArithmeticError, RecursionError, jsonschema.ValidationError):
        return False  # ArithmeticError: numbers such as 1e999, where a multiple is asked for
    return True


def check_number(reference: str) -> None:
    """Check that an answer that says the reference itself would be right.

    Raises:
        ValueError: If it holds no number.
    """
    if not last_number(reference, reference):
        raise ValueError(f"{reference!r:.60} holds no number, as 12 or $1,234.5 are")


def check_letter(reference: str) -> None:
    """Check that an answer that says the reference itself would be right.

    Raises:
        ValueError: If it is not a choice's letter alone.
    """
    if not choice_letter(reference, reference):
        raise ValueError(
            f"{reference!r:.60} must be the letter of a choice alone, as B or (B) are"
        )


def check_pattern(reference: str) -> None:
    """Check a regular expression.

    Raises:
        ValueError: If it is none.
    """
    try:
        re.compile(reference)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{reference!r:.60} is no regular expression: {error}") from error
