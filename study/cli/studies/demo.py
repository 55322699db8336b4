"""`mergefront demo`."""

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from ....examples.demo import BASE
from ..app import STUDY, StorageOption, TrialsOption, command
from ..next_steps import say_next
from .run import run_here

# What the demo's spec names relative to its folder.
_FILES = re.compile(r"demo/(base|expert|questions/\w+\.jsonl)")
_COMMENT = (
    "# Model and task paths are relative to this file; the storage is relative to where you start "
    "it.",
    "# Written by `mergefront demo`. All paths are absolute: use it from any folder.",
)


@command("demo", panel=STUDY)
def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Directory to write.")] = Path(
        "runs/demo"
    ),
    storage: StorageOption = None,
    trials: TrialsOption = None,
) -> None:
    """Search merges of two small embedded models, print the front and write a report.

    Takes 3 minutes on a CPU and downloads nothing. DIR/demo.yaml is the study's spec: all other
    commands work with it.

    Example: mergefront demo --out runs/demo
    """
    from ...opening import open_inputs
    from ...results.front import front_report
    from ...results.report.page import write_report
    from ...spec.study_spec import StudySpec
    from ...storage.connection import load_study
    from ..results.front import print_front

    path = _write_spec(out)
    spec = StudySpec.from_yaml(path).with_overrides(storage, trials)
    run_here(open_inputs(spec), path)
    study = load_study(spec)
    report = front_report(study, spec)
    print_front(report)
    page, *_ = write_report(study, spec, out / "report", str(path))
    typer.echo(f"report: {page}")
    steps = [
        ("validate --split test", "do the gains hold on fresh questions?"),
        ("dashboard", "everything in the browser"),
        (f"export --trial {report.knee} --out {out / 'merged'}", "save the most balanced model"),
    ]
    say_next(path, storage, steps)


def _write_spec(out: Path) -> Path:
    """Write the demo's spec with absolute paths, unless there is one; return its path."""
    path = out / "demo.yaml"
    if path.exists():
        return path
    examples = BASE.parents[1]
    text = (examples / "demo.yaml").read_text(encoding="utf-8")
    url = f"sqlite:///{(out / 'study.db').absolute()}"
    text = text.replace("sqlite:///runs/demo/study.db", json.dumps(url))
    text = _FILES.sub(lambda found: json.dumps(str(examples / found[0])), text)
    text = text.replace("$schema=", f"$schema={examples}/")
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace(*_COMMENT), encoding="utf-8")
    return path
