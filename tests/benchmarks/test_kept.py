"""Finished rows of benchmarks are kept, each with the commit that measured it."""

import json
from pathlib import Path

import kept


def _write(folder: Path, name: str, content: object) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    runs, file, other = tmp_path / "runs", tmp_path / "rows.jsonl", tmp_path / "other"
    _write(runs, "demo/0.json", {"joint": 3.22})
    _write(runs, "demo/1.json", [1.5, 2.5])
    assert kept.pack(runs, file) == 2
    assert kept.unpack(file, other) == 2
    for name in ("demo/0.json", "demo/1.json"):
        assert json.loads((other / name).read_text()) == json.loads((runs / name).read_text())


def test_unpacking_leaves_what_was_measured_here(tmp_path: Path) -> None:
    runs, file = tmp_path / "runs", tmp_path / "rows.jsonl"
    _write(runs, "0.json", 1)
    kept.pack(runs, file)
    _write(runs, "0.json", 2)
    assert kept.unpack(file, runs) == 0
    assert json.loads((runs / "0.json").read_text()) == 2


def test_a_row_that_did_not_change_keeps_its_commit(tmp_path: Path) -> None:
    runs, file = tmp_path / "runs", tmp_path / "rows.jsonl"
    _write(runs, "same.json", 1)
    _write(runs, "changed.json", 1)
    kept.pack(runs, file)
    rows = [{**row, "commit": "earlier"} for row in kept.read(file).values()]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _write(runs, "changed.json", 2)
    kept.pack(runs, file)
    commits = {name: row["commit"] == "earlier" for name, row in kept.read(file).items()}
    assert commits == {"same.json": True, "changed.json": False}
