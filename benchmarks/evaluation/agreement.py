"""Whether lm-eval scores our engine's answers as it scores those of its own `hf` model.

    python benchmarks/evaluation/agreement.py runs/smollm2/instruct
    .venv-vllm/bin/python benchmarks/evaluation/agreement.py runs/smollm2/instruct --backend vllm

In float32, with and without the chat template: a task of free answers with a stop text and a
filter, tasks of the shapes of MMLU, HellaSwag, ARC and LAMBADA, and a text that is read. Every
question's answer and scores are compared. For a real small model see
`examples/smollm2/prepare.py`.
"""

import argparse
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import lm_eval
import torch
import yaml
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from mergefront.objectives.evaluation import Backend, Models
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
from mergefront.objectives.evaluation.backends.vllm_backend import VllmBackend
from mergefront.objectives.evaluation.backends.vllm_memory import EngineSettings
from mergefront.objectives.evaluation.tasks.lm_eval import HarnessLM
from mergefront.objectives.merging import MergeSettings

_CONTINENTS = {
    "France": "Europe",
    "Japan": "Asia",
    "Egypt": "Africa",
    "Peru": "South America",
    "Kenya": "Africa",
    "Norway": "Europe",
    "Cuba": "North America",
    "India": "Asia",
}
_ASKED = (
    "In which continent is {}?",
    "Name the continent of {} and say one thing about it.",
    "Is {} in Europe?",
    "What do you know about {}?",
)
_BATCH = 8
_LETTERS = ["A", "B", "C", "D"]
# Likelihoods are sums of rounded numbers, in batches of other shapes.
_CLOSE = 1e-3
_ACC = {"metric": "acc", "aggregation": "mean", "higher_is_better": True}
_NORM = {**_ACC, "metric": "acc_norm"}
_CHOICES = "\n".join(f"{letter}. {{{{choices[{i}]}}}}" for i, letter in enumerate(_LETTERS))
# What `_common` lacks, by the benchmark whose shape it is.
SHAPES: dict[str, dict[str, Any]] = {
    "free answers": {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n\n"], "do_sample": False, "max_gen_toks": 48},
        "filter_list": [
            {
                "name": "find",
                "filter": [
                    {
                        "function": "regex",
                        "regex_pattern": f"({'|'.join(sorted(set(_CONTINENTS.values())))})",
                    },
                    {"function": "take_first"},
                ],
            }
        ],
        "metric_list": [{**_ACC, "metric": "exact_match"}],
    },
    "MMLU": {
        "output_type": "multiple_choice",
        "doc_to_text": f"{{{{question}}}}\n{_CHOICES}\nAnswer:",
        "doc_to_choice": _LETTERS,
        "doc_to_target": "place",
        "metric_list": [_ACC],
    },
    "HellaSwag": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "choices",
        "doc_to_target": "{{place}}",
        "metric_list": [_ACC, _NORM],
    },
    "ARC, 2 examples": {
        "output_type": "multiple_choice",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{place}}",
        "num_fewshot": 2,
        "fewshot_split": "test",
        "metric_list": [_ACC, _NORM],
    },
    "LAMBADA": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{question}} It is in",
        "doc_to_target": "{{answer}}",
        "metric_list": [_ACC],
    },
    "texts": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{question}} {{answer}}.",
        "metric_list": [
            {"metric": "word_perplexity", "aggregation": "weighted_perplexity"},
        ],
    },
}


def main() -> None:
    """Print one row for each way to ask."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--backend", choices=("transformers", "vllm"), default="transformers")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    backend = _backend(arguments.backend)
    backend.load(Models(arguments.model, (arguments.model,), "float32", MergeSettings()))
    ours = HarnessLM(backend, arguments.model)
    own = HFLM(pretrained=str(arguments.model), dtype="float32", batch_size=_BATCH, device="cpu")
    print("| task | chat template | questions | same answers | same scores | means |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, shape in SHAPES.items():
            task = _task(Path(folder), shape)
            for chat in (False, True) if name != "texts" else (False,):
                print(_row(name, chat, *(_samples(model, task, chat) for model in (ours, own))))


def _backend(name: str) -> Backend:
    if name == "transformers":
        return TransformersBackend(_BATCH, device="cpu")
    return VllmBackend(EngineSettings(max_model_len=2048, max_num_seqs=_BATCH))


# By question: what the model answered, and its scores.
Samples = dict[int, tuple[Any, dict[str, Any]]]


def _row(name: str, chat: bool, ours: Samples, own: Samples) -> str:
    answers = sum(_is_same(ours[doc][0], own[doc][0]) for doc in own)
    scores = sum(_is_same(ours[doc][1], own[doc][1]) for doc in own)
    means = [f"{m} {_mean([each[m] for _, each in ours.values()]):.3f}" for m in own[0][1]]
    told = "yes" if chat else "no"
    return f"| {name} | {told} | {len(own)} | {answers} | {scores} | {', '.join(means)} |"


def _mean(scores: list[Any]) -> float:
    """Return a mean; of pairs of log-likelihood and words, the perplexity per word."""
    if isinstance(scores[0], int | float):
        return float(sum(scores) / len(scores))
    totals, words = zip(*scores, strict=True)
    return math.exp(-sum(totals) / sum(words))


def _is_same(one: Any, other: Any) -> bool:
    """Whether two answers or scores are equal; likelihoods, but for their last digits."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_is_same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_is_same, one, other))
    try:
        return abs(float(one) - float(other)) <= _CLOSE * max(1.0, abs(float(other)))
    except (TypeError, ValueError):
        return bool(one == other)


def _task(folder: Path, shape: dict[str, Any]) -> Path:
    names = sorted(set(_CONTINENTS.values()))
    rows = []
    for place, (country, continent) in enumerate(_CONTINENTS.items()):
        others = [name for name in names if name != continent][:3]
        choices = [*others[: place % 4], continent, *others[place % 4 :]]
        own = {"answer": continent, "choices": choices, "place": place % 4}
        rows += [{"question": text.format(country), **own} for text in _ASKED]
    data = folder / "questions.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    common = {
        "task": "continents",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
    }
    path = folder / "continents.yaml"
    path.write_text(yaml.safe_dump({**common, **shape}))
    return path


def _samples(model: Any, task: Path, chat: bool) -> Samples:
    results = lm_eval.simple_evaluate(
        model,
        tasks=[str(task)],
        task_manager=TaskManager(include_defaults=False),
        log_samples=True,
        bootstrap_iters=0,
        apply_chat_template=chat,
        fewshot_as_multiturn=chat,
    )
    return {
        sample["doc_id"]: (sample["resps"], {name: sample[name] for name in sample["metrics"]})
        for sample in results["samples"]["continents"]
    }


if __name__ == "__main__":
    main()
