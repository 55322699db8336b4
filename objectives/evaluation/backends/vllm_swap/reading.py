"""How vLLM's model reads texts, and how far it is from its parents, which read them too."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .....errors import EvaluationError
from ..likelihood import Likelihood, Reading, Window
from .engine import Engine

# Logits of parents that are kept at once, in the host's memory.
_MOST_LOGITS = 1 << 30
# Of fewer tokens vLLM makes one row alone, as of a word that it draws.
_FEWEST_TOKENS = 3
# Nats a token by which two sums of the same logarithms may differ.
_ROUNDING = 1e-3


def settings_to_read() -> Any:
    """Return vLLM's settings for a prompt whose tokens' probabilities are wanted."""
    from vllm import SamplingParams

    # 0: of the prompt's own tokens, with their ranks.
    return SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)


def likelihood_in(window: Window, output: Any) -> Likelihood:
    """Return a window's likelihood from what vLLM says of each token of a prompt."""
    places = range(len(window.ids) - window.n, len(window.ids))
    found = [output.prompt_logprobs[place][window.ids[place]] for place in places]
    total = sum(float(entry.logprob) for entry in found)
    return Likelihood(total, all(entry.rank == 1 for entry in found), window.n)


def readings(
    engine: Engine,
    asked: Sequence[Window],
    parents: Sequence[int],
    become: Callable[[int | None], None],
    likelihood: Callable[[Window], Likelihood],
) -> Iterator[tuple[Window, Reading]]:
    """Yield how the model reads every window, and how far it is from parents.

    For each batch every parent is swapped in and reads it, then the candidate again: no
    distribution is kept for the next candidate.

    Args:
        engine: Running.
        asked: Windows.
        parents: 0 for the base, 1 for the first expert.
        become: Swaps a parent in, or for None the candidate.
        likelihood: Has the engine read a window.

    Raises:
        EvaluationError: If the distributions that were heard are not those that vLLM uses.
    """
    engine.call("mergefront_listen")
    try:
        yield from _in_batches(engine, asked, parents, become, likelihood)
    except EvaluationError:  # after any other error the engine is ended, with all that it hears
        engine.call("mergefront_stop_listening")
        raise
    engine.call("mergefront_stop_listening")


def _in_batches(
    engine: Engine,
    asked: Sequence[Window],
    parents: Sequence[int],
    become: Callable[[int | None], None],
    likelihood: Callable[[Window], Likelihood],
) -> Iterator[tuple[Window, Reading]]:
    """Yield the readings of every window, by an engine that is listened to."""
    for batch in _batches(asked, len(parents) * engine.n_words):
        engine.call("mergefront_listener", "forget")
        for parent in parents:
            become(parent)
            for place, window in enumerate(batch):
                likelihood(window)
                engine.call("mergefront_listener", "keep", parent, place, *_told(window))
        become(None)
        for place, window in enumerate(batch):
            own = likelihood(window).total
            heard = engine.call("mergefront_listener", "compare", place, *_told(window))
            yield window, _reading(window, parents, own, heard)


def padded(window: Window) -> tuple[int, ...]:
    """Return what is read for a window: and tokens behind it, which change nothing before."""
    missing = _FEWEST_TOKENS - len(window.ids)
    return window.ids + window.ids[-1:] * missing


def _batches(asked: Sequence[Window], n_numbers: int) -> Iterator[Sequence[Window]]:
    """Yield windows that are compared together.

    Args:
        asked: Windows.
        n_numbers: Logits of parents for each of their tokens.
    """
    batch: list[Window] = []
    for window in asked:
        if batch and (sum(each.n for each in batch) + window.n) * n_numbers > _MOST_LOGITS:
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch


def _told(window: Window) -> tuple[list[int], int]:
    return list(window.ids), window.n


def _reading(
    window: Window,
    parents: Sequence[int],
    expected: float,
    heard: Sequence[tuple[float, dict[int, float]]],
) -> Reading:
    """Return a reading from what the ranks heard; one of them is enough."""
    total, far = next((each for each in heard if each[1]), (0.0, {}))
    if set(far) != set(parents) or abs(total - expected) > _ROUNDING * max(window.n, -expected):
        raise EvaluationError(
            "A divergence needs the distributions that vLLM uses, but those that this model's "
            f"`compute_logits` gave make a text {total:.4f} nats likely, and vLLM says "
            f"{expected:.4f}. Use `backend: transformers`, or `perplexity`."
        )
    return Reading(total, window.n, far)
