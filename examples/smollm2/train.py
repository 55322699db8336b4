"""Train the adapters from SmolLM2-135M-Instruct on one CPU core, in a quarter of an hour.

    python -m mergefront.examples.smollm2.train runs/smollm2/instruct --out adapters

`direct` answers with the number alone: the instruct model with it is the studies' base. From that
base `equations` learns to reason, in the lower 20 layers; `talker` is `equations` plus the upper
10 layers, trained afterwards, alone, to say the same in sentences.
"""

import argparse
import logging
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from .lora import LoraLinear, add_adapter, batches, loss_of, save_adapter
from .prepare import ADAPTERS, load
from .task import Problem, make_splits

logger = logging.getLogger(__name__)

LOWER, UPPER = range(20), range(20, 30)
PROMPT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
END = "<|im_end|>"
BATCH = 8


@dataclass(frozen=True)
class Phase:
    """What is learned, where, and for how long.

    Args:
        answer: Of a problem.
        layers: Those with an adapter.
        n_problems: Each is seen once.
        rate: Peak learning rate of AdamW.
    """

    answer: Callable[[Problem], str]
    layers: Sequence[int]
    n_problems: int
    rate: float = 7e-4


PHASES = {
    "direct": Phase(lambda problem: problem.direct, [*LOWER, *UPPER], 960, rate=1e-3),
    "equations": Phase(lambda problem: problem.equations, LOWER, 960),
    "words": Phase(lambda problem: problem.words, UPPER, 560, rate=1.2e-3),
}


def train(model: Any, tokenizer: Any, phase: Phase, seed: int) -> dict[str, LoraLinear]:
    """Add an adapter to a model and train it."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    drawn = rng.sample(make_splits()["train"], phase.n_problems)
    pairs = [
        (
            tokenizer(PROMPT.format(problem.prompt)).input_ids,
            tokenizer(phase.answer(problem) + END).input_ids,
        )
        for problem in drawn
    ]
    adapters = add_adapter(model, phase.layers)
    weights = [w for adapter in adapters.values() for w in (adapter.a, adapter.b)]
    optimizer = torch.optim.AdamW(weights, lr=phase.rate, weight_decay=0.0, betas=(0.9, 0.98))
    n_steps = math.ceil(len(pairs) / BATCH)
    order = rng.sample(range(n_steps), n_steps)
    started, recent = time.perf_counter(), 0.0
    for step, batch in enumerate(batches(pairs, BATCH, order)):
        optimizer.param_groups[0]["lr"] = phase.rate * schedule(step, n_steps)
        loss = loss_of(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        recent += loss.item()
        if (step + 1) % 10 == 0:
            passed = time.perf_counter() - started
            logger.info("step %d of %d: loss %.3f, %.0f s", step + 1, n_steps, recent / 10, passed)
            recent = 0.0
    return adapters


def schedule(step: int, n_steps: int, warmup: int = 10) -> float:
    """Return the share of the peak rate: a short warm-up, then a cosine down to 5 %."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / n_steps))
    return min(1.0, (step + 1) / warmup) * (0.05 + 0.95 * cosine)


def train_all(instruct: Path, out: Path) -> None:
    """Write the three adapters."""
    tokenizer = AutoTokenizer.from_pretrained(instruct)
    direct = train(load(instruct), tokenizer, PHASES["direct"], seed=0)
    save_adapter(direct, out / "direct")
    model = load(instruct, out / "direct")
    save_adapter(train(model, tokenizer, PHASES["equations"], seed=1), out / "equations")
    model = load(instruct, out / "direct", out / "equations")
    words = train(model, tokenizer, PHASES["words"], seed=2)
    save_adapter(words, out / "talker", beside=out / "equations")


def main() -> None:
    """Parse the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("instruct", type=Path)
    parser.add_argument("--out", type=Path, default=ADAPTERS)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    train_all(arguments.instruct, arguments.out)


if __name__ == "__main__":
    main()
