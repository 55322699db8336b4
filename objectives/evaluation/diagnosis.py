"""What is wrong with an answer, whatever its score: how broken merges are told from weak ones.

Signs are looked for in texts alone, so they cost nothing and old answers can be read again.
"""

import re
import unicodedata
from collections import Counter

from .backends.backend import Completion, final_answer

# Sign -> what it says of an answer; shares of answers with it are metrics of these names.
SIGNS = {
    "repetition": "share of answers that end in a loop",
    "empty": "share of answers without a final answer that ended by themselves",
    "unfinished": "share of answers cut inside their reasoning",
    "template_leak": "share of answers with words of a chat template",
    "language_drift": "share of answers in a script that their question does not use",
    "unjudged": "share of final answers on which the judge gave no verdict",
}
# A loop: the same text at least so often in a row at the end, over at least so many characters.
_LOOPS, _LOOP_LENGTH, _LONGEST_PERIOD = 4, 48, 400
# Words that only templates write; those of reasoning are an answer's own.
_LEAK = re.compile(
    r"<\|(?:im_start|im_end|user|assistant|system|start_header_id|end_header_id|eot_id|"
    r"endoftext|begin_of_text|start|end|message|return)\|>|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>|"
    r"<\|?/?(?:turn|START_OF_TURN_TOKEN|END_OF_TURN_TOKEN)\|?>"
)
_FOREIGN = 0.2


def signs_of(completion: Completion, prompt: str) -> tuple[str, ...]:
    """Return what is wrong with an answer.

    Args:
        completion: The answer.
        prompt: Its question.
    """
    final = final_answer(completion)
    cut = completion.finish_reason == "length"
    found = {
        "repetition": longest_loop(completion.text) > 0,
        "empty": not cut and not (final or "").strip(),
        "unfinished": cut and final is None,
        "template_leak": _leaks(completion),
        "language_drift": _drifts(completion.text, prompt),
    }
    return tuple(sign for sign, is_there in found.items() if is_there)


def longest_loop(text: str) -> int:
    """Return the length of the loop that a text ends in, in characters; 0 if there is none."""
    end = text.rstrip()[-_LOOPS * _LONGEST_PERIOD :]
    longest = 0
    for period in range(1, min(_LONGEST_PERIOD, len(end) // _LOOPS) + 1):
        length = period
        while length < len(end) and end[-length - 1] == end[-length - 1 + period]:
            length += 1
        if length >= max(_LOOPS * period, _LOOP_LENGTH):
            longest = max(longest, length)
    return longest


def _leaks(completion: Completion) -> bool:
    text = completion.text
    for pair in completion.markers:
        for marker in pair:
            text = text.replace(marker, "")
    return _LEAK.search(text) is not None


def _drifts(text: str, prompt: str) -> bool:
    """Whether much of an answer is in a script of which its question has no letter."""
    written, asked = _scripts(text), _scripts(prompt)
    foreign = sum(n for script, n in written.items() if script not in asked)
    # Mathematics writes Greek letters in any language.
    foreign -= written["GREEK"] if "GREEK" not in asked else 0
    return bool(asked) and foreign > _FOREIGN * max(sum(written.values()), 1)


def _scripts(text: str) -> Counter[str]:
    """Count letters by script: LATIN, CYRILLIC, CJK, ..."""
    letters = Counter(letter for letter in text if letter.isalpha())
    counted: Counter[str] = Counter()
    for letter, n in letters.items():
        counted[unicodedata.name(letter, "UNKNOWN").split(" ", 1)[0]] += n
    return counted
