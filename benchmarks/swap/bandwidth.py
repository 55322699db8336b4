"""How fast a merge moves memory, as a share of what a plain copy moves on the same device.

    python benchmarks/swap/bandwidth.py

One tensor of 64 million elements in bfloat16: a merge reads two parents and writes one model,
a copy reads and writes one. Both alternate in one run; on a CPU one thread is timed by the
processor's own clock, so that other processes do not count.
"""

import time
from collections.abc import Callable
from statistics import fmean, stdev

import torch

from mergefront.objectives.merging import MergeSettings, ParentTensors, Resident, chunk_for

_ELEMENTS, _TIMES = 1 << 26, 15


def main() -> None:
    """Print gigabytes a second of both, and the share."""
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = torch.Generator().manual_seed(0)
    base, expert = (
        torch.randn(_ELEMENTS, generator=generator).bfloat16().to(device) for _ in range(2)
    )
    out = torch.empty_like(base)
    merger = MergeSettings().merger(chunk=chunk_for(device))
    inputs = ParentTensors("weight", Resident(base), [Resident(expert)])
    merged, copied = [], []
    for _ in range(_TIMES):
        merged.append(_speed(lambda: merger.merge(inputs, (0.3,), out), 3, device))
        copied.append(_speed(lambda: out.copy_(base), 2, device))
    shares = [m / c for m, c in zip(merged, copied, strict=True)]
    for name, numbers in (("merge, GB/s", merged), ("copy, GB/s", copied), ("share", shares)):
        print(f"{name}: {fmean(numbers):.3g} ± {stdev(numbers) / _TIMES**0.5:.2g}")


def _speed(action: Callable[[], object], passes: int, device: torch.device) -> float:
    """Return gigabytes a second for so many passes over the tensor."""
    on_gpu = device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    start = clock()
    action()
    if on_gpu:
        torch.cuda.synchronize()
    return passes * 2 * _ELEMENTS / 1e9 / (clock() - start)


if __name__ == "__main__":
    main()
