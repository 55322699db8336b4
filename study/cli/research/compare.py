"""`mergefront compare`."""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ....errors import SpecError
from ..app import (
    RESEARCH,
    Format,
    FormatOption,
    SpecArgument,
    StorageOption,
    TrialsOption,
    command,
    print_json,
    read_spec,
)

if TYPE_CHECKING:
    from ...comparison.compare import Clock
    from ...comparison.scores import Search
    from ...comparison.variants import Variant

_DEFAULT = ["mergefront,sip-bmm,ap-bmm,bambo,random,uniform"]
_COLUMNS = (
    ("hypervolume", "hypervolume", 3),
    ("validated_hypervolume", "validated", 3),
    ("igd_plus", "IGD+", 3),
    ("spacing", "spacing", 3),
    ("n_front", "front", 1),
    ("seconds", "wall-clock s", 1),
    ("utilisation", "utilisation", 3),
    ("overall", "to the end", 3),
)


@command("compare", panel=RESEARCH)
def compare(  # noqa: PLR0913 - a command's options
    spec: SpecArgument,
    presets: Annotated[
        list[str],
        typer.Option(
            "--presets",
            metavar="A,B",
            help="Sampler presets, separated by commas. PRESET:SECTION.KEY=VALUE changes a key.",
        ),
    ] = _DEFAULT,
    seeds: Annotated[
        str,
        typer.Option(
            "--seeds",
            metavar="N",
            help="Number of searches per preset, with seeds from 0; or the seeds: 0,3,7 or 7,.",
        ),
    ] = "5",
    trials: TrialsOption = None,
    split: Annotated[
        str,
        typer.Option(
            "--split",
            metavar="NAME",
            help="Fresh questions for the fronts: `validation` or `test`.",
        ),
    ] = "validation",
    simulate: Annotated[
        int | None,
        typer.Option(
            "--simulate",
            min=1,
            metavar="N",
            help="Simulate a clock with this number of workers, from recorded times.",
        ),
    ] = None,
    variation: Annotated[
        float | None,
        typer.Option(
            "--variation",
            min=0,
            metavar="X",
            help="Coefficient of variation of simulated times, instead of the recorded times.",
        ),
    ] = None,
    suggest_seconds: Annotated[
        float,
        typer.Option(
            "--suggest-seconds",
            min=0,
            metavar="SECONDS",
            help="How long a proposal takes on the simulated clock.",
        ),
    ] = 0.0,
    jobs: Annotated[
        int, typer.Option("--jobs", min=1, metavar="N", help="Searches that run at the same time.")
    ] = 1,
    storage: StorageOption = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Compare search methods on one spec, on fresh questions and with equal budgets.

    All have the same budget. Every search is a study of its own in the spec's storage, and is
    resumed if it was interrupted; answers are shared.

    Example: mergefront compare examples/demo.yaml --presets mergefront,ap-bmm --seeds 5
    """
    from ...comparison.compare import check, check_budgets
    from ...comparison.scores import score, to_json
    from ...comparison.variants import Variant

    parsed = read_spec(spec, storage, trials)
    variants = [variant for text in presets for variant in Variant.parse_all(text)]
    numbers = _seeds(seeds)
    clock = _clock(simulate, variation, suggest_seconds)
    check(parsed, variants, split, clock)
    tasks = [(variant, seed) for variant in variants for seed in variant.seeds(numbers)]
    check_budgets(parsed, tasks, clock)
    found = _search_all(parsed, tasks, split, clock, jobs)
    records = to_json(found, score(found))
    if format is Format.JSON:
        print_json(records)
    else:
        _print_table(records, [variant.label for variant in variants])


def _clock(
    simulate: int | None, variation: float | None, suggest_seconds: float
) -> "Clock | None":
    """Return the simulated clock that the options ask for; None for real workers."""
    from ...comparison.compare import Clock

    if simulate is not None:
        return Clock(simulate, variation, suggest_seconds)
    if variation is not None or suggest_seconds:
        raise SpecError(
            "--variation and --suggest-seconds need a simulated clock; add --simulate WORKERS."
        )
    return None


def _seeds(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.removesuffix(",").split(",")]
    except ValueError:
        numbers = []
    if len(numbers) == 1 and "," not in text:
        numbers = list(range(numbers[0]))
    if not numbers or min(numbers) < 0:
        raise SpecError(
            "--seeds must be how many, e.g. 5, or a list of them, e.g. 0,1,2 (one: 7,), but got "
            f"{text!r}."
        )
    return list(dict.fromkeys(numbers))


def _search_all(
    spec: Any, tasks: Sequence[tuple["Variant", int]], split: str, clock: "Clock | None", jobs: int
) -> list["Search"]:
    from ...comparison.compare import content_of, search

    if jobs == 1:
        found = []
        for variant, seed in tasks:
            typer.echo(f"{variant.label}, seed {seed}", err=True)
            found.append(search(spec, variant, seed, split, clock))
        return found
    # Spawned: a forked process would inherit the threads and locks of the libraries.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        started = {
            pool.submit(_search, *content_of(spec), variant, seed, split, clock): (variant, seed)
            for variant, seed in tasks
        }
        for future in as_completed(started):
            variant, seed = started[future]
            future.result()
            typer.echo(f"{variant.label}, seed {seed}: done", err=True)
        return [future.result() for future in started]


def _search(
    content: dict[str, Any],
    folder: Path,
    variant: "Variant",
    seed: int,
    split: str,
    clock: "Clock | None",
) -> "Search":
    import torch

    from ...comparison.compare import search
    from ...spec.study_spec import StudySpec
    from ..app import quiet_libraries

    quiet_libraries()
    torch.set_num_threads(1)
    return search(StudySpec.parse(content, folder), variant, seed, split, clock)


def _print_table(records: Sequence[dict[str, Any]], labels: Sequence[str]) -> None:
    """Print one row a variant: means over seeds with their standard errors, as Markdown."""
    typer.echo("| variant | seeds | " + " | ".join(title for _, title, _ in _COLUMNS) + " |")
    typer.echo("|---|---|" + "---|" * len(_COLUMNS))
    for label in dict.fromkeys(labels):
        rows = [record for record in records if record["variant"] == label]
        cells = [_mean([row[key] for row in rows], digits) for key, _, digits in _COLUMNS]
        typer.echo(f"| {label} | {len(rows)} | " + " | ".join(cells) + " |")


def _mean(values: Sequence[float | None], digits: int) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    if len(known) == 1:
        return f"{known[0]:.{digits}f}"
    return f"{fmean(known):.{digits}f} ± {stdev(known) / sqrt(len(known)):.{digits}f}"
