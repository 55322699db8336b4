"""Seconds from a candidate's weights to its first token, in six ways, and the bandwidth reached.

    make bench-swap

For each candidate: merge inside the running vLLM engine (ours), in place or through its loader;
merge to a checkpoint and let the running engine read it; merge to a checkpoint and start an
engine on it; and, for comparison, merge in place in a transformers model. The same candidates in
the same run, for each pair of models. CPU layers are packed, and then only the loader can write
them: in place is measured in an engine whose layers were kept plain, as they are on GPUs, beside
the loader in that engine.

A merge reads two parents and writes one model. What that moves in a second, by the time of the
swap alone, is compared with what a plain copy moves on the same device just before.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

import torch
from pairs import SHAPES, make_pair, n_parameters

from mergefront.objectives.checkpoints import Checkpoint, is_tied
from mergefront.objectives.evaluation import Backend, Models, Sampling
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
from mergefront.objectives.evaluation.backends.vllm_backend import VllmBackend
from mergefront.objectives.evaluation.backends.vllm_swap import Engine, canary
from mergefront.objectives.merging import MergePlan, MergeSettings, Recipe, write_checkpoint
from plain_layers import plain_layers

_FIRST_TOKEN = Sampling(1)
_PROMPT = ["1a+1b+1?"]
# Bytes of a plain copy: more than a processor's cache.
_COPIED = 1 << 28
# Answered together to measure tokens a second.
_N_ANSWERS, _N_TOKENS = (64, 48) if torch.cuda.is_available() else (16, 12)
_N_REPEATS = 3
_COLUMNS = (
    "",
    "seconds to the first token",
    "against the first",
    "swap, ms",
    "of a copy's speed, %",
    "tokens/s after it",
)

Groups = dict[str, list[float]]


@dataclass
class Row:
    """One way of swapping.

    Args:
        name: Printed.
        seconds: From the weights to the first token, one a candidate.
        swaps: Of the swap alone, where it can be told apart.
        copies: Bytes that a plain copy moved in a second, before each of these.
        tokens: A second, after the last swap, several times.
    """

    name: str
    seconds: list[float] = field(default_factory=list)
    swaps: list[float] = field(default_factory=list)
    copies: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)


def main() -> None:
    """Print one table for each pair of models."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--pairs",
        nargs="+",
        default=["demo", "0.5b", "moe"],
        metavar="PAIR",
        choices=["demo", *SHAPES],
    )
    parser.add_argument("--candidates", type=int, default=5)
    parser.add_argument("--only-engine", action="store_true", help="leave out transformers")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not torch.cuda.is_available():
        canary.N_TOKENS = 2  # what is compared at the start is not what is timed
    for shape in arguments.pairs:
        with tempfile.TemporaryDirectory() as folder:
            models = make_pair(shape, Path(folder))
            _compare(shape, models, Path(folder) / "merged", arguments)


def _compare(shape: str, models: Models, scratch: Path, arguments: argparse.Namespace) -> None:
    base = Checkpoint(models.base)
    plan = MergePlan(base.layout, MergeSettings(), is_tied(base))
    experts = [Checkpoint(path) for path in models.experts]
    recipe = Recipe(base, experts, plan, getattr(torch, models.dtype))
    n = arguments.candidates
    candidates = [plan.group_weights(plan.uniform((index + 1) / (n + 1))) for index in range(n)]
    groups = [{k: list(v) for k, v in candidate.items()} for candidate in candidates]
    rows = _engines(models, recipe, groups, scratch)
    if not arguments.only_engine:
        rows.append(_in_transformers(models, groups))
    n_bytes = n_parameters(models) * recipe.dtype.itemsize
    _print(shape, models, rows, n_bytes)


def _engines(models: Models, recipe: Recipe, groups: list[Groups], scratch: Path) -> list[Row]:
    backend = VllmBackend()
    seconds = _seconds(lambda: backend.load(models))
    print(f"started and compared with fresh engines in {seconds:.0f} s; {backend.repeatability}")
    rows = _swaps(backend, groups, "vLLM")
    rows.append(_reread(backend, recipe, groups, scratch))
    plain = backend.overwrites
    backend.close()
    if not plain:
        with plain_layers():
            backend.load(models)
            if backend.overwrites:
                rows += _swaps(backend, groups, "vLLM with plain layers")
            backend.close()
    rows.append(_restart(backend, models, recipe, groups[: max(2, len(groups) // 2)], scratch))
    return rows


def _swaps(backend: VllmBackend, groups: Sequence[Groups], engine: str) -> list[Row]:
    """Measure each of our ways that the engine can take."""
    rows = []
    ways = {"merged in place (ours)": True} if backend.overwrites else {}
    for way, in_place in (ways | {"merged through the loader (ours)": False}).items():
        backend._overwrites = in_place
        row = Row(f"{engine}, {way}")
        for candidate in groups:
            row.copies.append(_copied_bytes_per_second())
            start = time.perf_counter()
            row.swaps.append(backend.apply(candidate))
            backend.generate(_PROMPT, _FIRST_TOKEN)
            row.seconds.append(time.perf_counter() - start)
        row.tokens += _tokens_per_second(backend)
        rows.append(row)
    backend._overwrites = bool(ways)
    return rows


def _tokens_per_second(backend: VllmBackend) -> list[float]:
    """Return the speed of each of some repeats of the same answers."""
    from vllm import SamplingParams

    sampling = SamplingParams(temperature=0.0, max_tokens=_N_TOKENS, ignore_eos=True)
    assert backend._engine is not None
    prompts = [[5 + i % 40, 6, 7] for i in range(_N_ANSWERS)]
    generate = partial(backend._engine.generate, prompts, sampling)
    return [_N_ANSWERS * _N_TOKENS / _seconds(generate) for _ in range(_N_REPEATS)]


def _reread(backend: VllmBackend, recipe: Recipe, groups: list[Groups], out: Path) -> Row:
    def swap(candidate: Groups) -> None:
        write_checkpoint(recipe, candidate, out)
        assert backend._engine is not None
        reload = {"weights_path": str(out), "is_checkpoint_format": True}
        backend._engine.llm.collective_rpc("reload_weights", kwargs=reload)
        backend.generate(_PROMPT, _FIRST_TOKEN)

    row = Row("vLLM, checkpoint written and read again")
    for candidate in groups:
        row.seconds.append(_seconds(partial(swap, candidate)))
        shutil.rmtree(out)
    return row


def _restart(
    backend: VllmBackend, models: Models, recipe: Recipe, groups: list[Groups], out: Path
) -> Row:
    from vllm import SamplingParams

    row = Row("vLLM, checkpoint written, new engine")
    for candidate in groups:
        start = time.perf_counter()
        write_checkpoint(recipe, candidate, out)
        backend._engine = Engine(out, models.dtype, backend._started_with)
        backend._engine.generate([[1, 2, 3]], SamplingParams(max_tokens=1))
        row.seconds.append(time.perf_counter() - start)
        row.tokens += _tokens_per_second(backend)
        backend.close()
        shutil.rmtree(out)
    return row


def _in_transformers(models: Models, groups: list[Groups]) -> Row:
    backend: Backend = TransformersBackend()
    backend.load(models)
    row = Row("transformers, merged in place")
    for candidate in groups:
        row.copies.append(_copied_bytes_per_second())
        start = time.perf_counter()
        row.swaps.append(backend.apply(candidate))
        backend.generate(_PROMPT, _FIRST_TOKEN)
        row.seconds.append(time.perf_counter() - start)
    return row


def _seconds(action: Callable[[], Any]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _copied_bytes_per_second() -> float:
    """Return what a plain copy moves: each byte is read once and written once."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    source = torch.zeros(_COPIED, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)
        if device == "cuda":
            torch.cuda.synchronize()

    copy()
    return 2 * _COPIED / _seconds(copy)


def _print(shape: str, models: Models, rows: Sequence[Row], n_bytes: int) -> None:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    size = f"{n_parameters(models) / 1e9:.3g} billion weights, {models.dtype}"
    print(f"\n**{shape}: {size}, {device}**\n")
    print(f"| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}")
    for row in rows:
        cells = [_estimate(row.seconds), f"{fmean(row.seconds) / fmean(rows[0].seconds):.1f}"]
        if row.swaps:
            pairs = zip(row.swaps, row.copies, strict=True)
            shares = [100 * 3 * n_bytes / swap / copied for swap, copied in pairs]
            cells += [_estimate([1e3 * swap for swap in row.swaps], 0), _estimate(shares, 0)]
        else:
            cells += ["", ""]
        cells.append(_estimate(row.tokens, 0) if row.tokens else "")
        print(f"| {row.name} | {' | '.join(cells)} |", flush=True)


def _estimate(numbers: list[float], digits: int = 3) -> str:
    return f"{fmean(numbers):.{digits}f} ± {stdev(numbers) / len(numbers) ** 0.5:.{digits}f}"


if __name__ == "__main__":
    main()
