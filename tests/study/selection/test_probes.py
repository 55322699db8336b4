"""What a finished study's models are compared on, and where its files lie."""

import json
from pathlib import Path

import yaml

from mergefront.study.selection.measured_merges import _probes
from mergefront.study.spec.base import map_files
from mergefront.study.spec.inputs import load_inputs
from small_study import write_spec

_TEXTS = ["The sum of two and two is four.", "Seven and one makes eight."]


def test_texts_that_are_read_are_no_probes(tmp_path: Path) -> None:
    path = write_spec(tmp_path)
    (tmp_path / "texts.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in _TEXTS)
    )
    content = yaml.safe_load(path.read_text())
    texts = {"search": "texts.jsonl"}
    content["evaluation"]["tasks"].append({"name": "general", "texts": texts})
    path.write_text(yaml.safe_dump(content))
    inputs = load_inputs(path)
    probes = {prompt for prompt, _ in _probes(inputs)}
    lines = (tmp_path / "search.jsonl").read_text().splitlines()
    assert probes == {json.loads(line)["prompt"] for line in lines}


def test_every_file_of_a_task_is_changed_and_names_are_kept() -> None:
    task = {"name": "a", "texts": {"search": "t"}, "path": "p", "lm_eval": "gsm8k", "files": {}}
    map_files(task, lambda path: path if path == "gsm8k" else f"/data/{path}")
    assert task["texts"] == {"search": "/data/t"}
    assert (task["path"], task["lm_eval"], task["name"]) == ("/data/p", "gsm8k", "a")
