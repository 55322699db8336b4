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
    "uniform": "hypervolume, parents and uniform merges",
    "curve": "hypervolume, uniform curve (straight between the merges)",
    "difference": "hypervolume, front less uniform merges",
    "gain": "hypervolume, front less uniform curve",
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
    """Measure front, parents, uniform merges and recommended models on questions never asked.

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
    from ...results.front_table import thin_curve
    from ..tables import make_table, print_table

    content = validation.to_json()
    names = validation.report.metric_names
    columns = ["<model", *(c for name in names for c in (name, "~predicted")), "<beyond the curve"]
    rows = [
        (
            [
                model["label"],
                *(cell for name in names for cell in _values(model, name)),
                "yes" if model["distinguishable"] else "",
            ],
            False,
        )
        for model in content["models"]
    ]
    title = (
        f"{content['study']}: {content['n_questions']} questions of the split {content['split']}"
    )
    print_table(make_table(title, columns, rows))
    if content["recommended"]:
        _print_recommended(content)
    if told := content["front_as_predicted"]:
        within = f"{told['within']} of {told['values']} values lie in their predicted"
        typer.echo(f"models of the front: {within} 95 % intervals")
    volumes = content["hypervolume"]
    less = {"difference": "uniform", "gain": "curve"}
    known = {name: volumes["front"] - volumes[other] for name, other in less.items()}
    known |= {**volumes, "survives": content["survives"]}
    for name, (low, high) in content["interval"].items():
        value = known[name]
        shown = "" if value is None else f"{value:.3f}, "
        typer.echo(f"{_TITLES[name]}: {shown}95 % interval [{low:.3f}, {high:.3f}]")
    if thin := thin_curve(validation.report.denoised.trials):
        typer.echo(thin)
    for answer in content["criteria"]:
        share, verdict = answer["share"], "proven" if answer["proven"] else "not proven"
        known_share = (
            "nothing to compare" if share is None else f"{100 * share:.1f} % of resamples"
        )
        typer.echo(f"criterion {answer['criterion']!r}: {verdict} ({known_share})")


def _values(model: dict[str, Any], name: str) -> tuple[str, str]:
    from ...results.front_table import rounded

    kinds = (("values", "standard_errors"), ("denoised", "fresh_deviations"))
    now, before = (rounded(model[one][name], model[other][name]) for one, other in kinds)
    return now, before


def _print_recommended(content: dict[str, Any]) -> None:
    """Print the models that were measured for the first time beside what was predicted."""
    from ...results.front_table import rounded
    from ..tables import make_table, print_table

    names, told = list(content["recommended"][0]["values"]), content["as_predicted"]
    rows: list[tuple[list[str], bool]] = []
    for model in content["recommended"]:
        cells = [model["label"]]
        for name in names:
            cells.append(rounded(model["values"][name], model["standard_errors"][name]))
            cells.append(rounded(model["predicted"][name], model["fresh_deviations"][name]))
        rows.append((cells, False))
    title = (
        f"Recommended, now measured: {told['within']} of {told['values']} values "
        "lie in their predicted 95 % intervals"
    )
    columns = ["<model", *(c for name in names for c in (name, "~predicted"))]
    print_table(make_table(title, columns, rows))
