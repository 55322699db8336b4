"""How vLLM's layers hold weights, and what its reloading forgets on CPUs."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

# What layers call the length of their input.
_WIDTHS = ("input_size_per_partition", "input_size", "embedding_dim")


def plain_reason(model: nn.Module) -> str:
    """Say why kernels read something else than the parameters; "" if they read them.

    On CPUs most layers are packed, and the parameters that they were packed from freed.
    """
    for name, module in model.named_modules():
        if getattr(module, "cpu_linear", linear) is not linear or _cpu_experts(module):
            return f"{name} is packed"
    for name, parameter in model.named_parameters():
        if not parameter.numel() or not parameter.is_contiguous():
            return f"{name} has a layout of its own"
        if not parameter.dtype.is_floating_point:
            return f"{name} is {parameter.dtype}"
    return ""


def packed_outputs(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield what packed layers give for one fixed input: their weights cannot be read."""
    for name, module in model.named_modules():
        multiply = getattr(module, "cpu_linear", linear)
        if multiply is linear:
            continue
        width = next(getattr(module, key) for key in _WIDTHS if hasattr(module, key))
        probe = torch.arange(1, width + 1, dtype=torch.float32).rsqrt()[None]
        with torch.no_grad():
            yield f"{name}(probe)", multiply(probe.to(module.weight.dtype), module.weight, None)


def forget_packing(model: nn.Module) -> None:
    """Have experts on a CPU packed again by the next reload.

    vLLM (0.32, 0.33) packs them only where it builds a layer's kernel, which it does once: after
    a reload the kernel would read unpacked weights as packed ones. Without a kernel it builds one.
    """
    for module in model.modules():
        if _cpu_experts(module):
            module.quant_method.moe_kernel = None  # type: ignore[union-attr]


def _cpu_experts(module: nn.Module) -> bool:
    weight = getattr(module, "w13_weight", None)
    on_cpu = isinstance(weight, torch.Tensor) and weight.device.type == "cpu"
    return on_cpu and getattr(module.quant_method, "moe_kernel", None) is not None


def pack_again(model: nn.Module, tied: bool) -> None:
    """Pack a tied output matrix again: on CPUs vLLM keeps a packed copy of the old embeddings.

    Without it every answer silently comes from the new layers and the old head.
    """
    head = getattr(model, "lm_head", None)
    if head is None or not tied or head.weight.device.type != "cpu":
        return
    head.weight = model.model.embed_tokens.weight  # type: ignore[union-attr]
    head.quant_method.process_weights_after_loading(head)
