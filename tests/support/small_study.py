"""Small specs of the demo pair."""

import json
from pathlib import Path
from typing import Any

import yaml

from mergefront.examples.demo import BASE, EXPERT, QUESTIONS


def _questions(split: str, n: int) -> str:
    lines = (QUESTIONS / f"{split}.jsonl").read_text().splitlines()[:n]
    return "".join(line + "\n" for line in lines)


def write_spec(folder: Path, n_questions: int = 24, **changes: Any) -> Path:
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


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]
