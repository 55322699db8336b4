"""A model without numbers: what transformers would build and load for a checkpoint."""

import warnings
from pathlib import Path
from typing import Any

import torch

from ....errors import SpecError
from ..text_files import read_json

# Multimodal models whose causal language model has no place for all of the checkpoint.
_WHOLE = ("llama4",)


def model_class(config: Any) -> Any:
    """Return the auto class that builds a model which generates text.

    A multimodal checkpoint that transformers does not list among the causal language models is
    built whole: its language model answers, its towers rest.

    Raises:
        SpecError: If transformers has no such model.
    """
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, __version__

    order = (AutoModelForCausalLM, AutoModelForImageTextToText)
    for auto in reversed(order) if config.model_type in _WHOLE else order:
        if type(config) in auto._model_mapping:
            return auto
    raise SpecError(
        f"A model must generate text, but transformers {__version__} has no causal language model "
        f"for {config.model_type!r}. Choose another model, or a newer transformers."
    )


def parsed_config(directory: Path) -> Any | None:
    """Return the configuration as transformers reads it; None for a family that it lacks.

    Raises:
        SpecError: If it is none of its family.
    """
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    content = read_json(directory / "config.json")
    if content.get("model_type") not in CONFIG_MAPPING:
        return None
    try:
        return AutoConfig.from_pretrained(directory, local_files_only=True)
    except Exception as error:  # each family checks its own settings, in its own way
        raise SpecError(
            f"A model's configuration must be valid, but that of {directory} is not "
            f"({type(error).__name__}: {error}). Correct its config.json."
        ) from error


def skeleton(directory: Path) -> Any | None:
    """Return the model of a checkpoint on the meta device; None for an unknown family.

    Its parameters are bfloat16, but for those that the family keeps in another precision.

    Raises:
        SpecError: If the configuration fits no model.
    """
    config = parsed_config(directory)
    if config is None:
        return None
    builder = model_class(config)
    try:
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")
            return builder.from_config(config, dtype=torch.bfloat16)
    except ImportError as error:
        raise SpecError(
            f"A model must be built from its configuration, but that of {directory} needs a "
            f"package: {' '.join(str(error).split())}"
        ) from error
    except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise SpecError(
            f"A model must be built from its configuration, but that of {directory} fails "
            f"({type(error).__name__}: {error}). Correct its config.json."
        ) from error
