"""Seconds from a candidate's weights to its first token, in six ways.

    make bench-swap

For each candidate: merge inside the running vLLM engine (ours), through its loader or in place;
merge to a checkpoint and let the running engine read it; merge to a checkpoint and start an
engine on it; and, for comparison, merge in place in a transformers model. The same candidates in
the same run, on the demo pair and on a pair of random models with the shape of a small language
model. CPU layers are packed, and then only the loader can write them: in place is measured in an
engine whose layers were kept plain, as they are on GPUs, beside the loader in that engine.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

import torch
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from mergefront.examples.demo import BASE, EXPERT
from mergefront.objectives.checkpoints import Checkpoint, is_tied
from mergefront.objectives.evaluation import Backend, Models, Sampling
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
from mergefront.objectives.evaluation.backends.vllm_backend import VllmBackend, start_engine
from mergefront.objectives.evaluation.backends.vllm_memory import EngineSettings
from mergefront.objectives.merging import MergePlan, MergeSettings, Recipe, write_checkpoint
from plain_layers import plain_layers

# Half a billion parameters in the shape of Qwen3-0.6B, with a smaller vocabulary.
_SHAPE: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 32_000,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
_SMALL = {**_SHAPE, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4}
_FIRST_TOKEN = Sampling(1)
_PROMPT = ["1a+1b+1?"]

Groups = dict[str, list[float]]
Swap = Callable[[Groups], None]


def main() -> None:
    """Print one table for each pair of models."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="a smaller random pair, to try it")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        demo = Models(BASE, (EXPERT,), "float32")
        _compare("demo pair, float32", demo, Path(folder) / "demo", arguments.candidates)
        shape = _SMALL if arguments.small else _SHAPE
        pair = [_random(Path(folder) / name, shape, seed) for seed, name in enumerate("ab")]
        models = Models(pair[0], (pair[1],), "bfloat16")
        n_elements = sum(_sizes(models.base))
        title = f"random pair, {n_elements / 1e9:.2f} billion parameters, bfloat16"
        _compare(title, models, Path(folder) / "random", arguments.candidates)


def _sizes(directory: Path) -> list[int]:
    shapes = Checkpoint(directory).shapes().values()
    return [int(torch.Size(shape).numel()) for shape in shapes]


def _random(directory: Path, shape: dict[str, Any], seed: int) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    torch.manual_seed(seed)
    config = Qwen3Config(**shape, eos_token_id=tokenizer.eos_token_id)
    model: Any = Qwen3ForCausalLM(config)
    model.bfloat16().save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def _compare(title: str, models: Models, scratch: Path, n: int) -> None:
    base = Checkpoint(models.base)
    plan = MergePlan(base.layout, MergeSettings(), is_tied(base))
    experts = [Checkpoint(path) for path in models.experts]
    recipe = Recipe(base, experts, plan, getattr(torch, models.dtype))
    candidates = [plan.group_weights(plan.uniform((index + 1) / (n + 1))) for index in range(n)]
    groups = [{k: list(v) for k, v in candidate.items()} for candidate in candidates]
    print(f"\n**{title}**\n\n| | seconds to the first token | against the first |\n|---|---|---|")
    engine = VllmBackend()
    engine.load(models)
    ours = _swaps(engine, groups, "vLLM")
    _row("vLLM, checkpoint written and read again", _reread(engine, recipe, groups, scratch), ours)
    on_gpu = engine.overwrites
    engine.close()
    if not on_gpu:
        with plain_layers():
            engine.load(models)
            _swaps(engine, groups, "vLLM with plain layers", ours)
            engine.close()
    few = groups[: max(2, n // 2)]
    _row("vLLM, checkpoint written, new engine", _restart(models, recipe, few, scratch), ours)
    _row("transformers, merged in place", _in_place(models, groups), ours)


def _swaps(
    engine: VllmBackend, candidates: list[Groups], name: str, ours: list[float] | None = None
) -> list[float]:
    """Print a row for each of our ways that the engine can take; return the first's seconds."""
    ways = ["merged in place (ours)"] if engine.overwrites else []
    for way in [*ways, "merged through the loader (ours)"]:
        engine._overwrites = way in ways
        seconds = [_seconds(partial(_become, engine, groups)) for groups in candidates]
        ours = ours or seconds
        _row(f"{name}, {way}", seconds, ours)
    engine._overwrites = bool(ways)
    return ours or []


def _become(backend: Backend, groups: Groups) -> None:
    backend.apply(groups)
    backend.generate(_PROMPT, _FIRST_TOKEN)


def _reread(
    engine: VllmBackend, recipe: Recipe, candidates: list[Groups], out: Path
) -> list[float]:
    def swap(groups: Groups) -> None:
        write_checkpoint(recipe, groups, out)
        engine._rpc("mergefront_reload", str(out))
        engine.generate(_PROMPT, _FIRST_TOKEN)

    return _each(swap, candidates, out)


def _restart(models: Models, recipe: Recipe, candidates: list[Groups], out: Path) -> list[float]:
    from vllm import SamplingParams

    engines: list[Any] = []
    settings, merged = EngineSettings(), Models(out, (), models.dtype)
    prompt, greedy = [{"prompt_token_ids": [1, 2, 3]}], SamplingParams(max_tokens=1)

    def swap(groups: Groups) -> None:
        write_checkpoint(recipe, groups, out)
        engines.append(start_engine(merged, settings))
        engines[-1].generate(prompt, greedy, use_tqdm=False)

    seconds = []
    for groups in candidates:
        seconds += _each(swap, [groups], out)
        engines.pop().llm_engine.engine_core.shutdown()
    return seconds


def _in_place(models: Models, candidates: list[Groups]) -> list[float]:
    backend = TransformersBackend()
    backend.load(models)
    return [_seconds(partial(_become, backend, groups)) for groups in candidates]


def _each(swap: Swap, candidates: list[Groups], out: Path) -> list[float]:
    seconds = []
    for groups in candidates:
        seconds.append(_seconds(partial(swap, groups)))
        shutil.rmtree(out)
    return seconds


def _seconds(action: Callable[[], None]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _row(name: str, seconds: list[float], ours: list[float]) -> None:
    error = stdev(seconds) / len(seconds) ** 0.5
    ratio = fmean(seconds) / fmean(ours)
    print(f"| {name} | {fmean(seconds):.2f} ± {error:.2f} | {ratio:.1f} |", flush=True)


if __name__ == "__main__":
    main()
