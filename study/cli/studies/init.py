"""`mergefront init`."""

import typer

from ..app import STUDY, SpecArgument, StorageOption, command, read_spec


@command("init", panel=STUDY)
def init(spec: SpecArgument, storage: StorageOption = None) -> None:
    """Check the spec, create its study and queue the parents and uniform merges.

    Harmless where the study exists with the same settings.

    Example: mergefront init examples/demo.yaml
    """
    from ...seeding import init_study
    from ...spec.inputs import StudyInputs

    study = init_study(StudyInputs.of(read_spec(spec, storage)))
    typer.echo(f"Study {study.study_name!r} has {len(study.get_trials(deepcopy=False))} trials.")
