"""Exported models of every precision, answered by vLLM from their own files.

    PYTHONPATH=src .venv-vllm/bin/python benchmarks/precision/served.py

Each answers demo questions greedily, and is compared with what was measured: the merge that was
rounded in the memory of transformers. vLLM's kernels for few bits sum up in another order, so that
a few answers may differ.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mergefront.examples.demo import BASE, EXPERT, QUESTIONS
from mergefront.objectives.evaluation import Sampling
from mergefront.objectives.evaluation.backends.chat import Chat
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
from mergefront.objectives.merging import parse_weights
from mergefront.study import StudySpec
from mergefront.study.results.export import merge_weights
from mergefront.study.spec.inputs import StudyInputs

# As merge.precision takes them; the last ones have layers of two kinds.
PRECISIONS = {name: name for name in ("bfloat16", "fp8", "int8", "int4")}
MIXED = {"bfloat16/int4": ("bfloat16", "int4"), "int8/int4": ("int8", "int4")}
WEIGHT, N_QUESTIONS, N_TOKENS, LONGEST = 0.7, 128, 64, 128
_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}


def main() -> None:
    """Print how many answers are equal, or why vLLM does not load the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/precision/served"))
    parser.add_argument("--answer", type=Path, help="A folder of `--out`: answer with vLLM.")
    arguments = parser.parse_args()
    if arguments.answer:
        print(json.dumps(_answered(arguments.answer)))
        return
    print("| precision | answers of vLLM that are those measured |")
    print("|---|---|")
    for name in (*PRECISIONS, *MIXED):
        folder = arguments.out / name.replace("/", "-")
        if not folder.exists():
            _measure(name, folder)
        print(f"| {name} | {_compared(folder)} |", flush=True)


def _inputs(name: str) -> StudyInputs:
    mixed = name in MIXED
    choice = {"choose": list(MIXED[name]), "groups": 2} if mixed else PRECISIONS[name]
    content = {
        "study": {"name": "served", "storage": "sqlite:///served.db", "trials": 2},
        "models": {"base": str(BASE), "experts": [str(EXPERT)]},
        "merge": {"precision": choice},
        "objectives": [{"metric": "accuracy"}],
        "evaluation": {
            "tasks": [{"name": "demo", "files": {"search": str(QUESTIONS / "validation.jsonl")}}]
        },
    }
    return StudyInputs.of(StudySpec.parse(content, Path.cwd()))


def _measure(name: str, folder: Path) -> None:
    """Export a uniform merge; keep the questions' tokens and what it answers in place."""
    inputs = _inputs(name)
    weights: dict[str, float | str] = {"uniform": WEIGHT}
    if name in MIXED:
        weights |= {f"precision_{k}": each for k, each in enumerate(MIXED[name])}
    merge_weights(inputs, weights, folder)
    backend = TransformersBackend(N_QUESTIONS, "cpu")
    backend.load(inputs.models)
    backend.apply(parse_weights(inputs.plan, weights))
    prompts = [q.prompt for q in inputs.tasks[0].splits["search"][:N_QUESTIONS]]
    answers = backend.generate(prompts, Sampling(N_TOKENS))
    chat = Chat.of(inputs.models)
    content = {
        "prompts": [chat.render(prompt, True) for prompt in prompts],
        "answers": [answer.text for answer in answers],
        "stop": sorted(chat.stop_tokens),
    }
    (folder / "measured.json").write_text(json.dumps(content))


def _compared(folder: Path) -> str:
    """Ask vLLM in a process of its own, and compare."""
    command = [sys.executable, __file__, "--answer", str(folder)]
    environment = {**os.environ, **_ENVIRONMENT}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "Error" in line]
        return f"not loaded: {lines[-1].split('Error: ')[-1] if lines else done.stderr[-200:]}"
    found: Sequence[str] = json.loads(done.stdout.splitlines()[-1])
    measured = json.loads((folder / "measured.json").read_text())["answers"]
    same = sum(a == b for a, b in zip(found, measured, strict=True))
    return f"{same} of {len(measured)}"


def _answered(folder: Path) -> list[str]:
    from vllm import LLM, SamplingParams

    asked = json.loads((folder / "measured.json").read_text())
    engine = LLM(str(folder), dtype="bfloat16", max_model_len=LONGEST, enforce_eager=True)
    how = SamplingParams(
        temperature=0.0,
        max_tokens=N_TOKENS,
        stop_token_ids=asked["stop"],
        skip_special_tokens=False,
    )
    prompts = [{"prompt_token_ids": ids} for ids in asked["prompts"]]
    return [output.outputs[0].text for output in engine.generate(prompts, how, use_tqdm=False)]


if __name__ == "__main__":
    main()
