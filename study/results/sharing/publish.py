"""Give a model to others: a folder, or a repository on the hub."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import optuna

from ....errors import SpecError, StudyError
from ...spec.inputs import StudyInputs
from ..beside import whole_directory
from ..export import trial_of, write_candidate
from .licences import check_may_be_shared, terms_of
from .manifest import NAME, manifest_of

if TYPE_CHECKING:
    from huggingface_hub import HfApi

# What the hub puts into a new repository.
_FIRST_FILE = ".gitattributes"


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
    check_may_be_shared([(name, terms_of(model.directory)) for name, model in models])
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
        SpecError: If a parent's licence forbids it, or `name` is no name of a repository, or of
            one that holds something, or that others see although it should be private.
        StudyError: If the trial does not exist, or the hub refuses.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    with TemporaryDirectory(prefix="mergefront-publish-") as folder:
        out = Path(folder) / "model"
        with _at_hub(name):
            _check_free(api, name, private)
        publish_to_folder(inputs, study, number, out, "TMPDIR")
        with _at_hub(name):
            url = api.create_repo(name, private=private, exist_ok=True)
            message = f"{study.study_name}, trial {number}, by MergeFront"
            api.upload_folder(repo_id=name, folder_path=out, commit_message=message)
    return str(url)


def _check_free(api: "HfApi", name: str, private: bool) -> None:
    """Refuse a repository whose files would stay beside the model's, or be replaced by them.

    Raises:
        SpecError: If `name` is none, or holds files, or is public where it should be private.
    """
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        found = api.model_info(name)
    except HFValidationError as error:
        raise SpecError(f"--to must be ORGANISATION/NAME, but got {name!r}: {error}") from error
    except RepositoryNotFoundError:
        return
    files = [one.rfilename for one in found.siblings or () if one.rfilename != _FIRST_FILE]
    if files:
        raise SpecError(
            f"--to must be a new or empty repository, but {name!r} holds {files[0]}"
            f"{f' and {len(files) - 1} more' * (len(files) > 1)}. Choose another name."
        )
    if private and not found.private:
        raise SpecError(
            f"--private makes a new repository private, but {name!r} is public already. Make it "
            "private on the hub, or choose another name."
        )


@contextmanager
def _at_hub(name: str) -> Iterator[None]:
    """Say in one line why the hub refuses.

    Raises:
        StudyError: If it does, or cannot be reached.
    """
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        yield
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
        raise StudyError(
            f"The hub did not take {name!r}: {reason} Check the name, and that HF_TOKEN may "
            "write there."
        ) from error
