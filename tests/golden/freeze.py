"""Freeze what mergekit 0.1.5 computes, in float32, as the reference of the operator tests.

A development tool: needs an environment with `mergekit==0.1.5`, which the suite does not.

    python tests/golden/freeze.py tests/golden/mergekit.safetensors

Every case is stored under its name, and so are the inputs. Random operators draw from torch's
global generator, seeded with 0, one mask a model in the models' order.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

# name -> (operator, whether the base takes part, non-base models, parameters)
CASES: dict[str, tuple[str, bool, list[str], dict[str, Any]]] = {
    "linear": ("linear", True, ["one", "two"], {"weight": [0.2, 0.5, 0.3], "normalize": False}),
    "task_arithmetic": ("task_arithmetic", True, ["one", "two"], {"weight": [0.4, 0.7]}),
    "task_arithmetic_normalized": (
        "task_arithmetic",
        True,
        ["one", "two"],
        {"weight": [0.4, 0.7], "normalize": True, "lambda": 1.3},
    ),
    "ties": ("ties", True, ["one", "two"], {"weight": [0.4, 0.7], "density": 0.5}),
    "ties_plain": (
        "ties",
        True,
        ["one", "two"],
        {"weight": [0.4, 0.7], "density": 0.3, "normalize": False, "lambda": 0.8},
    ),
    "ties_negative": ("ties", True, ["one", "two"], {"weight": [-0.4, 0.7], "density": 0.6}),
    "ties_dense": ("ties", True, ["one", "two"], {"weight": [0.4, 0.7], "density": 1.0}),
    "dare_linear": ("dare_linear", True, ["one", "two"], {"weight": [0.4, 0.7], "density": 0.6}),
    "dare_linear_unscaled": (
        "dare_linear",
        True,
        ["one", "two"],
        {"weight": [0.4, 0.7], "density": 0.6, "rescale": False},
    ),
    "dare_ties": ("dare_ties", True, ["one", "two"], {"weight": [0.4, 0.7], "density": 0.6}),
    "della_linear": (
        "della_linear",
        True,
        ["one", "two"],
        {"weight": [0.4, 0.7], "density": 0.5, "epsilon": 0.2},
    ),
    "della": ("della", True, ["one", "two"], {"weight": [0.4, 0.7], "density": 0.5}),
    "breadcrumbs": (
        "breadcrumbs",
        True,
        ["one", "two"],
        {"weight": [0.4, 0.7], "density": 0.6, "gamma": 0.05},
    ),
    "breadcrumbs_ties": (
        "breadcrumbs_ties",
        True,
        ["one", "two"],
        {"weight": [0.4, 0.7], "density": 0.6, "gamma": 0.0},
    ),
    "slerp": ("slerp", True, ["far"], {"t": 0.3}),
    "slerp_parallel": ("slerp", True, ["near"], {"t": 0.3}),
    "nuslerp": ("nuslerp", True, ["one", "two"], {"weight": [0.4, 0.7]}),
    "nuslerp_pair": ("nuslerp", False, ["base", "one"], {"weight": [0.7, 0.3]}),
    "multislerp": ("multislerp", True, ["one", "two"], {"weight": [0.4, 0.7]}),
    "multislerp_pair": ("multislerp", False, ["base", "one"], {"weight": [0.7, 0.3]}),
    "karcher": ("karcher", False, ["base", "one", "two"], {}),
    "model_stock": ("model_stock", True, ["one", "two"], {}),
    "sce": ("sce", True, ["one", "two"], {"select_topk": 0.4}),
    "sce_all": ("sce", True, ["one", "two"], {"select_topk": 1.0}),
    "nearswap": ("nearswap", True, ["near"], {"t": 0.002}),
    "passthrough": ("passthrough", False, ["one"], {"scale": 0.5}),
}


def inputs() -> dict[str, torch.Tensor]:
    """Return the input tensors: a base, two experts with larger changes, one near, one far."""
    generator = torch.Generator().manual_seed(1)
    base = torch.randn(12, 16, generator=generator)
    noise = [torch.randn(12, 16, generator=generator) for _ in range(4)]
    return {
        "base": base,
        "one": base + 0.3 * noise[0],
        "two": base + 0.2 * noise[1] + 0.1 * noise[0],
        "near": base + 0.003 * noise[2],
        "far": noise[3],
    }


def main() -> None:
    """Write the inputs and every case's result."""
    from mergekit.merge_methods import merge_tensors

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    tensors = inputs()
    results = dict(tensors)
    for name, (method, with_base, models, parameters) in CASES.items():
        torch.manual_seed(0)
        listed = (
            [tensors["base"], *(tensors[m] for m in models)]
            if with_base
            else [tensors[m] for m in models]
        )
        options = {"base_index": 0} if with_base and method not in ("linear",) else {}
        results[name] = merge_tensors(listed, method, parameters=parameters, **options)
    metadata = {"mergekit": "0.1.5", "cases": json.dumps(sorted(CASES))}
    save_file({k: v.contiguous() for k, v in results.items()}, out, metadata=metadata)


if __name__ == "__main__":
    main()
