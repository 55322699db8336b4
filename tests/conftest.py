"""Fixtures shared by the whole suite: the demo pair, small specs, a small finished study."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mergefront.objectives.demo import BASE, EXPERT, QUESTIONS

pytest.register_assert_rewrite("optuna.testing.pytest_samplers")

SpecWriter = Callable[..., Path]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the cache of hashes out of the home directory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("MERGEFRONT_STORAGE", raising=False)


def _questions(split: str, n: int) -> str:
    lines = (QUESTIONS / f"{split}.jsonl").read_text().splitlines()[:n]
    return "".join(line + "\n" for line in lines)


def write_spec(folder: Path, n_questions: int = 24, **changes: dict[str, Any]) -> Path:
    """Write a small spec of the demo pair, and its questions, into `folder`.

    Args:
        folder: Also holds the SQLite file and the study's state.
        n_questions: In each split.
        changes: Section -> keys to set.
    """
    for split in ("search", "validation"):
        (folder / f"{split}.jsonl").write_text(_questions(split, n_questions))
    content: dict[str, Any] = {
        "study": {"name": "small", "storage": f"sqlite:///{folder}/study.db", "trials": 10},
        "models": {"base": str(BASE), "experts": [str(EXPERT)], "dtype": "float32"},
        "merge": {"embeddings": "search", "head": "search"},
        "objectives": [{"metric": "accuracy"}, {"metric": "tokens"}],
        "evaluation": {
            "max_new_tokens": 48,
            "batch_size": 64,
            "tasks": [
                {
                    "name": "demo",
                    "files": {"search": "search.jsonl", "validation": "validation.jsonl"},
                }
            ],
        },
    }
    for section, keys in changes.items():
        content[section] = {**content.get(section, {}), **keys}
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def spec_path(tmp_path: Path) -> Path:
    """A small valid spec."""
    return write_spec(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The spec of a finished small study: 10 trials, two of them proposed by the sampler."""
    from mergefront.study.inputs import load_inputs
    from mergefront.study.run import run

    path = write_spec(tmp_path_factory.mktemp("finished"))
    run(load_inputs(path))
    return path


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]
