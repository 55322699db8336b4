"""The JSON Schema that editors read is that of the models, and accepts what the models accept."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from mergefront.study.spec.schema import descriptions, json_schema, sections

REPOSITORY = Path(__file__).parents[3]
EXAMPLES = sorted((REPOSITORY / "examples").glob("*.yaml"))


def test_the_shipped_schema_is_current() -> None:
    shipped = json.loads((REPOSITORY / "examples" / "spec.schema.json").read_text())
    assert shipped == json_schema(), "run `make schema`"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_name_the_schema_and_keep_to_it(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# yaml-language-server: $schema=spec.schema.json\n")
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


def test_every_key_is_described() -> None:
    silent = [
        f"{place}.{key}"
        for place, model in sections().items()
        for key in model.model_fields
        if key not in descriptions(model)
    ]
    assert silent == [], "add it to the section's docstring"
