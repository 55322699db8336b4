"""Opening storages, and the cache of hashes."""

import json
import os
import shutil
from pathlib import Path

import pytest

from mergefront.errors import StudyError
from mergefront.objectives.demo import BASE
from mergefront.objectives.merging import Checkpoint
from mergefront.study import StudySpec
from mergefront.study.hashing import cached_hash
from mergefront.study.storage import load_study, open_storage, sqlite_path, state_dir
from small_study import write_spec


def test_state_lies_beside_an_sqlite_file(tmp_path: Path) -> None:
    spec = StudySpec.from_yaml(write_spec(tmp_path))
    assert state_dir(spec) == tmp_path / "small.state"
    elsewhere = spec.with_overrides(storage="postgresql+psycopg2://user@host/db")
    assert state_dir(elsewhere) == Path("runs") / "small.state"


def test_only_sqlite_has_a_file() -> None:
    assert sqlite_path("sqlite:///runs/a.db") == Path("runs/a.db")
    assert sqlite_path("sqlite:////tmp/a.db") == Path("/tmp/a.db")
    assert sqlite_path("postgresql+psycopg2://user@host/db") is None


def test_looking_for_a_study_creates_nothing(tmp_path: Path) -> None:
    spec = StudySpec.from_yaml(write_spec(tmp_path))
    with pytest.raises(StudyError, match=r"no study 'small' in .*Start it with `mergefront run`"):
        load_study(spec)
    assert not (tmp_path / "study.db").exists()


def test_a_storage_that_cannot_be_opened_hides_the_password(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="needs a directory"):
        open_storage(f"sqlite:///{tmp_path}/file/study.db")
    with pytest.raises(StudyError) as caught:
        open_storage("postgresql+psycopg2://user:secret@127.0.0.1:1/db")
    assert "secret" not in str(caught.value)
    assert "mergefront[postgres]" in str(caught.value) or "cannot be opened" in str(caught.value)


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(BASE, tmp_path / "model")
    return tmp_path / "model"


def test_a_checkpoint_is_hashed_once(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Checkpoint(copied).weights_hash()
    assert cached_hash(Checkpoint(copied)) == expected
    monkeypatch.setattr(Checkpoint, "weights_hash", lambda self: pytest.fail("hashed again"))
    assert cached_hash(Checkpoint(copied)) == expected


def test_a_changed_file_is_hashed_again(copied: Path) -> None:
    before = cached_hash(Checkpoint(copied))
    weights = copied / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    os.utime(weights, ns=(1, 1))  # a clock that stands still must not hide the change of time
    assert cached_hash(Checkpoint(copied)) != before


@pytest.mark.parametrize("content", ["", "[", json.dumps([1])])
def test_a_broken_cache_costs_time_and_nothing_else(
    copied: Path, tmp_path: Path, content: str
) -> None:
    cache = tmp_path / "cache" / "mergefront" / "hashes.json"
    cache.parent.mkdir(parents=True)
    cache.write_text(content)
    assert cached_hash(Checkpoint(copied)) == Checkpoint(copied).weights_hash()


def test_a_cache_that_cannot_be_written_is_no_error(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "no-directory").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no-directory"))
    assert cached_hash(Checkpoint(copied)).startswith("sha256:")
