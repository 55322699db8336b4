"""Arithmetic word problems of one to three steps, and three ways to answer them.

    Mia has 9 pens. She buys 7. She loses 3. How many now?

    13                                                       direct
    9+7=16,16-3=13                                           equations
    We have 9 pens. Now 9+7=16 pens. ... The answer is 13.   words

Names, things and verbs are drawn; all splits are of one distribution and share no question.
`python -m mergefront.examples.smollm2.task` writes them.
"""

import json
import operator
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

NAMES = {
    **dict.fromkeys(("Mia", "Ann", "Eva", "Zoe", "Lea", "Amy"), "She"),
    **dict.fromkeys(("Tom", "Ben", "Max", "Leo", "Sam", "Jim"), "He"),
}
THINGS = ("pens", "books", "coins", "apples", "cards", "stamps", "eggs", "shells", "balls", "keys")
VERBS = {
    "+": ("buys {}", "finds {}", "gets {} more", "is given {}"),
    "-": ("sells {}", "loses {}", "gives away {}", "uses {}"),
    "*": ("then has {} times as many",),
}
STEPS = (1, 2, 3)
_COMPUTE = {"+": operator.add, "-": operator.sub, "*": operator.mul}
_LARGEST = 36
SIZES = {"search": 300, "validation": 300, "test": 300, "importance": 60, "train": 4000}


@dataclass(frozen=True)
class Step:
    """One sentence: what happens, and the result.

    Args:
        text: Without its subject, e.g. "buys 17".
        equation: E.g. "34+17=51".
        result: What there is now.
    """

    text: str
    equation: str
    result: int


@dataclass(frozen=True)
class Problem:
    """A word problem."""

    name: str
    thing: str
    start: int
    steps: tuple[Step, ...]

    @property
    def prompt(self) -> str:
        """The question."""
        told = "".join(f" {NAMES[self.name]} {step.text}." for step in self.steps)
        return f"{self.name} has {self.start} {self.thing}.{told} How many now?"

    @property
    def direct(self) -> str:
        """The number alone."""
        return str(self.steps[-1].result)

    @property
    def equations(self) -> str:
        """The steps as equations; the last number is the answer."""
        return ",".join(step.equation for step in self.steps)

    @property
    def words(self) -> str:
        """The same equations in whole sentences."""
        told = "".join(f" Now {step.equation} {self.thing}." for step in self.steps)
        return f"We have {self.start} {self.thing}.{told} The answer is {self.direct}."


def draw(n_steps: int, rng: random.Random) -> Problem:
    """Draw a problem whose numbers stay within 1 and 36."""
    start = rng.randint(2, 12)
    steps: list[Step] = []
    value = start
    for _ in range(n_steps):
        steps.append(_draw_step(value, rng))
        value = steps[-1].result
    return Problem(rng.choice(list(NAMES)), rng.choice(THINGS), start, tuple(steps))


def _draw_step(value: int, rng: random.Random) -> Step:
    while True:
        sign = rng.choice("++--*")
        number = rng.randint(2, 3) if sign == "*" else rng.randint(2, 9)
        result = _COMPUTE[sign](value, number)
        if 1 <= result <= _LARGEST:
            text = rng.choice(VERBS[sign]).format(number)
            return Step(text, f"{value}{sign}{number}={result}", result)


def problems(seed: int = 0) -> Iterator[Problem]:
    """Yield problems without end, none twice, each number of steps equally often."""
    rng, seen = random.Random(seed), set()
    while True:
        for n_steps in STEPS:
            problem = draw(n_steps, rng)
            while problem.prompt in seen:
                problem = draw(n_steps, rng)
            seen.add(problem.prompt)
            yield problem


def make_splits(seed: int = 0) -> dict[str, list[Problem]]:
    """Return the disjoint splits."""
    source = problems(seed)
    return {split: [next(source) for _ in range(size)] for split, size in SIZES.items()}


@dataclass(frozen=True)
class Question:
    """One line of a question file."""

    id: str
    prompt: str
    answer: str
    steps: int


# Folder -> number of steps of the problems that are a task of their own in `several.yaml`.
PARTS = {"one-step": 1, "three-steps": 3}


def write_questions(directory: Path) -> None:
    """Write every split but `train` as JSON lines, and the parts of those that are measured."""
    for split, drawn in make_splits().items():
        if split == "train":
            continue
        questions = [
            Question(f"{split}-{i}", p.prompt, p.direct, len(p.steps)) for i, p in enumerate(drawn)
        ]
        _write(directory / f"{split}.jsonl", questions)
        for part, steps in PARTS.items() if split != "importance" else ():
            kept = [question for question in questions if question.steps == steps]
            _write(directory / part / f"{split}.jsonl", kept)


def _write(path: Path, questions: Sequence[Question]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(asdict(question)) for question in questions]
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    write_questions(Path(__file__).parent / "questions")
