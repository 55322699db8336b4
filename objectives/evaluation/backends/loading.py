"""Load transformers models: safetensors only, no code from checkpoints."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from ....errors import EvaluationError
from ...checkpoints import Checkpoint, LoraCheckpoint, is_adapter
from ...checkpoints.configs import load_config
from ...merging import OPERATORS
from .backend import Models


def load_model(directory: Path, dtype: str, device: str) -> Any:
    """Return a causal language model that is not trained."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(
        directory, dtype=getattr(torch, dtype), use_safetensors=True, local_files_only=True
    )
    return model.to(device).eval().requires_grad_(False)


def load_expert(directory: Path, base: Path, dtype: str, device: str) -> Any:
    """Return an expert; an adapter is added to the base."""
    if not is_adapter(directory):
        return load_model(directory, dtype, device)
    expert = load_model(base, dtype, device)
    adapter = LoraCheckpoint(directory, Checkpoint(base))
    for name in adapter.changed:
        values = adapter.tensor(name).load().to(device, getattr(torch, dtype))
        expert.get_parameter(name).data = values
    return expert


def default_device() -> str:
    """Return the first GPU, or the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_operator_fits(models: Models) -> None:
    """Check an operator against the names that loading would give, without loading anything.

    Raises:
        EvaluationError: See `check_names`.
    """
    if _is_elementwise(models):
        return
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(load_config(models.base))
    check_names((name for name, _ in model.named_parameters()), models)


def check_names(names: Iterable[str], models: Models) -> None:
    """Refuse operators that look at whole tensors where loading has fused tensors.

    Raises:
        EvaluationError: If the live tensors are not the checkpoint's.
    """
    if _is_elementwise(models):
        return
    fused = sorted(set(names) - Checkpoint(models.base).layout.keys())
    if fused:
        raise EvaluationError(
            f"Operator {models.merge.operator!r} works on the checkpoint's own tensors, but "
            f"loading fused some, e.g. {fused[0]!r}. Use an elementwise operator such as 'linear'."
        )


def _is_elementwise(models: Models) -> bool:
    operator = OPERATORS[models.merge.operator]
    return operator.elementwise and operator.sparsify is None
