"""Whether lm-eval scores our engine's answers as it scores those of its own `hf` model.

    python benchmarks/evaluation/agreement.py runs/smollm2

One task of free answers with a stop text and a filter, in float32, with and without the chat
template; every question's answer and score are compared. For a real small model see
`small_model.py`.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import lm_eval
import torch
import yaml
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from mergefront.objectives.evaluation import Models
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
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


def main() -> None:
    """Print one row for each way to ask."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    backend = TransformersBackend(_BATCH, device="cpu")
    backend.load(Models(arguments.model, (), "float32", MergeSettings(n_experts=0)))
    ours = HarnessLM(backend, arguments.model)
    own = HFLM(pretrained=str(arguments.model), dtype="float32", batch_size=_BATCH, device="cpu")
    print("| chat template | questions | same answers | same scores | mean score |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        task = _task(Path(folder))
        for chat in (False, True):
            a, b = _samples(ours, task, chat), _samples(own, task, chat)
            same = [sum(a[doc][k] == b[doc][k] for doc in a) for k in (0, 1)]
            mean = sum(score for _, score in a.values()) / len(a)
            print(f"| {'yes' if chat else 'no'} | {len(a)} | {same[0]} | {same[1]} | {mean:.3f} |")


def _task(folder: Path) -> Path:
    rows = [
        {"question": text.format(country), "answer": continent}
        for country, continent in _CONTINENTS.items()
        for text in _ASKED
    ]
    data = folder / "questions.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    continents = "|".join(sorted(set(_CONTINENTS.values())))
    find = {"function": "regex", "regex_pattern": f"({continents})"}
    config = {
        "task": "continents",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "output_type": "generate_until",
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n\n"], "do_sample": False, "max_gen_toks": 48},
        "filter_list": [{"name": "find", "filter": [find, {"function": "take_first"}]}],
        "metric_list": [
            {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}
        ],
    }
    path = folder / "continents.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def _samples(model: Any, task: Path, chat: bool) -> dict[int, tuple[Any, float]]:
    results = lm_eval.simple_evaluate(
        model,
        tasks=[str(task)],
        task_manager=TaskManager(include_defaults=False),
        log_samples=True,
        bootstrap_iters=0,
        apply_chat_template=chat,
    )
    samples = results["samples"]["continents"]
    return {sample["doc_id"]: (sample["resps"], sample["exact_match"]) for sample in samples}


if __name__ == "__main__":
    main()
