"""Time and memory of merging a model the shape of Qwen3-0.6B, beside what the hardware allows.

    python benchmarks/merging/merge_speed.py --work runs/merging [--mergekit PYTHON]

Makes a synthetic base and two experts (28 layers, 596 M parameters, 1.19 GB in bfloat16, three
shards), then measures every row in a process of its own: CPU seconds of the step named, and the
process's peak memory. One thread, so CPU seconds compare; files are in the page cache. With
`--mergekit`, the Python of an environment that has mergekit, it is measured in the same run.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean, median, stdev

import torch
from synthetic import SHARDS, load_modules, make_models, recipe

from mergefront.objectives.merging import MergeSettings, ModuleSink, write_checkpoint

Steps = dict[str, float]


def _timed(step: Callable[[], object]) -> float:
    """Return the CPU seconds of a step."""
    start = time.process_time()
    step()
    return time.process_time() - start


def _groups(n_experts: int, shift: float = 0.0) -> dict[str, tuple[float, ...]]:
    """Return 28 different weights an expert."""
    return {
        f"layer_{i:03d}": tuple(0.1 + shift + 0.02 * i / (k + 1) for k in range(n_experts))
        for i in range(28)
    }


def _raw_read_write(work: Path) -> None:
    """Read both parents and write one model, in pieces of 1 MB, with nothing in between."""
    buffer = bytearray(1 << 20)
    for name in SHARDS:
        with (work / "raw").open("wb", buffering=0) as out:
            for model in ("base", "one"):
                with (work / model / name).open("rb", buffering=0) as file:
                    while n := file.readinto(buffer):
                        if model == "base":
                            out.write(memoryview(buffer)[:n])
    (work / "raw").unlink()


def memory_copy(work: Path) -> Steps:
    """Copy the model's bytes within memory."""
    source, target = (
        torch.ones(1_192_000_000, dtype=torch.uint8),
        torch.zeros(1_192_000_000, dtype=torch.uint8),
    )
    return {"CPU s": _timed(lambda: target.copy_(source))}


def to_disk(work: Path) -> Steps:
    """Linear merge of the pair from files to files, in turn with the raw read and write."""
    merge = recipe(work, 1, MergeSettings())
    raw, ours, peaks = [], [], []
    for _ in range(20):
        raw.append(_timed(lambda: _raw_read_write(work)))
        ours.append(_timed(lambda: write_checkpoint(merge, _groups(1), work / "out")))
        peaks.append(_peak_gb())
        shutil.rmtree(work / "out")
    ratios = [a / b for a, b in zip(ours, raw, strict=True)]
    return {
        "CPU s": fmean(ours),
        "raw read and write": fmean(raw),
        "median ratio": median(ratios),
        "ratio's error": stdev(ratios) / len(ratios) ** 0.5,
        "peak GB after the 1st of 20": peaks[0],
    }


def _in_place(work: Path, settings: MergeSettings) -> Steps:
    live, *experts = load_modules(work, settings.n_experts)
    sink = ModuleSink(live, experts, settings, tied=True)
    first = _timed(lambda: sink.write(_groups(settings.n_experts)))
    later = [_timed(partial(sink.write, _groups(settings.n_experts, 0.01 * s))) for s in (1, 2, 3)]
    return {"CPU s": first, "CPU s, mean of 3 more": sum(later) / len(later)}


def linear_in_place(work: Path) -> Steps:
    """Linear merge of the pair, parents resident."""
    return _in_place(work, MergeSettings())


def ties_in_place(work: Path) -> Steps:
    """TIES at density 0.5 of the pair, parents resident."""
    return _in_place(work, MergeSettings("ties", density=0.5))


def ties_in_place_two(work: Path) -> Steps:
    """TIES at density 0.5 of base and two experts, parents resident."""
    return _in_place(work, MergeSettings("ties", density=0.5, n_experts=2))


ROWS: dict[str, Callable[[Path], Steps]] = {
    "copy of one model in memory": memory_copy,
    "linear, files to files": to_disk,
    "linear, in place": linear_in_place,
    "TIES 0.5, in place": ties_in_place,
    "TIES 0.5, in place, two experts": ties_in_place_two,
}


def _peak_gb() -> float:
    """Return this process's own peak; `getrusage` would also count its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1e6


def main() -> None:
    """Run every row in its own process and print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--row", choices=list(ROWS))
    parser.add_argument("--mergekit", help="Python of an environment with mergekit")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.row:
        steps = ROWS[arguments.row](arguments.work)
        print(json.dumps(steps | {"peak GB": _peak_gb()}))
        return
    make_models(arguments.work)
    print("| what | measured |\n|---|---|")
    here = [sys.executable, __file__, "--work", str(arguments.work), "--row"]
    for row in ROWS:
        _print_row(row, [*here, row])
    if arguments.mergekit:
        script = str(Path(__file__).with_name("mergekit_rows.py"))
        for row in ("linear, files to files", "ties, files to files"):
            _print_row(f"mergekit: {row}", [arguments.mergekit, script, str(arguments.work), row])


def _print_row(row: str, command: list[str]) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    steps: Steps = json.loads(result.stdout.splitlines()[-1])
    shown = ", ".join(f"{name} {value:.2f}" for name, value in steps.items())
    print(f"| {row} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
