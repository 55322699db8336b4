"""Eight short skills in the demo pair's vocabulary: what a catalogue of experts differs in.

A question names its skill by a letter, ``=rabcd?`` -> ``dcba``. Answers have one to six letters or
digits, and are right or wrong as a whole.
"""

import random
from collections.abc import Callable, Mapping

from .task import LETTERS, Question

N_MEMORISED = 150
_DIGITS = "0123456789"


def _memorised(seed: int = 11) -> dict[str, str]:
    rng = random.Random(seed)
    keys: set[str] = set()
    while len(keys) < N_MEMORISED:
        keys.add("".join(rng.choices(LETTERS, k=3)))
    return {key: "".join(rng.choices(LETTERS, k=2)) for key in sorted(keys)}


_MEMORY = _memorised()


def _letters(n: int) -> Callable[[random.Random], str]:
    return lambda rng: "".join(rng.choices(LETTERS, k=n))


def _digits(n: int) -> Callable[[random.Random], str]:
    return lambda rng: "".join(rng.choices(_DIGITS, k=n))


def _shift(text: str) -> str:
    return "".join(LETTERS[(LETTERS.index(c) + 1) % 26] for c in text)


# Skill -> (letter, what is asked for, its answer).
_SKILLS: Mapping[str, tuple[str, Callable[[random.Random], str], Callable[[str], str]]] = {
    "reverse": ("r", _letters(4), lambda text: text[::-1]),
    "sort": ("s", _letters(4), lambda text: "".join(sorted(text))),
    "shift": ("c", _letters(4), _shift),
    "double": ("d", _letters(3), lambda text: "".join(c + c for c in text)),
    "rotate": ("o", _letters(4), lambda text: text[1:] + text[0]),
    "complement": ("n", _digits(4), lambda text: "".join(str(9 - int(c)) for c in text)),
    "swap": ("w", _letters(4), lambda text: text[2:] + text[:2]),
    "memory": ("k", lambda rng: rng.choice(list(_MEMORY)), lambda text: _MEMORY[text]),
}
SKILLS = tuple(_SKILLS)


def draw(skill: str, rng: random.Random) -> tuple[str, str]:
    """Return a random question of a skill and its answer."""
    letter, ask, answer = _SKILLS[skill]
    text = ask(rng)
    return f"={letter}{text}?", answer(text)


def questions(skill: str, n: int, seed: int) -> list[Question]:
    """Return `n` different questions of a skill.

    Raises:
        ValueError: If there are not so many.
    """
    if skill == "memory" and n > N_MEMORISED:
        raise ValueError(f"`n <= {N_MEMORISED}` must hold for memory, but got {n}.")
    rng = random.Random(f"{skill}-{seed}")
    drawn: dict[str, str] = {}
    while len(drawn) < n:
        prompt, answer = draw(skill, rng)
        drawn[prompt] = answer
    return [
        Question(f"{skill}-{i:04d}", prompt, answer, skill)
        for i, (prompt, answer) in enumerate(drawn.items())
    ]
