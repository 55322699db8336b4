"""`mergefront reproduce`."""

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ....errors import SpecError, StudyError
from ..app import MODELS, command, read_spec

if TYPE_CHECKING:
    from ...spec.inputs import Resolve, StudyInputs
    from ...spec.study_spec import StudySpec

# Standard errors of a difference beyond which two measurements disagree.
_FAR = 3.0
_NOTHING: list[str] = []


@command("reproduce", panel=MODELS)
def reproduce(
    manifest: Annotated[
        Path,
        typer.Argument(
            metavar="MANIFEST", help="The manifest.json of a published model, or its folder."
        ),
    ],
    spec: Annotated[
        Path | None,
        typer.Option(
            "--spec",
            metavar="FILE",
            help="A spec that names the parents on this machine, instead of the manifest's own.",
        ),
    ] = None,
    model: Annotated[
        list[str],
        typer.Option(
            "--model",
            metavar="NAME=DIR",
            help="Where a parent of the manifest lies. Defaults to the hub, or to a folder of the "
            "same weights that was used here before. May be given several times.",
        ),
    ] = _NOTHING,
    questions: Annotated[
        Path | None,
        typer.Option(
            "--questions",
            metavar="DIR",
            help="With --measure: where the files of questions lie. Defaults to the manifest's "
            "folder.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Keep the model that was made, in a new folder."
        ),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure", metavar="", help="Also measure it again, on the same questions."
        ),
    ] = False,
) -> None:
    """Make a published model again, and check that the weights are the same, byte by byte.

    Example: mergefront reproduce published/manifest.json --measure
    """
    from ....objectives.checkpoints import resolve_model
    from ...results.sharing.manifest import read_manifest
    from ...results.sharing.portable import here, parent_finder

    _check_options(spec, model, questions, measure)
    content = read_manifest(manifest)
    find: Resolve = resolve_model
    if spec:
        parsed = read_spec(spec, None)
    else:
        folder = manifest if manifest.is_dir() else manifest.parent
        parsed = here(content, folder, questions)
        find = parent_finder(content, _folders(model))
    inputs = _inputs(content, parsed, find, measure)
    typer.echo(f"same bytes: {', '.join(_make(inputs, content, out))}")
    if measure:
        _measure(inputs, content)


def _check_options(
    spec: Path | None, model: list[str], questions: Path | None, measure: bool
) -> None:
    """Refuse options that would do nothing.

    Raises:
        StudyError: With what to leave out or add.
    """
    if spec and (model or questions):
        raise StudyError(
            "--spec names parents and questions itself: leave out --model, --questions."
        )
    if questions and not measure:
        raise StudyError("--questions is for --measure: add it, or leave out --questions.")


def _inputs(
    content: dict[str, Any], spec: "StudySpec", find: "Resolve", measure: bool
) -> "StudyInputs":
    """Return what the model was made of, and with `measure` what it was asked.

    Raises:
        SpecError: If it is not the manifest's.
    """
    from ...opening import with_blocks
    from ...results.sharing.manifest import check_same
    from ...spec.inputs import StudyInputs

    if spec.merge.granularity == "learned-blocks":  # as measured there
        spec = with_blocks(spec, _blocks(content))
    inputs = StudyInputs.without_tasks(spec, find)
    check_same(content, inputs, ("models.", "merge."))
    if measure:
        inputs = StudyInputs.of(spec, find)
        check_same(content, inputs, ("evaluation.tasks",))
    return inputs


def _make(inputs: "StudyInputs", content: dict[str, Any], out: Path | None) -> list[str]:
    """Make the model, in a folder that goes away or in `out`; return its files of weights.

    Raises:
        StudyError: If their bytes are not the manifest's.
    """
    from tempfile import TemporaryDirectory

    from ....objectives.merging import weight_file
    from ...results.export import merge_weights
    from ...results.sharing.manifest import weights_of

    with TemporaryDirectory(prefix="mergefront-reproduce-") as temporary:
        made = out or Path(temporary) / "model"
        own, groups = inputs.at(content["params"])
        merge_weights(own, weight_file(own.plan, groups), made)
        found = weights_of(made)
    if found != content["files"]:
        raise StudyError(
            f"The weights differ from the manifest's: {', '.join(_differing(found, content))}. "
            "The parents are the same; other versions of torch may round differently."
        )
    return list(found)


def _folders(texts: list[str]) -> dict[str, Path]:
    """Read `NAME=DIR` texts."""
    pairs = [text.partition("=") for text in texts]
    wrong = next((text for text, pair in zip(texts, pairs, strict=True) if not pair[2]), None)
    if wrong is not None:
        raise SpecError(f"--model must be NAME=DIR, e.g. --model base=models/base, got {wrong!r}.")
    return {name: Path(path) for name, _, path in pairs}


def _blocks(content: dict[str, Any]) -> tuple[int, ...]:
    """Return the first layer of each block of a manifest's learned blocks.

    Raises:
        SpecError: If it has none.
    """
    merge = content["spec"].get("merge") or {}
    granularity, blocks = merge.get("granularity", "layer"), merge.get("blocks")
    if granularity != "learned-blocks" or not isinstance(blocks, list):
        raise SpecError(
            "A spec of learned blocks can make a model of learned blocks again, but the "
            f"manifest's has granularity {granularity!r} and blocks {blocks!r:.60}. Give the spec "
            "its `merge`."
        )
    return tuple(blocks)


def _differing(found: dict[str, str], content: dict[str, Any]) -> list[str]:
    names = sorted(found.keys() | content["files"].keys())
    return [name for name in names if found.get(name) != content["files"].get(name)]


def _measure(inputs: "StudyInputs", content: dict[str, Any]) -> None:
    """Measure the model again and compare with the manifest's values.

    Raises:
        StudyError: If a value is further off than its errors allow.
    """
    from ...results.front_table import rounded
    from ...run import devices_of, make_objective

    evaluation = inputs.spec.evaluation.model_copy(update={"cache": False})
    spec = inputs.spec.model_copy(
        update={"evaluation": evaluation}
    )  # kept answers measure nothing
    with devices_of(spec) as devices:
        objective = make_objective(replace(inputs, spec=spec), devices=devices)
        try:
            measured = objective.measure(content["params"])
        finally:
            objective.backend.close()
    unknown = [math.nan] * len(measured.values)
    errors = dict(enumerate(content["standard_errors"] or unknown))
    far = []
    told = zip(inputs.spec.metric_names, measured.values, measured.standard_errors, strict=True)
    for place, (name, value, error) in enumerate(told):
        before, old_error = content["values"].get(name, math.nan), errors.get(place, math.nan)
        typer.echo(f"{name}: {rounded(value, error)}, published {rounded(before, old_error)}")
        if abs(value - before) > _FAR * math.hypot(error, old_error):
            far.append(name)
    if far:
        raise StudyError(f"Not as published within the errors: {', '.join(far)}.")
