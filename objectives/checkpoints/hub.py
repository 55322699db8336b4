"""Find the models that a spec names: on this machine, in the hub's cache, on the hub."""

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath

from ...errors import SpecError
from .adapters.settings import ADAPTER_WEIGHTS
from .lora import is_adapter
from .reader import INDEX, SINGLE, Checkpoint
from .text_files import CHAT_TEMPLATES, read_json

_HUB_ID = re.compile(
    r"^(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?(?::(?P<folder>[\w.-]+(?:/[\w.-]+)*))?$"
)
_SNAPSHOT = re.compile(
    r"/models--([\w.-]+?)--([\w.-]+)/snapshots/([0-9a-f]{40})(?:/(?P<folder>[\w./-]+))?$"
)
# What is fetched of a model beside its weights; never its pickles. Its card names the licence.
_SMALL_FILES = ("*.json", "*.jinja", "*.txt", "tokenizer.model", "README.md")


@dataclass(frozen=True)
class HubName:
    """A model of the hub, as a spec names it: `ORG/NAME[@REVISION][:SUBFOLDER]`.

    Args:
        name: `ORG/NAME`.
        revision: A branch, tag or commit; None for the newest.
        folder: Where in the repository the model lies; "" for its top.
    """

    name: str
    revision: str | None
    folder: str

    @classmethod
    def of(cls, reference: str) -> "HubName | None":
        """Return what a reference names; None if it can be no model of the hub."""
        found = _HUB_ID.match(reference)
        if found is None or {".", ".."} & {*(found["folder"] or "").split("/")}:
            return None
        return cls(found["name"], found["revision"], found["folder"] or "")

    def path(self, file: str) -> str:
        """Return a file's path in the repository."""
        return f"{self.folder}/{file}" if self.folder else file

    def fetch_small(self, into: Path | None = None, offline: bool = False) -> Path:
        """Fetch the small files beside the weights, and the repository's card.

        Args:
            into: A directory. Defaults to None: the hub's cache.
            offline: Whether to do with what the cache holds.

        Returns:
            The directory that stands for the repository.
        """
        from huggingface_hub import snapshot_download

        fetch = partial(snapshot_download, self.name, local_dir=into, local_files_only=offline)
        top = fetch(
            revision=self.revision,
            allow_patterns=[*map(self.path, _SMALL_FILES), "README.md"],
            ignore_patterns=[self.path("*/*")],  # another model's
        )
        # Apart, as no pattern leaves out every folder but one; the same commit, if the cache says.
        commit = self.revision if into else Path(top).name
        fetch(revision=commit, allow_patterns=[self.path(f"{CHAT_TEMPLATES}/*.jinja")])
        return Path(top)


def resolve_model(reference: str, folder: Path) -> Path:
    """Return the directory of a model named in a spec.

    Args:
        reference: A path, absolute or relative to `folder` or the working directory, or a hub
            id such as `Qwen/Qwen3-4B`, perhaps with a branch, tag or commit, and a folder of its
            repository: `ORG/NAME@REVISION:SUBFOLDER`. What the hub's cache holds of it is not
            fetched again.
        folder: The directory of the spec file.

    Raises:
        SpecError: If nothing is found.
    """
    if (found := _find_directory(reference, folder)) is not None:
        return found
    return download(reference)


def find_model(reference: str, folder: Path) -> Path | None:
    """Return the directory of a model that is on this machine; None for one that is not.

    Args:
        reference: See `resolve_model`.
        folder: The directory of the spec file.

    Raises:
        SpecError: If it can be no model.
    """
    if (found := _find_directory(reference, folder)) is not None:
        return found
    wanted = named(reference)
    try:
        cached = wanted.fetch_small(offline=True) / wanted.folder
        complete = _is_complete(cached)
    except Exception:
        return None
    return cached if complete else None


def _is_complete(directory: Path) -> bool:
    if is_adapter(directory):
        return (directory / ADAPTER_WEIGHTS).is_file()
    return all(path.is_file() for path in Checkpoint(directory).paths)


def _find_directory(reference: str, folder: Path) -> Path | None:
    try:
        places = (folder / Path(reference).expanduser(), Path(reference))
        found = next((place for place in places if place.is_dir()), None)
    except (OSError, RuntimeError, ValueError) as error:  # no such user, too long, not readable
        raise SpecError(
            f"A model must be a directory or a hub id, but {reference!r:.200} cannot be looked up "
            f"({error!s:.80}). Correct the path under `models`."
        ) from error
    if found is not None:
        return found.resolve()
    if HubName.of(reference) is None or reference.startswith("."):
        raise SpecError(
            f"A model must be a directory or a hub id, but {reference!r} is neither (looked in "
            f"{folder}). Correct the path under `models`."
        )
    return None


def named(reference: str) -> HubName:
    """Return the model of the hub that a reference names.

    Raises:
        SpecError: If it can be none.
    """
    if (found := HubName.of(reference)) is None:
        raise SpecError(
            f"A model of the hub is ORG/NAME, ORG/NAME@REVISION or ORG/NAME:SUBFOLDER, but got "
            f"{reference!r:.200}. Correct it under `models`."
        )
    return found


def public_name(directory: Path) -> str | None:
    """Return `org/name@commit` for a directory in the hub's cache; None for any other.

    A model in a folder of its repository has `:folder` at the end.
    """
    found = _SNAPSHOT.search(directory.as_posix())
    if found is None:
        return None
    folder = f":{found['folder']}" if found["folder"] else ""
    return f"{found[1]}/{found[2]}@{found[3]}{folder}"


def card_folder(directory: Path) -> Path:
    """Return where a model's card lies: in the hub's cache at the top of its repository."""
    found = _SNAPSHOT.search(directory.as_posix())
    if found is None or not found["folder"] or (directory / "README.md").is_file():
        return directory
    return Path(directory.as_posix().removesuffix(f"/{found['folder']}"))


def download(hub_id: str) -> Path:
    """Fetch a model into the hub's cache, and return its directory.

    Of its weights the files that its index names are fetched, and no others: some repositories
    hold them once more, in another format.

    Raises:
        SpecError: If it is neither there nor to be had.
    """
    from huggingface_hub import snapshot_download

    wanted = named(hub_id)
    try:
        top = wanted.fetch_small()
        _check_adapter_alone(wanted, top)
        files = [wanted.path(file) for file in weight_files(top / wanted.folder)]
        # The same commit, even if a branch has moved meanwhile.
        snapshot_download(wanted.name, revision=top.name, allow_patterns=files)
    except Exception as error:
        raise not_fetched(hub_id, error) from error
    return top / wanted.folder


def _check_adapter_alone(wanted: HubName, top: Path) -> None:
    """Refuse an adapter that lies beside whole weights, which are not fetched with it."""
    from huggingface_hub import file_exists

    folder = top / wanted.folder
    if not is_adapter(folder) or (folder / ADAPTER_WEIGHTS).is_file():
        return  # what the cache holds was checked, and is used without a network too
    if file_exists(wanted.name, wanted.path(SINGLE), revision=top.name):
        raise SpecError(
            f"A model of the hub must be one model, but {wanted.name} has whole weights "
            f"({wanted.path(SINGLE)}) and an adapter. Copy the files of the one that is meant to "
            "a folder, and give its path."
        )


def weight_files(directory: Path) -> list[str]:
    """Return the names of the weight files that belong to a model's small files.

    Raises:
        SpecError: If the index cannot be read, or names a file outside the model's folder.
    """
    if is_adapter(directory):
        return [ADAPTER_WEIGHTS]
    if not (directory / INDEX).is_file():
        return [SINGLE]
    files = sorted(set(read_json(directory / INDEX).get("weight_map", {}).values()))
    for file in files:  # a stranger's words, which decide where something is written
        if PurePath(file).is_absolute() or ".." in PurePath(file).parts:
            raise SpecError(
                f"A model of the hub must have its weights in its folder, but {INDEX} names "
                f"{file!r:.200}. Choose another model."
            )
    return files


def not_fetched(hub_id: str, error: Exception) -> SpecError:
    """Return what to say of a model that the hub did not give."""
    from huggingface_hub.errors import GatedRepoError

    if isinstance(error, SpecError):
        return error
    if isinstance(error, GatedRepoError):
        return SpecError(
            f"Model {hub_id!r} is gated on the hub. Accept its terms there, and set HF_TOKEN or "
            "log in with `hf auth login`."
        )
    return SpecError(
        f"Model {hub_id!r} is no local directory and could not be fetched from the hub "
        f"({type(error).__name__}). Download it first, or give its path."
    )
