"""Products of adapters: equal bits, however much of a tensor is read at once."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mergefront.objectives.checkpoints.lora_tensor import LoraTensor
from mergefront.objectives.checkpoints.tensor_files import parse_header
from mergefront.objectives.merging.merger import CHUNK


def _tensor(folder: Path, out: int, width: int, rank: int, dtype: torch.dtype) -> LoraTensor:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return 0.05 * torch.randn(*shape, generator=generator)

    save_file({"w": random(out, width).to(dtype)}, folder / "w.safetensors")
    origin = parse_header(folder / "w.safetensors")["w"]
    return LoraTensor(origin, random(rank, width), random(out, rank), 2.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("out", "width", "rank"),
    # A row left over for the last chunk, rows longer than a block, parts of rows, one row, a bias.
    [(257, 2048, 64), (5, 70_000, 16), (300, 1000, 64), (1, 2048, 64), (4097, 1, 1)],
)
def test_a_tensor_read_in_parts_is_the_tensor_read_whole(
    tmp_path: Path, out: int, width: int, rank: int, dtype: torch.dtype
) -> None:
    tensor = _tensor(tmp_path, out, width, rank, dtype)
    whole, n = tensor.load().view(-1), tensor.numel()
    for size in (CHUNK, width, 999):
        # Pieces of a row are many: those at the end say enough.
        starts = range(0, n, size) if n < 99 * size else range(n - 99 * size, n, size)
        parts = torch.cat([tensor.stored(i, min(i + size, n)) for i in starts])
        assert torch.equal(parts, whole[starts[0] :])
    expected = tensor.origin.load().float() + 2 * (tensor.b @ tensor.a)
    error = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(whole.view(out, width), expected.to(dtype), rtol=error, atol=error)
