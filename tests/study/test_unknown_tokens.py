"""Tokens that the embeddings have no row for are found before anything is created."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoTokenizer

from command import invoke
from mergefront.examples.demo import BASE, EXPERT
from small_study import read_json_lines, write_spec


def _with_token(model: Path, folder: Path) -> str:
    """Copy a model with a token more than it has rows: as a tokenizer of its own would have."""
    shutil.copytree(model, folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    base, expert = (_with_token(model, tmp_path / model.name) for model in (BASE, EXPERT))
    models = {"base": base, "experts": [expert], "dtype": "float32"}
    return write_spec(tmp_path, models=models)


def test_a_token_that_no_question_has_needs_no_row(spec: Path) -> None:
    assert invoke("run", spec, "--dry-run").exit_code == 0


def test_a_prompt_with_a_token_without_a_row_is_refused(spec: Path) -> None:
    path = spec.parent / "search.jsonl"
    first, second, *rest = read_json_lines(path)
    second["prompt"] += "<new>"
    path.write_text("".join(json.dumps(row) + "\n" for row in (first, second, *rest)))
    for options in (["--dry-run"], []):
        done = invoke("run", spec, *options)
        assert done.exit_code == 1
        assert "row of the embeddings, but question 'demo/" in done.stderr
        assert "has '<new>', number 48, and " in done.stderr
        assert not (spec.parent / "study.db").exists()


def test_a_text_with_a_token_without_a_row_is_refused(spec: Path) -> None:
    (spec.parent / "texts.txt").write_text("1+1=2\n\n2+2=<new>\n")
    content = yaml.safe_load(spec.read_text())
    content["evaluation"]["tasks"].append({"name": "texts", "texts": "texts.txt"})
    content["objectives"].append({"metric": "perplexity"})
    spec.write_text(yaml.safe_dump(content))
    done = invoke("run", spec, "--dry-run")
    assert done.exit_code == 1 and "question 'texts/" in done.stderr
