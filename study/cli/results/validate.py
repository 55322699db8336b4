"""`mergefront validate`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..app import (
    RESULTS,
    Format,
    FormatOption,
    SpecArgument,
    StorageOption,
    command,
    print_json,
    read_spec,
)

if TYPE_CHECKING:
    from ...results.validation import Validation


_TITLES = {
    "front": "hypervolume, front",
    "uniform": "hypervolume, uniform",
    "difference": "hypervolume, difference",
    "survives": "share of the search's gain that survives",
}


@command("validate", panel=RESULTS)
def validate(
    spec: SpecArgument,
    split: Annotated[
        str,
        typer.Option("--split", metavar="NAME", help="Fresh questions: `validation` or `test`."),
    ] = "validation",
    storage: StorageOption = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Measure the front, the parents and the uniform merges on questions the search never saw.

    Example: mergefront validate examples/demo.yaml --split test
    """
    from ...api import validate as validate_study

    validation = validate_study(
        read_spec(spec, storage), split, progress=lambda label: typer.echo(label, err=True)
    )
    if format is Format.JSON:
        print_json(validation.to_json())
    else:
        _print(validation)


def _print(validation: "Validation") -> None:
    content = validation.to_json()
    typer.echo(f"{content['n_questions']} questions of the split {content['split']!r}")
    for model in content["models"]:
        values = "  ".join(_value(model, name) for name in model["values"])
        beyond = "  beyond the uniform curve" if model["distinguishable"] else ""
        typer.echo(f"{model['label']:<14} {values}{beyond}")
    for name, (low, high) in content["interval"].items():
        value = {**content["hypervolume"], "survives": content["survives"]}.get(name)
        shown = "" if value is None else f" {value:.3f},"
        typer.echo(f"{_TITLES[name]}:{shown} 95 % interval [{low:.3f}, {high:.3f}]")


def _value(model: dict[str, Any], name: str) -> str:
    value, error, before = (model[key][name] for key in ("values", "standard_errors", "search"))
    return f"{name} {value:.3f} ± {error:.3f} (search {before:.3f})"
