"""`mergefront status`."""

from typing import Any

import typer

from ._app import Format, FormatOption, SpecArgument, StorageOption, command, print_json, read_spec


@command("status")
def status(
    spec: SpecArgument, storage: StorageOption = None, format: FormatOption = Format.TABLE
) -> None:
    """Print how far the study is.

    Example: mergefront status examples/demo.yaml
    """
    from ..storage import load_study

    parsed = read_spec(spec, storage)
    content = _status(load_study(parsed), parsed.study.trials)
    if format is Format.JSON:
        print_json(content)
        return
    for key, value in content.items():
        typer.echo(f"{key.replace('_', ' '):<18} {value if value is not None else '-'}")


def _status(study: Any, budget: int) -> dict[str, Any]:
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    failed = [t for t in trials if t.state == TrialState.FAIL]
    last = failed[-1].user_attrs.get("failure") if failed else None
    return {
        "study": study.study_name,
        "budget": budget,
        **{s.name.lower(): sum(t.state == s for t in trials) for s in TrialState},
        "generated_tokens": sum(t.user_attrs.get("generated_tokens", 0) for t in trials),
        "last_failure": last,
    }
