"""The notebook does what it says, cell by cell, with a small budget."""

import json
from pathlib import Path
from typing import Any

import pytest

TOUR = Path(__file__).parents[2] / "examples" / "tour.ipynb"


def _cells() -> list[dict[str, Any]]:
    content = json.loads(TOUR.read_text(encoding="utf-8"))
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    return list(content["cells"])


def test_the_tour_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOUR_TRIALS", "9")
    names: dict[str, Any] = {}
    for cell in _cells():
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    assert len(names["study"].trials) == 9
    assert names["validation"].hypervolume["front"] > 0
    for folder in ("merged", "half"):
        assert (tmp_path / "runs" / "tour" / folder / "model.safetensors").exists()


def test_the_tour_is_committed_without_outputs() -> None:
    cells = _cells()
    assert len({cell["id"] for cell in cells}) == len(cells)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
