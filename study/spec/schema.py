"""The spec's JSON Schema, for editors; `python -m mergefront.study.spec.schema` prints it."""

import inspect
import json
import re
import sys
from typing import Any

from pydantic import BaseModel

from .study_spec import StudySpec

_KEY = re.compile(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", flags=re.MULTILINE | re.DOTALL)


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Return what a section's docstring says about each of its keys."""
    _, _, arguments = inspect.cleandoc(model.__doc__ or "").partition("Args:\n")
    return {key: " ".join(text.split()) for key, text in _KEY.findall(arguments)}


def sections(model: type[BaseModel] = StudySpec, path: str = "") -> dict[str, type[BaseModel]]:
    """Return a section and those below it by their places: "", "study", "evaluation.tasks"."""
    found = {path: model}
    for key, field in model.model_fields.items():
        for candidate in _classes(field.annotation):
            if issubclass(candidate, BaseModel):
                found |= sections(candidate, f"{path}.{key}".lstrip("."))
    return found


def _classes(annotation: Any) -> list[type]:
    """Return the classes that an annotation is made of."""
    inside = [c for part in getattr(annotation, "__args__", ()) for c in _classes(part)]
    return [*inside, annotation] if inspect.isclass(annotation) else inside


def json_schema() -> dict[str, Any]:
    """Return the schema of a spec's YAML file, with the text of the docstrings."""
    schema = StudySpec.model_json_schema()
    del schema["properties"]["folder"]
    for model in sections().values():
        part = schema if model is StudySpec else schema["$defs"][model.__name__]
        part["description"] = inspect.cleandoc(model.__doc__ or "").partition("\n\n")[0]
        for name, text in descriptions(model).items():
            field = model.model_fields.get(name)
            key = field.alias or name if field else name
            if key in part["properties"]:
                part["properties"][key]["description"] = text
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n")
