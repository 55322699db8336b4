"""Merge a tiny random model of every architecture, and check that what is run is what is said.

Run by `make sweep`; writes `docs/architectures.md`.
"""

import argparse
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from architectures import ARCHITECTURES, LEFT_OUT, config_of, write_model
from torch import Tensor, nn

from mergefront.objectives.checkpoints import Checkpoint, tensor_table
from mergefront.objectives.checkpoints.compatibility import check_tensors
from mergefront.objectives.evaluation.backends.loading import load_model
from mergefront.objectives.merging import (
    MergeSettings,
    ModuleSink,
    Recipe,
    check_loaded,
    check_towers,
    plan_of,
    write_checkpoint,
)

_SETTINGS = MergeSettings(embeddings="search", head="search")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_TOKENS = torch.tensor([[3, 5, 8, 13, 21, 34, 55, 7, 11, 2, 4]])
_DOC = Path(__file__).parents[2] / "docs" / "architectures.md"


@dataclass(frozen=True)
class Merged:
    """Two parents, opened and loaded.

    Args:
        recipe: Over their files.
        sink: Over the live model.
        live: The model that is overwritten.
        parents: Fresh loads of the files.
    """

    recipe: Recipe
    sink: ModuleSink
    live: Any
    parents: tuple[Any, Any]


def opened(name: str, dtype: str, folder: Path) -> Merged:
    """Write, open and load the parents of an architecture."""
    config = config_of(name)
    directories = [folder / "base", folder / "expert"]
    for seed, directory in enumerate(directories, start=1):
        write_model(config, _DTYPES[dtype], seed, directory)
    base, expert = map(Checkpoint, directories)
    check_tensors(base, expert)
    plan = plan_of(base, _SETTINGS)
    check_towers(base, (expert,), plan)
    live, *parents = (load_model(d, dtype, "cpu") for d in (directories[0], *directories))
    for tensor in (t for parent in parents for t in [*parent.parameters(), *parent.buffers()]):
        # Not pages of a file, which begin anywhere: CPUs add numbers in another order there.
        tensor.data = tensor.data.clone()
    other = load_model(directories[1], dtype, "cpu")
    check_loaded(live, base, base)
    check_loaded(other, expert, base)
    table = tensor_table(base)
    sink = ModuleSink(live, [other], _SETTINGS, table.tied, table)
    recipe = Recipe(base, [expert], plan, _DTYPES[dtype])
    return Merged(recipe, sink, live, (parents[0], parents[1]))


def check(merged: Merged, folder: Path) -> None:
    """Check one architecture in one precision.

    Raises:
        AssertionError: With what is not as it should be.
    """
    groups = merged.sink.plan.groups
    check_parents(merged, groups)
    check_groups(merged, groups)
    mixed = {group: ((i + 1) / (len(groups) + 1),) for i, group in enumerate(groups)}
    check_interpolation(merged, mixed)
    check_export(merged, mixed, folder / "out")


def logits(model: Any) -> Tensor:
    """Return the answers to a few tokens, `1 x length x vocabulary`-dim."""
    with torch.inference_mode():
        answer: Tensor = model(input_ids=_TOKENS, use_cache=False).logits
    return answer


def check_parents(merged: Merged, groups: Sequence[str]) -> None:
    """Weight 0 is the base and weight 1 the expert, bit for bit."""
    for weight, parent in enumerate(merged.parents):
        merged.sink.write(dict.fromkeys(groups, (float(weight),)))
        assert not differing(merged.live, parent), f"at weight {weight}: tensors of the parent"
        assert torch.equal(logits(merged.live), logits(parent)), f"at weight {weight}: logits"
    base, expert = map(logits, merged.parents)
    assert not torch.equal(base, expert), "the parents must differ"


def check_groups(merged: Merged, groups: Sequence[str]) -> None:
    """Each variable moves its own tensors and no others."""
    differ = differing(*merged.parents)
    inside = {index: names & differ for index, names in of_layers(merged.live).items()}
    moved: set[str] = set()
    for group in groups:
        merged.sink.write({g: (float(g == group),) for g in groups})
        changed = differing(merged.live, merged.parents[0])
        if group.startswith("layer_"):
            expected = inside[int(group.removeprefix("layer_"))]
            assert changed == expected, f"{group} moves {sorted(changed ^ expected)[:3]}"
        else:
            assert not changed & set().union(*inside.values()), f"{group} moves layers"
        moved |= changed
    assert moved == differ, "the variables together move all that differs"


def of_layers(model: Any) -> dict[int, set[str]]:
    """Return the names of the tensors of each layer, by the modules of the decoder."""
    stack = decoder_layers(model)
    prefix = next(n for n, m in model.named_modules() if m is stack)
    saved = model.state_dict()
    return {
        index: {name for name in saved if name.startswith(f"{prefix}.{index}.")}
        for index in range(len(stack))
    }


def decoder_layers(model: Any) -> nn.ModuleList:
    """Return the list with a module for each layer of the language model."""
    n_layers = model.config.get_text_config().num_hidden_layers
    decoder = model.get_decoder() or model
    stacks = (m for m in decoder.modules() if isinstance(m, nn.ModuleList))
    return next(stack for stack in stacks if len(stack) == n_layers)


def differing(one: nn.Module, other: nn.Module) -> set[str]:
    """Return the names of tensors that are not equal bit for bit."""
    ours, theirs = one.state_dict(), other.state_dict()
    return {name for name in ours if not torch.equal(ours[name], theirs[name])}


def check_interpolation(merged: Merged, groups: Mapping[str, tuple[float]]) -> None:
    """The live model is an interpolation of the parents' state dictionaries."""
    merged.sink.write(groups)
    base, expert = (parent.state_dict() for parent in merged.parents)
    inside = {n: f"layer_{i:03d}" for i, names in of_layers(merged.live).items() for n in names}
    for name, tensor in merged.live.state_dict().items():
        if torch.equal(base[name], expert[name]):
            assert torch.equal(tensor, base[name]), f"{name} is not what all parents have"
            continue
        group = inside.get(name) or ("embeddings" if "embed" in name or "wt" in name else "head")
        weights = [groups[group][0]] if name in inside else [groups[g][0] for g in groups]
        close = [_is_between(tensor, base[name], expert[name], weight) for weight in weights]
        assert any(close), f"{name} is no interpolation"


def _is_between(tensor: Tensor, base: Tensor, expert: Tensor, weight: float) -> bool:
    """Whether a tensor is the interpolation, computed in float64, but for one rounding."""
    exact = base.double() + weight * (expert.double() - base.double())
    step = torch.finfo(tensor.dtype).eps * torch.maximum(base.abs(), expert.abs()).double()
    return bool(((tensor.double() - exact).abs() <= step + 1e-30).all())


def check_export(merged: Merged, groups: Mapping[str, tuple[float]], out: Path) -> None:
    """An exported candidate, loaded again, is the candidate."""
    write_checkpoint(merged.recipe, groups, out)
    dtype = str(merged.recipe.dtype).removeprefix("torch.")
    again = load_model(out, dtype, "cpu")
    assert not (names := differing(merged.live, again)), f"exported tensors: {sorted(names)[:3]}"
    assert torch.equal(logits(merged.live), logits(again)), "logits of the export"


def outcome(name: str, dtype: str) -> str:
    """Return `passes`, or why not."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            check(opened(name, dtype, Path(folder)), Path(folder))
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return "passes"


def main() -> int:
    """Run the sweep; return 1 if an architecture fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="part of a name")
    parser.add_argument("--out", type=Path, default=_DOC)
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    names = [n for n in ARCHITECTURES if (arguments.only or "").lower() in n.lower()]
    results = {}
    for name in names:
        results[name] = {dtype: outcome(name, dtype) for dtype in _DTYPES}
        print(name, results[name], flush=True)
    if arguments.only is None:
        arguments.out.write_text(document(results), encoding="utf-8")
    return int(any(o != "passes" for of_name in results.values() for o in of_name.values()))


def document(results: Mapping[str, Mapping[str, str]]) -> str:
    """Return the page of the documentation."""
    rows = [
        f"| {name} | `{ARCHITECTURES[name][0]}` | {remarks(name)} | {' | '.join(of.values())} |"
        for name, of in results.items()
    ]
    left_out = [f"- {name}: {reason}." for name, reason in LEFT_OUT.items()]
    version = transformers.__version__
    return "\n".join([_INTRODUCTION.format(version=version), *rows, "", _LEFT_OUT, *left_out, ""])


_INTRODUCTION = """# Architectures

Written by `make sweep` with transformers {version}; do not edit. Each architecture is merged as
two tiny models of random numbers, in both precisions. *passes* means:

1. weight 0 and weight 1 are the parents: all tensors and the logits are equal bit for bit;
2. each search variable moves the tensors of its own layer, of the embeddings or of the head, and
   no others; together they move all in which the parents differ, persistent buffers included;
3. a candidate with another weight in each layer is the interpolation of the parents' state
   dictionaries, to one rounding;
4. the candidate exported and loaded again has the same tensors and the same logits.

Remarks: *fused* tensors are put together when they are loaded (operators that look at whole
tensors, such as `ties`, are refused there); *buffers* are merged like weights; *float32* tensors
stay so in every study; *towers* read images and sound, and are copied from the base where all
models have the same.

| architecture | `model_type` | remarks | float32 | bfloat16 |
|---|---|---|---|---|"""
_LEFT_OUT = "Not run:\n"


def remarks(name: str) -> str:
    """Return what is special about an architecture's tensors."""
    with tempfile.TemporaryDirectory() as folder:
        write_model(config_of(name), torch.bfloat16, 1, Path(folder))
        base = Checkpoint(Path(folder))
        table = tensor_table(base)
        kinds = {row.kind for row in table.rows.values()}
        kept = [row for row in table.rows.values() if row.kept is not None]
        parts = plan_of(base, _SETTINGS).parts.values()
        special = {
            "tied head": table.tied,
            "fused": bool(table.converted),
            "buffers": "buffer" in kinds,
            "float32": bool(kept),
            "towers": any(part.kind == "tower" for part in parts),
            "towers not loaded": "unused" in kinds,
        }
    return ", ".join(word for word, is_so in special.items() if is_so)


if __name__ == "__main__":
    sys.exit(main())
