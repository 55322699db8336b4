"""`mergefront select`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ....errors import SpecError
from ..app import RESEARCH, Format, FormatOption, command, print_json

if TYPE_CHECKING:
    from ....samplers.simmerge import Example, Ranked
    from ...selection.select import Selection

_TrainOption = Annotated[
    list[str],
    typer.Option(
        "--train",
        metavar="SOURCE",
        help="Another source to learn from: a storage (URL), one study (its spec, or URL#NAME), "
        "or a file of measured merges (.jsonl). May be given several times.",
    ),
]
_NOTHING: list[str] = []
_StorageOption = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="URL",
        envvar="MERGEFRONT_STORAGE",
        help="Database with finished studies to learn from.",
    ),
]


@command("select", panel=RESEARCH)
def select(  # noqa: PLR0913 - a command's options
    catalogue: Annotated[
        Path,
        typer.Argument(metavar="CATALOG", help="YAML file that lists the models to choose from."),
    ],
    probes: Annotated[
        Path | None,
        typer.Option(
            "--probes",
            metavar="FILE",
            help="Prompts without answers, one JSON object per line; models are compared on them.",
        ),
    ] = None,
    storage: _StorageOption = None,
    train: _TrainOption = _NOTHING,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Write a study's spec for each choice here."),
    ] = None,
    top: Annotated[
        int, typer.Option("--top", min=1, metavar="N", help="Number of choices that are shown.")
    ] = 10,
    format: FormatOption = Format.TABLE,
) -> None:
    """Rank which models to merge, by which operator and in which order (SimMerge).

    Example: mergefront select catalogue.yaml --probes probes.jsonl --storage sqlite:///runs/all.db
    """
    from ...results.beside import check_writable
    from ...selection.catalogue import read_catalogue
    from ...selection.select import read_probes, write_specs
    from ...selection.select import select as rank

    if out is not None:
        check_writable(out)
    prompts = [] if probes is None else read_probes(probes)
    examples = _examples([*([storage] if storage else []), *train])
    found = read_catalogue(catalogue)
    for name, reason in found.refused.items():
        typer.echo(f"refused {name}: {reason}", err=True)
    selection = rank(found, prompts, examples)
    written = [] if out is None else write_specs(selection, out, top)
    shown = selection.ranked[:top]
    if format is Format.JSON:
        print_json(_as_json(selection, shown, written))
        return
    _print_quality(selection)
    if not found.scores:
        typer.echo(
            "Ranked by gain over the parents' mean; with a `score` of every model in the "
            "catalogue, by the score to expect.",
            err=True,
        )
    _print_table(shown, bool(found.scores))
    for path in written:
        typer.echo(f"wrote {path}", err=True)


def _examples(sources: list[str]) -> "list[Example]":
    from ...selection.measured_merges import read_source

    if not sources:
        raise SpecError(
            "There is nothing to learn from: name the storage of finished studies by `--storage`, "
            "or other sources by `--train`."
        )
    examples = []
    for source in sources:
        found, skipped = read_source(source)
        examples += found
        for name, reason in skipped.items():
            typer.echo(f"skipped study {name}: {reason}", err=True)
    return examples


def _print_quality(selection: "Selection") -> None:
    quality, kind = selection.predictor.quality, selection.predictor.kind
    shown = ", ".join(f"{name} {q.rmse:.3f}" for name, q in quality.items())
    typer.echo(
        f"Learned from {selection.n_examples} measured merges. Error of the gain on models left "
        f"out: {shown}. Used: {kind}.",
        err=True,
    )


def _print_table(shown: "list[Ranked]", has_scores: bool) -> None:
    from ..tables import Row, make_table, print_table

    columns = ["rank", "score" if has_scores else "gain", "90 % interval", "<models by operators"]
    rows: list[Row] = []
    for rank, one in enumerate(shown, start=1):
        level = one.score - one.prediction.gain
        low, high = (level + bound for bound in one.prediction.interval())
        numbers = [f"{one.score:.3f}", f"[{low:.3f}, {high:.3f}]"]
        if not one.prediction.is_known:
            numbers = ["-", "unlike all known"]
        names = " + ".join(one.chain.models)
        told = f"{names} by {', '.join(one.chain.operators)}"
        rows.append(([str(rank), *numbers, told], False))
    print_table(make_table(None, columns, rows))


def _as_json(selection: "Selection", shown: "list[Ranked]", written: list[Path]) -> dict[str, Any]:
    rows = []
    for rank, one in enumerate(shown):
        known = one.prediction.is_known
        rows.append(
            {
                "models": list(one.chain.models),
                "operators": list(one.chain.operators),
                "known": known,
                "gain": one.prediction.gain if known else None,
                "standard_deviation": one.prediction.standard_deviation if known else None,
                "interval": list(one.prediction.interval()) if known else None,
                "score": one.score if known and selection.catalogue.scores else None,
                "spec": str(written[rank]) if written else None,
            }
        )
    return {
        "examples": selection.n_examples,
        "regressor": selection.predictor.kind,
        "rmse": {name: q.rmse for name, q in selection.predictor.quality.items()},
        "refused": dict(selection.catalogue.refused),
        "choices": rows,
    }
