"""`mergefront pick`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from ....errors import SpecError, StudyError
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
from ..next_steps import say_next

if TYPE_CHECKING:
    from optuna import Study

    from ....samplers import Recommendation
    from ...results.choice import Choice, Chosen
    from ...spec.study_spec import StudySpec

_NOTHING: list[str] = []


@command("pick", panel=RESULTS)
def pick(  # noqa: PLR0913 - a command's options
    spec: SpecArgument,
    tokens: Annotated[
        float | None,
        typer.Option("--tokens", metavar="N", help="At most this many tokens per answer."),
    ] = None,
    accuracy: Annotated[
        float | None,
        typer.Option("--accuracy", metavar="SHARE", help="At least this share of right answers."),
    ] = None,
    limit: Annotated[
        list[str],
        typer.Option(
            "--limit",
            metavar="METRIC=X",
            help="Worst acceptable value of any objective. May be given several times.",
        ),
    ] = _NOTHING,
    weight: Annotated[
        list[str],
        typer.Option(
            "--weight",
            metavar="METRIC=W",
            help="How much an objective without a limit counts; 1 by default. May be given "
            "several times.",
        ),
    ] = _NOTHING,
    recommend: Annotated[
        bool,
        typer.Option(
            "--recommend",
            metavar="",
            help="If a model that nobody measured is predicted to be better, measure it first: "
            "one more trial of the study.",
        ),
    ] = False,
    storage: StorageOption = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Choose one model of the front by what you want, and say which others are as good.

    Example: mergefront pick examples/demo.yaml --tokens 12
    """
    from ...results.choice import Wish, choose
    from ...results.front import front_report
    from ...storage.connection import load_study

    parsed = read_spec(spec, storage)
    named = {"tokens": tokens, "accuracy": accuracy}
    limits = {name: value for name, value in named.items() if value is not None}
    wish = Wish(_all_limits(limits, limit), _numbers("--weight", weight))
    study = load_study(parsed)
    choice = choose(front_report(study, parsed), wish)
    if recommend and choice.unmeasured is not None:
        _measure(study, parsed, choice.unmeasured)
        choice = choose(front_report(study, parsed), wish)
    if format is Format.JSON:
        print_json(choice.to_json())
        return
    _print(choice)
    number = choice.best.trial.number
    steps = [(f"export --trial {number} --out merged", "save this model")]
    if (better := choice.unmeasured) is not None:
        weights = ",".join(f"{weight:.4g}" for weight in better.preference)
        steps.append((f"export --preference {weights} --out merged", "save the predicted one"))
    say_next(spec, storage, steps)


def _measure(study: "Study", spec: "StudySpec", better: "Recommendation") -> None:
    """Measure a recommended model as one more trial of its study, whatever its budget.

    Raises:
        StudyError: If it could not be measured.
    """
    from ....samplers import MEASURED
    from ...results.recommendations import PHASE, as_trial, label_of
    from ...storage.connection import study_lock
    from ...workers.one_claim import measured_already, queue_once, withdraw
    from ...workers.termination import undisturbed

    trials = study.get_trials(deepcopy=False)
    candidate = as_trial(better, trials)
    candidate.user_attrs = {"phase": PHASE, "label": label_of(better)}  # no prediction any more
    if (known := measured_already(candidate, trials)) is not None:
        typer.echo(f"Trial {known.number} is this model: it was measured already.", err=True)
        return
    lock = study_lock(spec)
    with _worker_of(study, spec) as work:
        number = queue_once(study, lock, candidate)
        try:
            work(number)
        finally:
            with undisturbed():
                newest = withdraw(study, lock, number)
    if newest.state not in MEASURED:
        reason = newest.user_attrs.get("failure", "nobody has finished it")
        raise StudyError(
            f"The recommended model was not measured: {reason} (trial {newest.number}). Mend "
            "that, and give the command again."
        )


@contextmanager
def _worker_of(study: "Study", spec: "StudySpec") -> Iterator[Callable[[int], None]]:
    """Load a study's models; yield what measures the trial of a number, in sight of the user."""
    from ...opening import open_inputs
    from ...run import devices_of, make_objective, make_sampler
    from ...seeding import BUDGET, check_same_study
    from ...workers.one_claim import OneClaim
    from ...workers.room import check_room
    from ...workers.worker import Worker
    from ..progress import ConsoleReporter

    asked = spec.with_overrides(trials=study.user_attrs.get(BUDGET))  # as `status` counts
    check_room(asked)
    inputs = open_inputs(asked)
    check_same_study(study, inputs)  # before anything is queued
    study.sampler = make_sampler(inputs, study)
    with devices_of(asked) as devices, ConsoleReporter(asked) as reporter:
        objective = make_objective(inputs, devices=devices)
        yield lambda number: Worker(
            study, inputs, objective, reporter, make_claims=partial(OneClaim, number=number)
        ).run()


def _all_limits(named: dict[str, float], texts: list[str]) -> dict[str, float]:
    """Return the limits of the options `--tokens`, `--accuracy` and `--limit`."""
    limits = _numbers("--limit", texts)
    for name in named.keys() & limits.keys():
        raise SpecError(f"--{name} and --limit {name}=X limit the same objective; give one.")
    return {**named, **limits}


def _numbers(option: str, texts: list[str]) -> dict[str, float]:
    """Read `METRIC=NUMBER` texts."""
    found = {}
    for text in texts:
        name, _, number = text.partition("=")
        if name in found:
            raise SpecError(f"{option} names {name!r} twice; give it once.")
        try:
            found[name] = float(number)
        except ValueError:
            raise SpecError(
                f"{option} must be METRIC=NUMBER, e.g. {option} tokens=20, but got {text!r}."
            ) from None
    return found


def _print(choice: "Choice") -> None:
    from ....objectives.merging.settings import with_arm
    from ...results.front_table import rounded
    from ..tables import make_table, print_table

    names = choice.report.metric_names
    columns = ["trial", "<role", *names, "utility", "~95 % interval"]
    if choice.wish.limits:
        columns.append("keeps the limits")
    rows = [_row(choice, chosen) for chosen in (choice.best, *choice.tied)]
    typer.echo(f"{choice.report.study}: trial {choice.best.trial.number} is {choice.why()}")
    print_table(make_table(None, columns, [(r, i == 0) for i, r in enumerate(rows)]))
    if choice.tied:
        tied = ", ".join(str(chosen.trial.number) for chosen in choice.tied)
        typer.echo(f"Not to be told from it by what was measured: {tied}.")
    if choice.unmeasured is not None:
        told = zip(
            names, choice.unmeasured.values, choice.unmeasured.fresh_deviations, strict=True
        )
        shown = ", ".join(f"{name} {rounded(value, error)}" for name, value, error in told)
        arm = with_arm("", choice.unmeasured.params)
        which = f"a mixture, {arm}," if arm else "a mixture"
        typer.echo(
            f"Predicted to be better, not measured: {which} with {shown}. Its errors are those on "
            "other questions, larger than those on the study's, which the table shows."
        )


def _row(choice: "Choice", chosen: "Chosen") -> list[str]:
    from ...results.front_table import role, rounded

    attributes = chosen.trial.user_attrs
    believed = zip(attributes["denoised"], attributes["denoised_errors"], strict=True)
    low, high = chosen.interval
    cells = [str(chosen.trial.number), role(chosen.trial), *(rounded(*pair) for pair in believed)]
    cells += [f"{chosen.utility:.3f}", f"[{low:.3f}, {high:.3f}]"]
    return [*cells, f"{100 * chosen.keeps:.0f} %"] if choice.wish.limits else cells
