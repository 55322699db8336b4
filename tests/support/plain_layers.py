"""vLLM's CPU layers with plain weights, as its GPU layers hold them."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch

_PACKING = "vllm.model_executor.layers.{}.dispatch_cpu_unquantized_gemm"


@contextmanager
def plain_layers() -> Iterator[None]:
    """Keep engines started inside from packing weights, so that merges can overwrite them."""

    def plain(layer: Any, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    with ExitStack() as stack:
        for module in ("linear", "vocab_parallel_embedding", "utils"):
            name = _PACKING.format(module)
            stack.enter_context(mock.patch(name, plain, create=True))
        yield
