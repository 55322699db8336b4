"""GPUs of a worker's own, where workers of one machine see the same ones."""

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)

VISIBLE = "CUDA_VISIBLE_DEVICES"
# The same in all containers of a machine, another one on every machine and after every boot.
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@contextmanager
def claim_devices(
    directory: Path, n: int = 1, n_visible: int | None = None, also: Path | None = None
) -> Iterator[tuple[int, ...]]:
    """Hold GPUs that no other process of this machine holds, whatever its study.

    Container engines give all replicas of a service the same GPUs.

    Args:
        directory: Holds the locks; containers of this machine may share it.
        n: GPUs wanted.
        n_visible: GPUs there are. Defaults to None: ask PyTorch, which starts no context for it.
        also: A second folder, whose locks are taken too. Defaults to None: one is enough.

    Yields:
        Indices among the visible ones; none where there is nothing to choose.
    """
    n_visible = torch.cuda.device_count() if n_visible is None else n_visible
    if n_visible <= n:
        yield ()
        return
    folders = [directory] if also is None else [directory, also]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        taken = tuple(_take(folders, n, names(n_visible), stack))
        if len(taken) < n:
            stack.close()
            logger.warning("fewer than %d of %d GPUs are free; sharing the first", n, n_visible)
            taken = tuple(range(n))
        yield taken


def names(n_visible: int) -> list[str]:
    """Return the machine's names of the visible GPUs."""
    visible = os.environ.get(VISIBLE, "")
    return visible.split(",") if visible else [str(index) for index in range(n_visible)]


def machines_folder() -> Path:
    """Return the folder for the locks of all processes of this machine and user."""
    return Path(tempfile.gettempdir()) / f"mergefront-gpus-{os.getuid()}"


def _take(folders: Sequence[Path], n: int, devices: list[str], stack: ExitStack) -> list[int]:
    machine = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else "machine"
    taken: list[int] = []
    for index, name in enumerate(devices):
        if len(taken) == n:
            break
        with ExitStack() as one:
            try:
                for folder in folders:
                    lock = FileLock(folder / f"gpu-{machine}-{name}.lock")
                    lock.acquire(timeout=0)
                    one.callback(lock.release)
            except Timeout:
                continue
            stack.push(one.pop_all())
        taken.append(index)
    return taken
