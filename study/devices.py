"""One GPU a worker, where workers of one machine see the same GPUs."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)

# The same in all containers of a machine, another one on every machine and after every boot.
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@contextmanager
def claim_device(directory: Path, n_devices: int | None = None) -> Iterator[str | None]:
    """Hold a GPU that no other worker of this machine holds.

    Container engines give all replicas of a service the same GPUs.

    Args:
        directory: Shared by the workers; holds the locks.
        n_devices: Visible GPUs. Defaults to None: ask PyTorch.

    Yields:
        As PyTorch names it; None where there are fewer than two.
    """
    n_devices = torch.cuda.device_count() if n_devices is None else n_devices
    if n_devices < 2:
        yield None
        return
    directory.mkdir(parents=True, exist_ok=True)
    machine = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else "machine"
    for index in range(n_devices):
        lock = FileLock(directory / f"gpu-{machine}-{index}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        try:
            yield f"cuda:{index}"
        finally:
            lock.release()
        return
    logger.warning("all %d GPUs have a worker; sharing the first", n_devices)
    yield "cuda:0"
