"""Questions answered per second: ours, plain `model.generate` batches, lm-eval's `hf` model.

    make bench-evaluation                      # the demo pair
    make bench-evaluation MODEL=runs/smollm2/instruct   # and a real small model, of `make smollm2`

All three answer the same prompts greedily with the same weights and batch size, in one process
and on one thread; rounds alternate between them. Answers are compared: in float32 they are to be
the same. The demo pair's merges give answers of very different lengths at some weights and of
similar ones at others; the real model is asked for single words, and now and then for a story.
"""

import argparse
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from mergefront.examples.demo import BASE, EXPERT, QUESTIONS
from mergefront.objectives.evaluation import Completion, Models, Sampling
from mergefront.objectives.evaluation.backends.chat import Chat
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
from mergefront.objectives.evaluation.tasks import TaskSource, load_task
from mergefront.objectives.evaluation.tasks.harness_lm import harness_text
from mergefront.objectives.merging import MergeSettings

Method = Callable[[], list[str]]
_WORDS = ("France", "Italy", "Japan", "Egypt", "Peru", "Kenya", "Norway", "Cuba")


@dataclass(frozen=True)
class Work:
    """What is to be answered.

    Args:
        backend: Ours, with the weights in place.
        base: Directory of tokenizer and chat template.
        texts: Complete prompts.
        sampling: How they are answered.
    """

    backend: TransformersBackend
    base: Path
    texts: list[str]
    sampling: Sampling


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a real small model's directory")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "| answers | tokens: mean, longest | ours, questions/s | generate | lm-eval | ours to "
        "generate | ours to lm-eval | same answers |\n|---|---|---|---|---|---|---|---|"
    )
    demo = TransformersBackend(32, device="cpu")
    demo.load(Models(BASE, (EXPERT,), "float32"))
    task = load_task(TaskSource("demo", {"search": QUESTIONS / "search.jsonl"}))
    prompts = [question.prompt for question in task.splits["search"]]
    for weight in (0.2, 0.25, 0.3, 0.5, 1.0):
        demo.apply(demo.plan.group_weights(demo.plan.uniform(weight)))
        work = Work(demo, BASE, _rendered(BASE, prompts), Sampling(64, chat=False))
        _compare(f"demo pair, weight {weight:g}", work, arguments.rounds)
    if arguments.model:
        real = TransformersBackend(16, device="cpu")
        real.load(Models(arguments.model, (), "bfloat16", MergeSettings(n_experts=0)))
        texts = _rendered(arguments.model, _questions())
        work = Work(real, arguments.model, texts, Sampling(256, chat=False))
        _compare("real model, bfloat16", work, max(2, arguments.rounds // 2))


def _rendered(base: Path, prompts: Sequence[str]) -> list[str]:
    chat = Chat(base)
    return [chat.conversation([{"role": "user", "content": prompt}]) for prompt in prompts]


def _questions() -> list[str]:
    """Return 64 questions, one in eight of which wants a long answer, whatever its length."""
    short = (
        "In which continent is {}? One word.",
        "Please answer in one single word and nothing else: in which continent is {}?",
    )
    long = (
        "Tell me a story about {}, a long one.",
        "Please tell me a very long story with every detail about a child in {}.",
    )
    asked = []
    for i in range(64):
        country, kind = _WORDS[i // 8], long if i % 8 == 0 else short
        asked.append(kind[(i // 8 + i) % 2].format(country))
    random.Random(0).shuffle(asked)
    return asked


def _compare(name: str, work: Work, rounds: int) -> None:
    lengths: list[int] = []
    methods: list[Method] = [
        lambda: _ours(work, lengths),
        lambda: _plain(work),
        _harness(work),
    ]
    texts = [method() for method in methods]  # also warms them up
    del lengths[len(work.texts) :]
    same = [fmean(a == b for a, b in zip(texts[0], other, strict=True)) for other in texts[1:]]
    seconds = [[_seconds(method) for method in methods] for _ in range(rounds)]
    speeds = [[len(work.texts) / s for s in column] for column in zip(*seconds, strict=True)]
    ratios = [[row[k] / row[0] for row in seconds] for k in (1, 2)]
    figures = [_mean(column, 1) for column in speeds] + [_mean(column, 1) for column in ratios]
    shown = f"{fmean(lengths):.1f}, {max(lengths)}"
    agreement = " and ".join(f"{100 * share:.0f} %" for share in same)
    print(f"| {name} | {shown} | {' | '.join(figures)} | {agreement} |", flush=True)


def _ours(work: Work, lengths: list[int]) -> list[str]:
    answers: list[Completion] = work.backend.generate(work.texts, work.sampling)
    lengths += [answer.n_tokens for answer in answers]
    chat = work.backend._chat
    return [harness_text(answer, work.sampling, chat, reasoning=True) for answer in answers]


def _plain(work: Work) -> list[str]:
    """Answer in batches in the order of the questions, as a first script would."""
    tokenizer, model = work.backend._chat.tokenizer, work.backend._model
    texts: list[str] = []
    for start in range(0, len(work.texts), work.backend.batch_size):
        batch = work.texts[start : start + work.backend.batch_size]
        options: dict[str, Any] = {"add_special_tokens": False, "return_tensors": "pt"}
        inputs = tokenizer(batch, padding=True, **options)
        with torch.inference_mode():
            output = model.generate(
                input_ids=inputs.input_ids,
                attention_mask=inputs.attention_mask,
                max_new_tokens=work.sampling.max_new_tokens,
            )
        texts += tokenizer.batch_decode(
            output[:, inputs.input_ids.shape[1] :], skip_special_tokens=True
        )
    return texts


def _harness(work: Work) -> Method:
    """Return lm-eval's own model over the same weights."""
    model = HFLM(
        pretrained=work.backend._model,
        tokenizer=str(work.base),
        batch_size=work.backend.batch_size,
        device="cpu",
    )
    settings = {"until": [], "max_gen_toks": work.sampling.max_new_tokens, "do_sample": False}

    def answer() -> list[str]:
        requests = [
            Instance("generate_until", {}, (text, dict(settings)), index)
            for index, text in enumerate(work.texts)
        ]
        texts: list[str] = model.generate_until(requests, disable_tqdm=True)
        return texts

    return answer


def _seconds(method: Method) -> float:
    start = time.perf_counter()
    method()
    return time.perf_counter() - start


def _mean(values: Sequence[float], digits: int) -> str:
    error = stdev(values) / len(values) ** 0.5
    return f"{fmean(values):.{digits}f} ± {error:.{digits}f}"


if __name__ == "__main__":
    main()
