"""GPUs of a worker's own."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from mergefront.study.workers.devices import claim_devices


def test_workers_of_one_machine_take_different_gpus(tmp_path: Path) -> None:
    with ExitStack() as stack:
        taken = [stack.enter_context(claim_devices(tmp_path, 1, 3)) for _ in range(4)]
    assert taken == [(0,), (1,), (2,), (0,)]  # the fourth has to share
    with claim_devices(tmp_path, 1, 3) as devices:
        assert devices == (0,)


def test_groups_of_gpus_do_not_overlap(tmp_path: Path) -> None:
    with ExitStack() as stack:
        taken = [stack.enter_context(claim_devices(tmp_path, 2, 5)) for _ in range(3)]
        assert taken == [(0, 1), (2, 3), (0, 1)]  # one is left, two are wanted
        with claim_devices(tmp_path, 1, 5) as devices:
            assert devices == (4,)


def test_gpus_are_told_apart_by_the_machines_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    with claim_devices(tmp_path, 1, 2) as first:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6")
        with claim_devices(tmp_path, 1, 2) as second:
            assert (first, second) == ((0,), (0,))
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
            with claim_devices(tmp_path, 1, 2) as third:
                assert third == (1,)


def test_where_there_is_nothing_to_choose_nothing_is_written(tmp_path: Path) -> None:
    for wanted, visible in ((1, 0), (1, 1), (2, 2)):
        with claim_devices(tmp_path, wanted, visible) as devices:
            assert devices == ()
    assert list(tmp_path.iterdir()) == []


def test_two_studies_of_one_machine_do_not_share_a_gpu(tmp_path: Path) -> None:
    machine = tmp_path / "machine"
    with claim_devices(tmp_path / "one", 1, 2, also=machine) as first:
        with claim_devices(tmp_path / "two", 1, 2, also=machine) as second:
            assert (first, second) == ((0,), (1,))
        # Containers that share one folder, but not the machine's.
        with claim_devices(tmp_path / "one", 1, 2, also=tmp_path / "other") as third:
            assert third == (1,)
