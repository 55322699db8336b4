"""`mergefront demo`."""

import time
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from ..app import STUDY, StorageOption, command


@command("demo", panel=STUDY)
def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Directory to write.")] = Path(
        "runs/demo"
    ),
    storage: StorageOption = None,
) -> None:
    """Run the study of the embedded pair, print its front and write its report.

    Example: mergefront demo --out runs/demo
    """
    from ...results.front import front_report
    from ...results.report.page import write_report
    from ...run import run
    from ...spec.inputs import StudyInputs
    from ...spec.study_spec import StudySpec
    from ...storage.connection import load_study
    from ..progress import ConsoleReporter
    from ..results.front import print_front

    with resources.as_file(resources.files("mergefront.examples") / "demo.yaml") as path:
        spec = StudySpec.from_yaml(path).with_overrides(storage or f"sqlite:///{out}/study.db")
        reporter, start = ConsoleReporter(spec), time.perf_counter()
        timings = run(StudyInputs.of(spec), reporter)
    reporter.summary(timings, time.perf_counter() - start)
    study = load_study(spec)
    print_front(front_report(study, spec))
    page, *_ = write_report(study, spec, out / "report")
    typer.echo(f"report: {page}")
