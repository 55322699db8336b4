"""Embeddings of other lengths: rows that no token has are cut or filled, all others refused."""

from pathlib import Path

import pytest
import torch

from mergefront.errors import SpecError
from mergefront.objectives.checkpoints import Checkpoint, check_mergeable, open_expert, reads_base
from mergefront.objectives.evaluation.backends.backend import Models
from mergefront.objectives.evaluation.backends.loading import load_model
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
from mergefront.objectives.merging import MergeSettings, Recipe, plan_of, stream, write_checkpoint
from tiny_models import write_pair

# The tokenizer's last token is number 47.
N_TOKENS = 48
IDS = torch.arange(N_TOKENS).view(2, -1)


def _pair(folder: Path, kind: str, base_rows: int, expert_rows: int) -> Models:
    """Write a base and an expert whose embeddings have other numbers of rows."""
    base = write_pair(folder / "1", kind, vocab_size=base_rows).base
    expert = write_pair(folder / "2", kind, vocab_size=expert_rows).experts[0]
    return Models(base, (expert,), "float32", MergeSettings(embeddings="search", head="search"))


def _logits(directory: Path) -> torch.Tensor:
    model = load_model(directory, "float32", "cpu")
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=IDS).logits
    return logits[..., :N_TOKENS]


@pytest.mark.parametrize("kind", ["dense", "tied"])
@pytest.mark.parametrize(("base_rows", "expert_rows"), [(48, 64), (64, 56)])
def test_every_place_gives_the_expert_at_weight_1_and_agrees_elsewhere(
    tmp_path: Path, kind: str, base_rows: int, expert_rows: int
) -> None:
    models = _pair(tmp_path, kind, base_rows, expert_rows)
    base = Checkpoint(models.base)
    expert = open_expert(models.experts[0], base)
    check_mergeable(base, [expert])
    plan = plan_of(base, models.merge)
    recipe = Recipe(base, [expert], plan, torch.float32)
    backend = TransformersBackend()
    backend.load(models)
    own = {0.0: _logits(models.base), 1.0: _logits(models.experts[0])}
    for weight in (1.0, 0.3, 0.0):
        groups = plan.group_weights(plan.uniform(weight))
        backend.apply(groups)
        write_checkpoint(recipe, groups, out := tmp_path / f"out {weight}")
        live, exported = backend._sink.parameters, Checkpoint(out)
        for name, tensor in stream(recipe, groups):
            assert tensor.shape == base.tensor(name).shape
            assert torch.equal(tensor, live[name])
            assert torch.equal(tensor, exported.tensor(name).load())
        if weight in own:
            assert torch.equal(_logits(out), own[weight])
    backend.close()


def test_rows_that_the_expert_lacks_stay_the_bases(tmp_path: Path) -> None:
    models = _pair(tmp_path, "dense", 64, 56)
    base = Checkpoint(models.base)
    name = "model.embed_tokens.weight"
    found = open_expert(models.experts[0], base).tensor(name)
    own, origin = Checkpoint(models.experts[0]).tensor(name).load(), base.tensor(name).load()
    assert torch.equal(found.load(), torch.cat([own, origin[56:]]))
    width = found.shape[1]
    part = slice(55 * width - 3, 58 * width + 5)  # begins in the file, ends in the base's
    assert torch.equal(found.read(part.start, part.stop), found.load().view(-1)[part])


def test_rows_that_tokens_have_are_never_cut_or_filled(tmp_path: Path) -> None:
    models = _pair(tmp_path, "dense", 64, 47)
    base = Checkpoint(models.base)
    message = r"64 rows, .* 47, and the tokenizer's last token is number 47\. Choose"
    with pytest.raises(SpecError, match=message):
        check_mergeable(base, [open_expert(models.experts[0], base)])


def test_an_engine_is_compared_with_the_expert_that_is_merged(tmp_path: Path) -> None:
    models = _pair(tmp_path, "dense", 48, 64)
    assert reads_base(models.experts[0], models.base)
    assert not reads_base(models.base, models.base)
