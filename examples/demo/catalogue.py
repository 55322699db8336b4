"""Train a catalogue of sixteen experts to merge, from one ancestor, in about three minutes.

``python -m mergefront.examples.demo.catalogue --out DIR`` writes ``DIR/ancestor``, the demo's
base after a short mixture of all eight skills, and from it two experts a skill: ``DIR/sort-light``
and ``DIR/sort-heavy`` differ in how far they were trained, and so in how much of the other skills
they forgot. ``DIR/questions`` holds questions and answers, ``DIR/probes`` questions alone, and
``DIR/catalogue.yaml`` with ``DIR/study.yaml`` is ready for ``mergefront select``.
"""

import argparse
import json
import logging
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from transformers import Qwen3ForCausalLM

from . import BASE
from .skills import SKILLS, draw, questions
from .train import LossTerm, Phase, answer_loss, encode, save_checkpoint, train

logger = logging.getLogger(__name__)

_PROBES_SEED, _QUESTIONS_SEED = 2, 1
# Far apart: catalogues of other seeds share nothing.
_ANCESTOR_SEED, _EXPERT_SEED = 3, 100_005


@dataclass(frozen=True)
class Course:
    """How far experts are trained.

    Args:
        n_steps: Optimizer steps.
        learning_rate: Peak rate of AdamW.
    """

    n_steps: int
    learning_rate: float


COURSES = {"light": Course(120, 4e-4), "heavy": Course(220, 8e-4)}

# Questions of a skill in a step of the ancestor's mixture. What the ancestor half knows survives
# averaging, what it does not know needs the whole task vector: neither linear merges nor TIES are
# best everywhere. With a better ancestor linear merges are, and there is nothing to select.
_OFTEN, _SELDOM = 32, 10
_MIXTURE = dict.fromkeys(SKILLS, _SELDOM) | dict.fromkeys(
    ("sort", "double", "rotate", "swap"), _OFTEN
)


@dataclass(frozen=True)
class Size:
    """What is trained; the defaults made the committed tables.

    Args:
        ancestor_steps: Optimizer steps of the mixture.
        share: Of every course's steps.
        n_questions: A skill.
        n_probes: A skill.
        seed: Of what models are trained on. The default's catalogue is the benchmark's; settings
            of the predictor were chosen on another one.
    """

    ancestor_steps: int = 140
    share: float = 1.0
    n_questions: int = 100
    n_probes: int = 8
    seed: int = 1


def names() -> list[str]:
    """Return the experts' names, `skill-course`."""
    return [f"{skill}-{course}" for skill in SKILLS for course in COURSES]


def skill_of(name: str) -> str:
    """Return what an expert was trained on."""
    return name.split("-")[0]


def _answers(skill: str, size: int) -> LossTerm:
    def term(model: Qwen3ForCausalLM, rng: random.Random) -> Tensor:
        return answer_loss(model, [encode(*draw(skill, rng)) for _ in range(size)])

    return term


def train_ancestor(out: Path, size: Size) -> None:
    """Train the demo's base on a mixture of all skills: it half knows most of them."""
    torch.manual_seed(0)
    model = Qwen3ForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    terms = [_answers(skill, n) for skill, n in _MIXTURE.items()]
    train(
        model, Phase(terms, size.ancestor_steps, 2e-3, 7e-3, warmup=20), _ANCESTOR_SEED + size.seed
    )
    save_checkpoint(model, out / "ancestor")


def train_expert(out: Path, name: str, size: Size) -> None:
    """Train one expert from the ancestor in `out`."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Qwen3ForCausalLM.from_pretrained(out / "ancestor", dtype=torch.float32)
    skill, course = name.split("-")
    n_steps = max(1, round(size.share * COURSES[course].n_steps))
    phase = Phase([_answers(skill, 64)], n_steps, COURSES[course].learning_rate, warmup=20)
    train(model, phase, _EXPERT_SEED + size.seed)
    save_checkpoint(model, out / name)
    logger.info("%s is trained", name)


def write_files(out: Path, chosen: Sequence[str], size: Size) -> None:
    """Write questions, probes and the catalogue's description."""
    for folder in ("questions", "probes"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    every_probe = []
    for skill in SKILLS:
        asked = questions(skill, size.n_questions, _QUESTIONS_SEED)
        lines = [json.dumps(asdict(question)) + "\n" for question in asked]
        (out / "questions" / f"{skill}.jsonl").write_text("".join(lines))
        probes = questions(skill, size.n_probes, _PROBES_SEED)
        lines = [json.dumps({"prompt": probe.prompt}) + "\n" for probe in probes]
        (out / "probes" / f"{skill}.jsonl").write_text("".join(lines))
        every_probe += lines
    (out / "probes" / "all.jsonl").write_text("".join(every_probe))
    content = {
        "dtype": "float32",
        "ancestor": "ancestor",
        "models": {name: name for name in chosen},
        "study": "study.yaml",
    }
    (out / "catalogue.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    (out / "study.yaml").write_text(yaml.safe_dump(_study(chosen), sort_keys=False))


def _study(chosen: Sequence[str]) -> dict[str, Any]:
    """Return a spec with a task a skill; its models are an example."""
    return {
        "study": {"name": "skills", "storage": "sqlite:///runs/skills.db", "trials": 30},
        "models": {"base": "ancestor", "experts": [chosen[0]], "dtype": "float32"},
        "objectives": [{"metric": "accuracy"}, {"metric": "tokens"}],
        "evaluation": {
            "max_new_tokens": 8,
            "batch_size": 400,
            "tasks": [{"name": skill, "path": f"questions/{skill}.jsonl"} for skill in SKILLS],
        },
    }


def build(out: Path, size: Size, jobs: int = 1, chosen: Sequence[str] | None = None) -> None:
    """Train what is missing of the catalogue.

    Args:
        out: Its directory.
        size: How much is trained.
        jobs: Experts that are trained at once.
        chosen: Names of experts; defaults to None: all.
    """
    chosen = names() if chosen is None else chosen
    write_files(out, chosen, size)
    if not (out / "ancestor" / "model.safetensors").exists():
        train_ancestor(out, size)
    missing = [name for name in chosen if not (out / name / "model.safetensors").exists()]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        list(pool.map(train_expert, [out] * len(missing), missing, [size] * len(missing)))


def main() -> None:
    """Parse the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=Size.seed)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    build(arguments.out, Size(seed=arguments.seed), arguments.jobs)


if __name__ == "__main__":
    main()
