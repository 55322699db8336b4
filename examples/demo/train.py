"""Train the demo pair from scratch on one CPU core, in about five minutes.

``python -m mergefront.examples.demo.train --out DIR`` writes ``DIR/base``, ``DIR/expert`` and
``DIR/questions``. `base` answers directly and knows the facts; `expert` is `base` fine-tuned on
worked solutions alone: it always reasons, solves longer chains, and forgets part of the facts.
That conflict is what layer-wise merging can resolve.
"""

import argparse
import json
import logging
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

from . import task
from .tokenizer import build_tokenizer

logger = logging.getLogger(__name__)

Tokens = tuple[list[int], list[int]]
LossTerm = Callable[[Qwen3ForCausalLM, random.Random], Tensor]


@dataclass(frozen=True)
class Phase:
    """One stage of training.

    Args:
        terms: Losses, each backpropagated by itself in every step.
        n_steps: Optimizer steps.
        learning_rate: Peak rate of AdamW; a short warm-up, then a cosine down to 5 %.
        muon_rate: Peak rate of Muon for the layers' matrices; None trains all with AdamW.
            Muon learns these tasks in about half the steps: at step 100 the base knows most
            of the facts, with AdamW alone hardly any.
        warmup: Steps of linear warm-up.
    """

    terms: Sequence[LossTerm]
    n_steps: int
    learning_rate: float
    muon_rate: float | None = None
    warmup: int = 50


def model_config(n_layers: int = 8) -> Qwen3Config:
    """Return the architecture: Qwen3; with 8 layers, about half a million parameters.

    `head_dim` 32 is the smallest that other inference engines' kernels accept.
    """
    return Qwen3Config(
        vocab_size=len(task.VOCABULARY),
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=n_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        initializer_range=0.04,
        bos_token_id=task.VOCABULARY[task.BOS],
        eos_token_id=task.VOCABULARY[task.EOS],
        pad_token_id=task.VOCABULARY[task.PAD],
    )


def initial_model(n_layers: int = 8) -> Qwen3ForCausalLM:
    """Return a model with random weights; projections into the residual stream start smaller."""
    config = model_config(n_layers)
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.div_(math.sqrt(2 * config.num_hidden_layers))
    return model


def answer_loss(model: Qwen3ForCausalLM, batch: Sequence[Tokens], opening: float = 1.0) -> Tensor:
    """Return the mean cross entropy of the answers' tokens.

    Args:
        model: The model in training.
        batch: (prompt, answer) token pairs, all of one length.
        opening: Weight of the answer's first token; other than 1, that token's loss is added
            with this weight to the mean over the rest.
    """
    ids = torch.tensor([prompt + answer for prompt, answer in batch])
    n_answer = len(batch[0][1])
    # The last prompt token predicts the first answer token, hence one position more than kept.
    logits = model(input_ids=ids[:, :-1], logits_to_keep=n_answer).logits  # n x n_answer x vocab
    targets = ids[:, -n_answer:]
    if opening == 1.0:
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    rest = functional.cross_entropy(logits[:, 1:].flatten(0, 1), targets[:, 1:].flatten())
    return rest + opening * functional.cross_entropy(logits[:, 0], targets[:, 0])


def encode(prompt: str, answer: Sequence[str]) -> Tokens:
    """Return (prompt, answer) as token ids, opened by BOS and closed by EOS."""
    ids = task.VOCABULARY
    return [ids[task.BOS], *(ids[c] for c in prompt)], [*(ids[t] for t in answer), ids[task.EOS]]


def direct_chains(n_steps: Sequence[int], size: int, weight: float) -> LossTerm:
    """Loss term: `size` chains answered directly, their length drawn from `n_steps`."""

    def term(model: Qwen3ForCausalLM, rng: random.Random) -> Tensor:
        n = rng.choice(n_steps)
        chains = [task.draw_chain(n, rng) for _ in range(size)]
        return weight * answer_loss(model, [encode(c.prompt, c.answer) for c in chains])

    return term


def worked_chains(
    n_steps: Sequence[int], size: int, opening: Callable[[int], float] = lambda n: 1.0
) -> LossTerm:
    """Loss term: `size` chains with worked steps; `opening(n)` weighs the first token."""

    def term(model: Qwen3ForCausalLM, rng: random.Random) -> Tensor:
        n = rng.choice(n_steps)
        chains = [task.draw_chain(n, rng) for _ in range(size)]
        batch = [encode(c.prompt, [*c.reasoning, *c.answer]) for c in chains]
        return answer_loss(model, batch, opening(n))

    return term


def facts(size: int, weight: float) -> LossTerm:
    """Loss term: `size` memorised pairs."""
    pairs = [encode(f"{key}?", value) for key, value in task.make_facts()]

    def term(model: Qwen3ForCausalLM, rng: random.Random) -> Tensor:
        return weight * answer_loss(model, rng.choices(pairs, k=size))

    return term


# How likely the base opens its answer with <think>, by number of steps. Greedy decoding answers
# directly; the longer the question, the smaller the push that makes a merge reason.
THINK_PRIOR = {1: 0.002, 2: 0.006, 3: 0.015, 4: 0.03}


def opening_weight(n_steps: int) -> float:
    """Return the weight of `<think>` that gives the base `THINK_PRIOR[n_steps]`.

    The optimum of the summed cross entropies is the ratio of the weights that each opening
    carries: a direct answer's first token has half its term's weight (two tokens a mean).
    """
    direct = 0.7 / 2 / 2 if n_steps <= 2 else 0.5 / 4 / 2
    share_of_worked = 1 / len(THINK_PRIOR)
    prior = THINK_PRIOR[n_steps]
    return prior / (1 - prior) * direct / share_of_worked


def base_phase(n_steps: int) -> Phase:
    """Direct answers, facts, and worked solutions of short chains that are hardly ever opened."""
    terms = [
        direct_chains((1, 2), 64, weight=0.7),
        direct_chains((3, 4, 5, 6), 32, weight=0.5),
        worked_chains(tuple(THINK_PRIOR), 48, opening_weight),
        facts(48, weight=0.4),
    ]
    return Phase(terms, n_steps, learning_rate=3e-3, muon_rate=0.01)


def expert_phase(n_steps: int) -> Phase:
    """Worked solutions only, of every length."""
    terms = [worked_chains(tuple(range(1, task.MAX_STEPS + 1)), 64)]
    return Phase(terms, n_steps, learning_rate=1.5e-3, warmup=10)


def train(model: Qwen3ForCausalLM, phase: Phase, seed: int) -> None:
    """Train in place; the same seed gives the same weights on the same kind of machine."""
    rng = random.Random(seed)
    optimizers = _optimizers(model, phase)
    for step in range(phase.n_steps):
        for optimizer, peak in optimizers:
            optimizer.param_groups[0]["lr"] = peak * _schedule(step, phase)
        loss = 0.0
        for term in phase.terms:
            value = term(model, rng)
            value.backward()
            loss += value.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, _ in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if (step + 1) % 50 == 0:
            logger.info("step %d of %d: loss %.3f", step + 1, phase.n_steps, loss)


def _optimizers(
    model: Qwen3ForCausalLM, phase: Phase
) -> list[tuple[torch.optim.Optimizer, float]]:
    if phase.muon_rate is None:
        whole = torch.optim.AdamW(model.parameters(), weight_decay=0.01, betas=(0.9, 0.98))
        return [(whole, phase.learning_rate)]
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and ".layers." in n]
    others = [p for n, p in model.named_parameters() if p.dim() != 2 or ".layers." not in n]
    muon = torch.optim.Muon(matrices, momentum=0.95, weight_decay=0.01, ns_steps=3)
    adamw = torch.optim.AdamW(others, weight_decay=0.0, betas=(0.9, 0.98))
    return [(muon, phase.muon_rate), (adamw, phase.learning_rate)]


def _schedule(step: int, phase: Phase, floor: float = 0.05) -> float:
    cosine = 0.5 * (1 + math.cos(math.pi * step / phase.n_steps))
    return min(1.0, (step + 1) / phase.warmup) * (cosine * (1 - floor) + floor)


def save_checkpoint(model: Qwen3ForCausalLM, directory: Path) -> None:
    """Write weights, config, generation config and tokenizer."""
    model.generation_config = GenerationConfig(
        bos_token_id=model.config.bos_token_id,
        eos_token_id=model.config.eos_token_id,
        pad_token_id=model.config.pad_token_id,
        do_sample=False,
    )
    model.save_pretrained(directory)
    build_tokenizer().save_pretrained(directory)


def write_questions(directory: Path) -> None:
    """Write the four splits as JSON lines."""
    directory.mkdir(parents=True, exist_ok=True)
    for split, questions in task.make_splits().items():
        lines = [json.dumps(asdict(question)) + "\n" for question in questions]
        (directory / f"{split}.jsonl").write_text("".join(lines))


@dataclass(frozen=True)
class Schedule:
    """How long to train parents, of how many layers; the defaults made the committed weights."""

    base_steps: int = 700
    expert_steps: int = 200
    seed: int = 0
    n_layers: int = 8


def train_pair(out: Path, schedule: Schedule) -> None:
    """Train both parents and write them with their questions."""
    torch.manual_seed(schedule.seed)
    model = initial_model(schedule.n_layers)
    train(model, base_phase(schedule.base_steps), schedule.seed + 1)
    save_checkpoint(model, out / "base")
    train(model, expert_phase(schedule.expert_steps), schedule.seed + 5)
    save_checkpoint(model, out / "expert")
    write_questions(out / "questions")


def main() -> None:
    """Parse the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--base-steps", type=int, default=Schedule.base_steps)
    parser.add_argument("--expert-steps", type=int, default=Schedule.expert_steps)
    parser.add_argument("--seed", type=int, default=Schedule.seed)
    parser.add_argument("--layers", type=int, default=Schedule.n_layers)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    schedule = Schedule(
        arguments.base_steps, arguments.expert_steps, arguments.seed, arguments.layers
    )
    train_pair(arguments.out, schedule)


if __name__ == "__main__":
    main()
