"""Give a model to others: a folder, or a repository on the hub."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import optuna

from ....errors import StudyError
from ...spec.inputs import StudyInputs
from ..beside import whole_directory
from ..export import trial_of, write_candidate
from .licences import check_may_be_shared, licence_of
from .manifest import NAME, manifest_of


def publish_to_folder(
    inputs: StudyInputs, study: optuna.Study, number: int, out: Path, named: str = "--to"
) -> None:
    """Write a trial's model with its card, recipe, picture and manifest.

    Args:
        inputs: What the study was made of.
        study: Of the trial.
        number: Of the trial.
        out: New, or an empty directory.
        named: By which option or variable.

    Raises:
        SpecError: If a parent's licence forbids it, or `out` is not empty.
        StudyError: If the trial does not exist.
    """
    trial = trial_of(study, number)
    own = inputs.of_arm(trial.params)
    spec = own.spec.models
    names = [spec.base, *spec.experts]
    models = zip(names, (own.base, *own.experts), strict=True)
    check_may_be_shared([(name, licence_of(model.directory)) for name, model in models])
    with whole_directory(out, named) as beside:
        write_candidate(inputs, study, trial, beside)
        content = manifest_of(inputs, study, trial, beside)
        (beside / NAME).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def publish_to_hub(
    inputs: StudyInputs, study: optuna.Study, number: int, name: str, private: bool
) -> str:
    """Upload a trial's model to the hub, and return its address.

    The token comes from where huggingface_hub finds it: `HF_TOKEN`, or `hf auth login`.

    Args:
        inputs: What the study was made of.
        study: Of the trial.
        number: Of the trial.
        name: `ORGANISATION/NAME` on the hub; made if it is not there.
        private: Whether only its owner sees it.

    Raises:
        SpecError: If a parent's licence forbids it.
        StudyError: If the trial does not exist, or the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    with TemporaryDirectory(prefix="mergefront-publish-") as folder:
        out = Path(folder) / "model"
        publish_to_folder(inputs, study, number, out, "TMPDIR")
        api = HfApi()
        try:
            url = api.create_repo(name, private=private, exist_ok=True)
            message = f"{study.study_name}, trial {number}, by MergeFront"
            api.upload_folder(repo_id=name, folder_path=out, commit_message=message)
        except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
            reason = (
                str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
            )
            raise StudyError(
                f"The hub did not take {name!r}: {reason} Check the name, and that HF_TOKEN may "
                "write there."
            ) from error
    return str(url)
