"""`mergefront validate`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..app import Format, FormatOption, SpecArgument, StorageOption, command, print_json, read_spec

if TYPE_CHECKING:
    from ...results.validation import Validation


_TITLES = {
    "front": "hypervolume, front",
    "uniform": "hypervolume, uniform",
    "difference": "hypervolume, difference",
    "survives": "share of the search's gain that survives",
}


@command("validate")
def validate(
    spec: SpecArgument,
    split: Annotated[str, typer.Option("--split", help="validation or test.")] = "validation",
    storage: StorageOption = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Measure the front, the parents and the uniform merges on questions the search never saw.

    Example: mergefront validate examples/demo.yaml --split test
    """
    from ...results.front import front_report
    from ...results.validation import validate as validate_front
    from ...results.validation_study import open_validation, record
    from ...run import make_objective
    from ...seeding import check_same_study
    from ...spec.inputs import StudyInputs
    from ...storage.connection import load_study

    parsed = read_spec(spec, storage)
    study, inputs = load_study(parsed), StudyInputs.of(parsed)
    check_same_study(study, inputs)
    report = front_report(study, parsed)
    written = open_validation(study, split)
    validation = validate_front(
        report,
        study,
        make_objective(inputs, split),
        split,
        lambda label: typer.echo(label, err=True),
    )
    record(validation, written, parsed)
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
