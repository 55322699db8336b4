"""The demo task: chains of arithmetic, which reward reasoning, and facts, which reward memory.

A *chain* is evaluated left to right modulo 10; the letters number its steps::

    3a+4b*2c-5?   ->   9                                     direct: 2 tokens with the stop token
                  ->   <think>a3+4=7;b7*2=4;c4-5=9;</think>9   worked: 7 n + 4 tokens, n steps

A *fact* is a memorised pair, always answered directly in 3 tokens: ``kqz?`` -> ``mb``.
Everything is at character level in a vocabulary of 48 tokens.
"""

import random
from dataclasses import dataclass
from itertools import islice

PAD, BOS, EOS, THINK, END_THINK = "<pad>", "<bos>", "<eos>", "<think>", "</think>"
SPECIAL_TOKENS = (PAD, BOS, EOS, THINK, END_THINK)
LETTERS = "abcdefghijklmnopqrstuvwxyz"
OPERATORS = "+-*"
VOCABULARY = {
    token: index
    for index, token in enumerate([*SPECIAL_TOKENS, *"0123456789+-*=;?", *LETTERS, "<unused>"])
}
MAX_STEPS = 6
N_FACTS = 400


@dataclass(frozen=True)
class Chain:
    """One chain: `n + 1` digits joined by `n` operators, `1 <= n <= 6`."""

    digits: tuple[int, ...]
    operators: str

    @property
    def running(self) -> tuple[int, ...]:
        """Intermediate results, from the first digit to the answer: `n + 1` digits."""
        results = [self.digits[0]]
        for operator, digit in zip(self.operators, self.digits[1:], strict=True):
            results.append(_apply(operator, results[-1], digit))
        return tuple(results)

    @property
    def prompt(self) -> str:
        """The question, e.g. ``3a+4b*2?``."""
        steps = zip(LETTERS, self.operators, self.digits[1:], strict=False)
        return f"{self.digits[0]}" + "".join(f"{a}{o}{d}" for a, o, d in steps) + "?"

    @property
    def answer(self) -> str:
        """The last intermediate result, one digit."""
        return str(self.running[-1])

    @property
    def reasoning(self) -> list[str]:
        """The worked steps as tokens, between the think markers."""
        results = self.running
        steps = zip(LETTERS, self.operators, self.digits[1:], results, results[1:], strict=False)
        worked = "".join(f"{a}{left}{o}{d}={right};" for a, o, d, left, right in steps)
        return [THINK, *worked, END_THINK]


def _apply(operator: str, left: int, right: int) -> int:
    if operator == "*":
        return left * right % 10
    return (left + right if operator == "+" else left - right) % 10


def draw_chain(n_steps: int, rng: random.Random) -> Chain:
    """Draw a chain of `n_steps` steps uniformly."""
    digits = tuple(rng.randrange(10) for _ in range(n_steps + 1))
    return Chain(digits, "".join(rng.choice(OPERATORS) for _ in range(n_steps)))


def make_facts(n_facts: int = N_FACTS, seed: int = 7) -> list[tuple[str, str]]:
    """Return the memorised (key, value) pairs: distinct three-letter keys, two-letter values."""
    rng = random.Random(seed)
    keys: set[str] = set()
    while len(keys) < n_facts:
        keys.add("".join(rng.choices(LETTERS, k=3)))
    return [(key, "".join(rng.choices(LETTERS, k=2))) for key in sorted(keys)]


@dataclass(frozen=True)
class Question:
    """One line of a question file."""

    id: str
    prompt: str
    answer: str
    kind: str


# Share of the facts, and of the chains (three times as many), in each split.
SPLIT_FACTS = {"importance": 40, "search": 80, "validation": 120, "test": 160}
CHAIN_STEPS = (2, 3, 4, 5, 6)


def make_splits(seed: int = 1234) -> dict[str, list[Question]]:
    """Return the four splits: disjoint, one distribution (3 chains for every fact).

    Chains of one length are spread evenly, so every split has the same mix of lengths.
    """
    rng = random.Random(seed)
    facts = iter(rng.sample(make_facts(), N_FACTS))
    seen: set[Chain] = set()
    splits = {}
    for split, n_facts in SPLIT_FACTS.items():
        questions = [
            Question("", f"{key}?", value, "fact") for key, value in islice(facts, n_facts)
        ]
        for index in range(3 * n_facts):
            chain = _draw_new_chain(CHAIN_STEPS[index % len(CHAIN_STEPS)], rng, seen)
            questions.append(Question("", chain.prompt, chain.answer, "chain"))
        rng.shuffle(questions)
        splits[split] = [
            Question(f"{split}-{i:04d}", q.prompt, q.answer, q.kind)
            for i, q in enumerate(questions)
        ]
    return splits


def _draw_new_chain(n_steps: int, rng: random.Random, seen: set[Chain]) -> Chain:
    while (chain := draw_chain(n_steps, rng)) in seen:
        pass
    seen.add(chain)
    return chain
