"""Whether an exported model gives the answers that were measured, without anything of ours.

    mergefront export SPEC --trial N --out runs/smollm2/merged
    mergefront answers SPEC --trials N --limit 1000 --format json > runs/smollm2/measured.json
    python benchmarks/smollm2/exported.py runs/smollm2/merged runs/smollm2/measured.json

`--engine vllm`, in an environment with vLLM, asks that engine.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

MOST = 80  # evaluation.max_new_tokens of the study
_BATCH = 32


def with_transformers(model_path: Path, questions: list[str]) -> list[str]:
    """Return greedy answers by plain `generate`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(model_path, padding_side="left")
    tokenizer.pad_token = tokenizer.eos_token
    model: Any = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    answers: list[str] = []
    for start in range(0, len(questions), _BATCH):
        dialogues = [[{"role": "user", "content": q}] for q in questions[start : start + _BATCH]]
        inputs: Any = tokenizer.apply_chat_template(
            dialogues,
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
        )
        ids = model.generate(
            **inputs, max_new_tokens=MOST, do_sample=False, pad_token_id=tokenizer.pad_token_id
        )
        new = ids[:, inputs["input_ids"].shape[1] :]
        answers += tokenizer.batch_decode(new, skip_special_tokens=True)
    return answers


def with_vllm(model_path: Path, questions: list[str]) -> list[str]:
    """Return vLLM's greedy answers."""
    from vllm import LLM, SamplingParams

    # On a CPU it would take nearly all memory, and give up where others use some of it.
    options = {"max_model_len": 256, "gpu_memory_utilization": 0.3}
    engine = LLM(str(model_path), dtype="float32", enforce_eager=True, **options)
    sampling = SamplingParams(temperature=0, max_tokens=MOST)
    dialogues: Any = [[{"role": "user", "content": question}] for question in questions]
    return [output.outputs[0].text for output in engine.chat(dialogues, sampling)]


def main() -> None:
    """Answer the questions of a trial again; fail where an answer differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("measured", type=Path)
    parser.add_argument("--engine", choices=("transformers", "vllm"), default="transformers")
    arguments = parser.parse_args()
    measured = json.loads(arguments.measured.read_text())
    (number,) = measured["trials"]
    rows = measured["questions"]
    expected = [row["answers"][str(number)][0]["text"] for row in rows]
    ask = with_vllm if arguments.engine == "vllm" else with_transformers
    started = time.perf_counter()
    answers = ask(arguments.model, [row["question"] for row in rows])
    seconds = time.perf_counter() - started
    differing = [i for i, text in enumerate(answers) if text.strip() != expected[i].strip()]
    same = len(rows) - len(differing)
    print(f"{arguments.engine}: {same} of {len(rows)} answers are the same, {seconds:.0f} s")
    for i in differing[:5]:
        print(f"{rows[i]['question']}\n  measured {expected[i]!r}\n  now      {answers[i]!r}")
    raise SystemExit(bool(differing))


if __name__ == "__main__":
    main()
