"""How questions are put and answers drawn: the spec's keys, and what parents recommend."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, ValidationError, model_validator

from ...errors import SpecError
from ...objectives.checkpoints.text_files import read_json
from ...objectives.evaluation import ChatSettings, Sampling
from ...objectives.evaluation.tasks import JUDGE_PROMPT
from .base import Fraction, Section
from .mistakes import rule_of

_FILE = "generation_config.json"
# What says nothing where the most probable token is taken.
_IDLE = ("top_p", "top_k", "min_p", "repeats")
_DRAWING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


class ChatSection(Section):
    """What the chat template is given beside each question.

    Args:
        system: A system message. Defaults to None: there is none.
        kwargs: Variables of the template, e.g. `{enable_thinking: false}`.
        template: Whose template: another way to write `models.chat_template`.
    """

    system: str | None = None
    kwargs: dict[str, Any] = Field(default_factory=dict)
    template: Annotated[str, Field(min_length=1)] | None = None

    @property
    def settings(self) -> ChatSettings:
        """Return what a backend needs."""
        return ChatSettings(self.system, self.kwargs)


class JudgeSection(Section):
    """How the base judges answers (`scorer: judge`).

    Args:
        prompt: Template of its question; `{question}`, `{reference}` and `{response}` insert what
            was asked, the reference and the final answer, other names fields of the line.
        max_new_tokens: Longest reply.
    """

    prompt: str = JUDGE_PROMPT
    max_new_tokens: int = Field(default=256, ge=1)


class SamplingSection(Section):
    """How answers are drawn; what is not given is greedy, once.

    Args:
        temperature: 0 takes the most probable token.
        top_p: Tokens are drawn from the most probable ones that together have this probability.
        top_k: Tokens are drawn from so many; 0 for all.
        min_p: Tokens are drawn from those at least this times as probable as the most probable.
        repetition_penalty: 1 changes nothing.
        repeats: Answers to each question.
        seed: Of the draws. Defaults to None: the study's.
        from_: Whose `generation_config.json` says what is not given: `base`, `expert` (the
            first), or `generation_config` for the first parent that recommends sampling.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)

    temperature: float | None = Field(default=None, ge=0, le=10)
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: int | None = Field(default=None, ge=0)
    min_p: Fraction | None = None
    repetition_penalty: float | None = Field(default=None, gt=0)
    repeats: int | None = Field(default=None, ge=1)
    seed: int | None = Field(default=None, ge=0)
    from_: Literal["generation_config", "base", "expert"] | None = Field(
        default=None, alias="from"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        drawn = [n for n in ("top_p", "top_k", "min_p") if getattr(self, n) is not None]
        drawn += ["repeats"] if (self.repeats or 1) > 1 else []
        if drawn and self.temperature == 0:
            raise ValueError(
                f"with temperature 0 all answers to a question are one, so {drawn[0]} says "
                "nothing; give a temperature above 0"
            )
        return self

    @property
    def given(self) -> dict[str, Any]:
        """Return what it says."""
        content = self.model_dump(exclude_none=True)
        content.pop("from", None)
        return content

    def on(self, default: Sampling) -> Sampling:
        """Return a sampling with what is given changed.

        Raises:
            SpecError: If it draws nothing and wants several answers, or how to draw them.
        """
        sampling, usual = replace(default, **self.given), Sampling(1)
        if sampling.is_random:
            return sampling
        asked = ("top_p", "top_k", "min_p", "repeats")
        idle = [n for n in asked if n in self.given and self.given[n] != getattr(usual, n)]
        if idle and self.temperature is None:
            raise SpecError(
                f"evaluation.sampling.{idle[0]} needs a temperature above 0: greedy answers to a "
                "question are all one. Add `temperature`, or `from: generation_config`."
            )
        return replace(sampling, seed=usual.seed, **{n: getattr(usual, n) for n in _IDLE})


@dataclass(frozen=True)
class Parent:
    """A model, as far as its recommendation goes.

    Args:
        label: `base`, `expert`, `expert 2`.
        directory: Of its files.
    """

    label: str
    directory: Path

    @property
    def recommended(self) -> dict[str, float]:
        """Return how its `generation_config.json` wants tokens to be drawn; empty for greedily."""
        try:
            content = json.loads((self.directory / _FILE).read_text(encoding="utf-8-sig"))
        except (OSError, ValueError):
            return {}
        given = {n: content[n] for n in _DRAWING if _is_number(content.get(n))}
        asks = content.get("do_sample", given.get("temperature", 0) > 0)
        if not asks or given.get("temperature") == 0:
            return {}
        return {"temperature": 1.0, **given}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def parents(base: Path, experts: Sequence[Path]) -> list[Parent]:
    """Return the models in order, the base first."""
    labels = ["expert"] if len(experts) == 1 else [f"expert {k + 1}" for k in range(len(experts))]
    return [Parent("base", base), *map(Parent, labels, experts)]


def resolved(
    section: SamplingSection | None, models: Sequence[Parent], max_new_tokens: int, seed: int
) -> tuple[Sampling, str | None]:
    """Return how the study's answers are drawn, and the parent that it was taken from.

    Raises:
        SpecError: If a recommendation is asked for and there is none.
    """
    if section is None:
        return Sampling(max_new_tokens), None
    parent = _adviser(section, models)
    advice: Mapping[str, Any] = {} if parent is None else parent.recommended
    start = replace(Sampling(max_new_tokens, seed=seed), **advice)
    return section.on(start), None if parent is None else parent.label


def _adviser(section: SamplingSection, models: Sequence[Parent]) -> Parent | None:
    if section.from_ is None:
        return None
    asked = {"base": models[:1], "expert": models[1:2]}.get(section.from_, models)
    for parent in asked:
        if parent.recommended:
            _check_advice(parent)
            return parent
    names = " nor ".join(str(parent.directory / _FILE) for parent in asked)
    none = f"neither {names} does" if len(asked) > 1 else f"{names} does not"
    raise SpecError(
        f"evaluation.sampling.from: {section.from_} needs a parent that recommends sampling, but "
        f"{none}. Give `temperature` instead."
    )


def _check_advice(parent: Parent) -> None:
    """Check that a recommendation could be a spec's own.

    Raises:
        SpecError: With the key that could not.
    """
    content = read_json(parent.directory / _FILE)
    try:
        SamplingSection.model_validate({name: content.get(name) for name in _DRAWING})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = first["loc"][0] if first["loc"] else "temperature"
        raise SpecError(
            f"evaluation.sampling.from: {key} is {content.get(str(key))!r:.40} in "
            f"{parent.directory / _FILE}, but {rule_of(first)}. Correct it there, or give the "
            "keys of evaluation.sampling yourself."
        ) from error


def shown(sampling: Sampling, adviser: str | None = None) -> str:
    """Return how answers are drawn, for readers."""
    drawing = ", ".join(f"{k} {v:g}" for k, v in sampling.drawing.items())
    if not sampling.is_random:
        return f"greedy, once{', ' + drawing if drawing else ''}"
    origin = f" (from the {adviser}'s {_FILE})" if adviser else ""
    answers = "1 answer" if sampling.repeats == 1 else f"{sampling.repeats} answers"
    return f"{drawing}{origin}; {answers} a question, seed {sampling.seed}"


def greedy_warning(sampling: Sampling, models: Sequence[Parent]) -> str | None:
    """Return a warning if answers are greedy and a parent recommends otherwise."""
    if sampling.is_random:
        return None
    for parent in models:
        if parent.recommended:
            advice = ", ".join(f"{k} {v:g}" for k, v in parent.recommended.items())
            return (
                f"answers are greedy, but the {parent.label}'s {_FILE} asks for sampling "
                f"({advice}): reasoning models may repeat themselves up to the limit when decoded "
                "greedily, which distorts tokens and accuracy. Consider `evaluation.sampling: "
                "{from: generation_config, repeats: 4}`."
            )
    return None
