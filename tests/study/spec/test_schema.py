"""The JSON Schema that editors read is that of the models, and accepts what the models accept."""

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from mergefront.study import StudySpec
from mergefront.study.spec.schema import descriptions, json_schema, sections

REPOSITORY = Path(__file__).parents[3]
EXAMPLES = sorted((REPOSITORY / "examples").rglob("*.yaml"))


def test_the_shipped_schema_is_current() -> None:
    shipped = json.loads((REPOSITORY / "examples" / "spec.schema.json").read_text())
    assert shipped == json_schema(), "run `make schema`"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_name_the_schema_and_keep_to_it(path: Path) -> None:
    text = path.read_text()
    schema = os.path.relpath(REPOSITORY / "examples" / "spec.schema.json", path.parent)
    assert text.startswith(f"# yaml-language-server: $schema={schema}\n")
    jsonschema.validate(yaml.safe_load(text), json_schema())


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("study", "trails", 8),
        ("study", "trials", "many"),
        ("models", "experts", []),
        ("merge", "granularity", "layers"),
    ],
)
def test_mistakes_are_found(section: str, key: str, value: Any) -> None:
    content = yaml.safe_load((REPOSITORY / "examples" / "demo.yaml").read_text())
    content[section][key] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, json_schema())


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("merge", "operator", ["linear", {"name": "ties", "density": 0.5}]),
        ("study", "stop", {"gain": "0.5 %"}),
        ("study", "stop", {"gain": 0.005}),
    ],
)
def test_what_the_spec_takes_the_schema_takes(section: str, key: str, value: Any) -> None:
    content = yaml.safe_load((REPOSITORY / "examples" / "demo.yaml").read_text())
    content[section][key] = value
    StudySpec.parse(content, REPOSITORY / "examples")
    jsonschema.validate(content, json_schema())


def test_every_key_is_described() -> None:
    silent = [
        f"{place}.{key}"
        for place, model in sections().items()
        for key in model.model_fields
        if key not in descriptions(model)
    ]
    assert silent == [], "add it to the section's docstring"
