"""The metrics that specs name."""

import re
from collections.abc import Callable

from .backends.likelihood import Reading, reading_in
from .diagnosis import SIGNS
from .estimators import (
    count_error,
    exponential_error,
    exponentials,
    mean_error,
    no_error,
    percentile_error,
    percentiles,
    ratio_error,
    ratios,
    share_error,
)
from .metrics import Answer, Metric

# `kl/base`, `kl/expert` and, with several experts, `kl/expert@2`.
_DIVERGENCE = re.compile(r"kl/(?:base|expert(?:@([1-9]\d*))?)")


def _tokens_percentile(percent: int) -> Metric:
    share = percent / 100
    return Metric(
        name=f"tokens_p{percent}",
        direction="minimize",
        unit=f"generated tokens that {percent} % of the answers keep to",
        per_answer=lambda answer: float(answer.n_tokens),
        standard_error=percentile_error(share),
        statistic=percentiles(share),
    )


def _share_with(sign: str, unit: str) -> Metric:
    return Metric(
        name=sign,
        direction="minimize",
        unit=unit,
        per_answer=lambda answer: float(sign in answer.signs),
        standard_error=share_error,
    )


def _per_token(number: Callable[[Reading], float]) -> Callable[[Answer], tuple[float, float]]:
    def per_answer(answer: Answer) -> tuple[float, float]:
        reading = reading_in(answer.text)
        return number(reading), float(reading.n_tokens)

    return per_answer


def _divergence(name: str, parent: int) -> Metric:
    """Return the mean over a text's tokens of `KL(parent || model)`.

    This direction, not its reverse, is what forgetting is measured by (Heretic, llama.cpp, RL's
    Razor): it is large where the parent would write something that the model no longer would.
    """
    return Metric(
        name=name,
        direction="minimize",
        unit=f"mean nats per token from {name.removeprefix('kl/')}",
        per_answer=_per_token(lambda reading: reading.divergences[parent]),
        standard_error=ratio_error,
        statistic=ratios,
        kinds=("read",),
        parent=parent,
    )


METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            name="accuracy",
            direction="maximize",
            unit="share of questions",
            per_answer=lambda answer: answer.score,
            standard_error=share_error,
            normalized=True,
            kinds=("generated", "compared"),
        ),
        Metric(
            name="tokens",
            direction="minimize",
            unit="mean generated tokens per answer",
            per_answer=lambda answer: float(answer.n_tokens),
            standard_error=count_error,
        ),
        Metric(
            name="think_tokens",
            direction="minimize",
            unit="mean tokens of reasoning per answer",
            per_answer=lambda answer: float(answer.n_think_tokens),
            standard_error=count_error,
        ),
        *(_tokens_percentile(percent) for percent in (50, 90, 95, 99)),
        Metric(
            name="truncation",
            direction="minimize",
            unit="share of answers cut at the limit",
            per_answer=lambda answer: float(answer.finish_reason == "length"),
            standard_error=share_error,
        ),
        *(_share_with(sign, unit) for sign, unit in SIGNS.items()),
        Metric(
            name="latency",
            direction="minimize",
            unit="mean seconds per answer",
            per_answer=lambda answer: answer.seconds,
            standard_error=mean_error,
        ),
        Metric(
            name="throughput",
            direction="maximize",
            unit="mean tokens per second of an answer",
            per_answer=lambda answer: answer.n_tokens / answer.seconds if answer.seconds else 0.0,
            standard_error=mean_error,
        ),
        Metric(
            name="memory",
            direction="minimize",
            unit="bytes of all weights as served",
            per_answer=lambda answer: float(answer.model_bytes),
            standard_error=no_error,
            kinds=("generated", "compared", "read"),
        ),
        _divergence("kl/base", 0),
        _divergence("kl/expert", 1),
        Metric(
            name="perplexity",
            direction="minimize",
            unit="perplexity per token",
            per_answer=_per_token(lambda reading: -reading.total),
            standard_error=exponential_error,
            statistic=exponentials,
            kinds=("read",),
        ),
    )
}


def split_name(name: str) -> tuple[str, str | None]:
    """Return the metric's name and the task's in an objective's: `metric` or `metric/task`."""
    parts = name.split("/")
    n = 2 if parts[0] == "kl" else 1
    return "/".join(parts[:n]), "/".join(parts[n:]) or None


def metric_of(name: str) -> Metric:
    """Return the metric of an objective's name, `metric` or `metric/task`.

    Raises:
        KeyError: If there is none.
    """
    metric, _ = split_name(name)
    found = _DIVERGENCE.fullmatch(metric)
    if metric in METRICS or found is None:
        return METRICS[metric]
    return _divergence(metric, int(found[1]))
