"""Keep the finished rows of a benchmark in one file, and take them out again.

    python benchmarks/kept.py pack runs/joint benchmarks/joint/rows.jsonl
    python benchmarks/kept.py unpack benchmarks/joint/rows.jsonl runs/joint

A benchmark of hours writes one small JSON file a row, and does not repeat what is there. Packed,
with the commit that each was measured with, rows go beside the benchmark: whoever unpacks them
prints its tables at once, and only missing rows are measured. Rows that are known are replaced;
unpacking leaves files that are there as they are.
"""

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any


def main() -> None:
    """Pack or unpack."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=("pack", "unpack"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    asked = parser.parse_args()
    if asked.way == "pack":
        print(f"{pack(asked.source, asked.target)} rows in {asked.target}")
    else:
        print(f"{unpack(asked.source, asked.target)} rows added to {asked.target}")


def pack(folder: Path, file: Path) -> int:
    """Add a folder's rows to a file, those of this version's code in place of earlier ones."""
    rows = read(file)
    for path in folder.rglob("*.json"):
        name, content = path.relative_to(folder).as_posix(), json.loads(path.read_text())
        if name not in rows or rows[name]["content"] != content:
            rows[name] = {"row": name, "commit": _commit(), "content": content}
    text = "".join(json.dumps(rows[name]) + "\n" for name in sorted(rows))
    file.write_text(text)
    return len(rows)


def unpack(file: Path, folder: Path) -> int:
    """Write a file's rows to a folder, but for those that are there."""
    missing = {name: row for name, row in read(file).items() if not (folder / name).exists()}
    for name, row in missing.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(row["content"]))
    return len(missing)


def read(file: Path) -> dict[str, dict[str, Any]]:
    """Return the rows of a file by name; none where there is no file."""
    lines = file.read_text().splitlines() if file.exists() else []
    return {row["row"]: row for row in map(json.loads, lines)}


def _commit() -> str:
    """Return the version of the code that measures."""
    command = ["git", "rev-parse", "--short=7", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
