"""Where an answer's reasoning ends and its final answer begins.

Reasoning is opened by the model itself, by the chat template, or by nobody: an expert whose own
template opens it goes on reasoning under a base's template that does not. `Reasoning` says which
of the three a candidate's answer is; `final_answer` in `backend` is the one function that all
scorers, the harness and the count of reasoning tokens ask for what counts.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# What opens and what closes reasoning.
Markers = tuple[str, str]
# What models are known to write. All are looked for in any answer: none occurs by chance.
MARKERS: tuple[Markers, ...] = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),  # Mistral
    ("<seed:think>", "</seed:think>"),
    ("<|channel|>analysis", "<|channel|>final<|message|>"),  # gpt-oss
    ("<|channel>thought", "<channel|>"),  # Gemma 4
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Cohere
    ("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<longcat_think>", "</longcat_think>"),
    ("◁think▷", "◁/think▷"),  # Kimi
)
Unmarked = Literal["auto", "reasoning", "answer"]
Opening = Literal["open", "closed", "none"]


@dataclass(frozen=True)
class Reasoning:
    """How reasoning is told from the final answer.

    Args:
        markers: What opens and closes it.
        unmarked: What an answer is that was cut at the limit, if neither the prompt nor the answer
            has a marker: `reasoning`, which has no final answer, or `answer`, which is scored as
            it is. `auto`: reasoning, if the chat template of any parent has a marker.
    """

    markers: tuple[Markers, ...] = MARKERS
    unmarked: Unmarked = "auto"

    def cut_is_reasoning(self, parents: Iterable[Path]) -> bool:
        """Whether a cut answer without a marker is reasoning, for these parents' directories."""
        if self.unmarked != "auto":
            return self.unmarked == "reasoning"
        flat = [marker for pair in self.markers for marker in pair]
        return any(marker in template_of(parent) for parent in parents for marker in flat)


def answer_start(text: str, markers: Sequence[Markers]) -> int | None:
    """Return where the final answer begins in a text: behind the last marker that closes.

    Returns:
        0 if there is no marker; None if reasoning was opened and not closed.
    """
    opened, closed = last_markers(text, markers)
    return None if opened > closed else max(closed, 0)


def last_markers(text: str, markers: Sequence[Markers]) -> tuple[int, int]:
    """Return the ends of the last marker that opens and of the last that closes; -1 if none."""
    return _last_end(text, [m for m, _ in markers]), _last_end(text, [m for _, m in markers])


def _last_end(text: str, markers: Sequence[str]) -> int:
    return max((text.rfind(m) + len(m) for m in markers if m in text), default=-1)


def opening_of(prompt: str, markers: Sequence[Markers], tail: str = "") -> Opening:
    """Return whether a prompt leaves reasoning open.

    A marker within a message does not count: behind one that does there are white space and what
    the template itself goes on with, and nothing else.

    Args:
        prompt: Its end, at least.
        markers: What opens and closes reasoning.
        tail: What the chat template writes behind the last message.
    """
    place = max(last_markers(prompt, markers))
    behind = prompt[place:].strip()
    own = tail[max(0, *last_markers(tail, markers)) :].strip()
    if place < 0 or behind not in ("", own):
        return "none"
    return "open" if answer_start(prompt, markers) is None else "closed"


def template_of(directory: Path) -> str:
    """Return the source of a model's chat templates, all that there are; "" if it has none."""
    found = [path.read_text("utf-8", "replace") for path in sorted(directory.glob("**/*.jinja"))]
    for name in ("tokenizer_config.json", "chat_template.json"):
        try:
            known = json.loads((directory / name).read_text("utf-8-sig"))
            found.append(json.dumps(known.get("chat_template") or "", ensure_ascii=False))
        except (OSError, ValueError, AttributeError):
            continue  # checked where the tokenizer is opened
    return "\n".join(found)
