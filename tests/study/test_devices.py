"""One GPU a worker."""

from contextlib import ExitStack
from pathlib import Path

from mergefront.study.devices import claim_device


def test_workers_of_one_machine_take_different_gpus(tmp_path: Path) -> None:
    with ExitStack() as stack:
        taken = [stack.enter_context(claim_device(tmp_path, 3)) for _ in range(4)]
    assert taken == ["cuda:0", "cuda:1", "cuda:2", "cuda:0"]  # the fourth has to share
    with claim_device(tmp_path, 3) as device:
        assert device == "cuda:0"


def test_with_one_gpu_or_none_there_is_nothing_to_choose(tmp_path: Path) -> None:
    for n_devices in (0, 1):
        with claim_device(tmp_path, n_devices) as device:
            assert device is None
    assert list(tmp_path.iterdir()) == []
