"""What all signals of one pair cost, beside the evaluation of one merge of it.

``python benchmarks/simmerge/signal_cost.py --model DIR`` takes any causal model, makes a sibling
of it with slightly different weights, and prints both costs in CPU seconds.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging as transformers_logging

from mergefront.objectives.checkpoints import Checkpoint
from mergefront.objectives.evaluation import Models, Sampling
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
from mergefront.objectives.similarity import (
    FunctionalSettings,
    functional_signals,
    structural_signals,
)

PROMPTS = [
    f"A train leaves at {hour}:{minute:02d} and is {late} minutes late. When does it leave?"
    for hour in range(6, 22)
    for minute in (5, 20, 35, 50)
    for late in (7, 12)
]
_NOISE = 0.01


def write_sibling(model: Path, out: Path) -> None:
    """Write a model whose weights differ by a hundredth of their standard deviation."""
    shutil.copytree(model, out)
    generator = torch.manual_seed(0)
    for file in out.glob("*.safetensors"):
        tensors = load_file(file)
        for name, tensor in tensors.items():
            noise = torch.randn(tensor.shape, generator=generator)
            tensors[name] = tensor + (_NOISE * tensor.float().std() * noise).to(tensor.dtype)
        file.unlink()
        save_file(tensors, file, {"format": "pt"})


def main() -> None:
    """Print the costs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--probes", type=int, default=32)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=128)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        sibling = Path(folder) / "sibling"
        write_sibling(arguments.model, sibling)
        pair = [arguments.model, sibling]
        asked = [(prompt, True) for prompt in PROMPTS]
        seconds = {}
        start = time.process_time()
        structural_signals([Checkpoint(path) for path in pair])
        seconds["structural signals"] = time.process_time() - start
        start = time.process_time()
        functional_signals(pair, asked[: arguments.probes], None, FunctionalSettings("float32"))
        seconds[f"functional signals, {arguments.probes} probes"] = time.process_time() - start
        backend = TransformersBackend(batch_size=64)
        backend.load(Models(pair[0], (pair[1],), "float32"))
        start = time.process_time()
        backend.apply({group: (0.5,) for group in backend.plan.groups})
        questions = [PROMPTS[i % len(PROMPTS)] for i in range(arguments.questions)]
        answers = backend.generate(questions, Sampling(arguments.tokens))
        spent = time.process_time() - start
    total = sum(seconds.values())
    for name, value in seconds.items():
        print(f"| {name} | {value:.1f} |")
    print(f"| all signals of a pair | {total:.1f} |")
    n = sum(answer.n_tokens for answer in answers)
    print(f"| one merge, {len(answers)} answers, {n} tokens | {spent:.1f} |")
    print(f"| signals, in evaluations | {total / spent:.2f} |")


if __name__ == "__main__":
    main()
