"""Functional similarity: what two models do with a few unlabelled prompts.

Cost: one forward pass a prompt and model, nothing generated. Memory: one model at a time, and of
two, for every position compared, the log-probabilities of the vocabulary, a hidden state a layer,
and the attention of every head.
"""

import gc
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..evaluation.backends.chat import Chat
from ..evaluation.backends.loading import default_device, load_expert
from .signals import Pair, Signals

# A message, and whether the chat template is applied.
Prompt = tuple[str, bool]
_QUANTILES = {"q10": 0.1, "median": 0.5, "q90": 0.9}


@dataclass(frozen=True)
class FunctionalSettings:
    """How the models are probed.

    Args:
        dtype: Of the models.
        positions: Of a prompt that are compared: evenly spaced, the last one among them.
    """

    dtype: str = "float32"
    positions: int = 16


@dataclass(frozen=True)
class Seen:
    """What a model did with one prompt at the compared positions.

    Args:
        log_probs: `positions x vocabulary`-dim.
        hidden: `layers x positions x width`-dim.
        attention: `layers x heads x positions x tokens`-dim.
    """

    log_probs: Tensor
    hidden: Tensor
    attention: Tensor


def functional_signals(
    models: Sequence[Path],
    prompts: Sequence[Prompt],
    base: Path | None = None,
    settings: FunctionalSettings | None = None,
) -> dict[Pair, Signals]:
    """Compare what every two models do with the same prompts; `compare` says what is compared.

    Each model is loaded once; what it did is kept in a temporary folder.

    Args:
        models: Their directories; some may be adapters of the base.
        prompts: Messages, each with whether the chat template is applied.
        base: Its tokenizer renders the prompts; defaults to None: the first model.
        settings: Defaults to None: `FunctionalSettings()`.

    Returns:
        The signals of each ordered pair of two models, by their places.
    """
    base, n = base or models[0], len(models)
    found = {}
    with TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i}.safetensors" for i in range(n)]
        for model, file in zip(models, files, strict=True):
            _save(observe(model, base, prompts, settings), file)
            gc.collect()
        for i in range(n):
            first = _load(files[i])
            for j in range(i + 1, n):
                second = _load(files[j])
                found[i, j], found[j, i] = compare(first, second), compare(second, first)
    return found


def observe(
    model: Path,
    base: Path,
    prompts: Sequence[Prompt],
    settings: FunctionalSettings | None = None,
) -> list[Seen]:
    """Return what a model does with each prompt.

    Args:
        model: Its directory; may be an adapter of the base.
        base: Its tokenizer renders the prompts.
        prompts: Messages, each with whether the chat template is applied.
        settings: Defaults to None: `FunctionalSettings()`.
    """
    settings = settings or FunctionalSettings()
    chat = Chat(base)
    loaded = load_expert(model, base, settings.dtype, default_device())
    loaded.set_attn_implementation("eager")  # others do not tell their patterns
    rendered = [chat.render(text, is_chat) for text, is_chat in prompts]
    return [_look(loaded, ids, settings.positions) for ids in rendered]


def _look(model: Any, ids: list[int], positions: int) -> Seen:
    places = torch.linspace(0, len(ids) - 1, min(positions, len(ids))).round().long()
    with torch.inference_mode():
        tokens = torch.tensor([ids], device=model.device)
        output: Any = model(tokens, output_hidden_states=True, output_attentions=True)
    return Seen(
        output.logits[0, places].float().log_softmax(dim=-1).cpu(),
        # The first state is the embeddings', behind no layer.
        torch.stack([state[0, places].float().cpu() for state in output.hidden_states[1:]]),
        torch.stack([weights[0][:, places].float().cpu() for weights in output.attentions]),
    )


def _save(seen: Sequence[Seen], file: Path) -> None:
    named = {f"{i}.{name}": t for i, s in enumerate(seen) for name, t in vars(s).items()}
    save_file({name: tensor.contiguous() for name, tensor in named.items()}, file)


def _load(file: Path) -> list[Seen]:
    named = load_file(file)
    n = len(named) // len(fields(Seen))
    names = [field.name for field in fields(Seen)]
    return [Seen(*(named[f"{i}.{name}"] for name in names)) for i in range(n)]


def compare(first: Sequence[Seen], second: Sequence[Seen]) -> Signals:
    """Compare what two models, `a` and `b`, did with the same prompts.

    Scalars, over all positions of all prompts:

    - `kl.*`, `reverse_kl.*` (at least 0) and `js.*` (in [0, ln 2]): Kullback-Leibler divergences
      `KL(a|b)`, `KL(b|a)` and Jensen-Shannon divergence of the next-token distributions, in nats;
      mean, median, 10 % and 90 % quantile;
    - `top1_agreement` in [0, 1]: how often both would say the same;
    - `last.kl`, `last.reverse_kl`, `last.js`, `last.top1_agreement`: the same, means, at the
      prompts' last positions alone, where the answer begins;
    - `entropy`: of `a` at the last positions, at least 0, mean in nats.

    Profiles, one number per layer:

    - `hidden_cosine` in [-1, 1]: of hidden states behind the layer, mean over positions;
    - `cka` in [0, 1]: linear centred kernel alignment (Kornblith et al. 2019) over positions;
    - `attention_distance` in [0, 1]: total variation between attention patterns, mean over
      heads, positions and prompts.
    """
    pairs = list(zip(first, second, strict=True))
    scalars = _of_distributions([(x.log_probs, y.log_probs) for x, y in pairs])
    scalars |= _at_the_end(
        *(torch.stack([s.log_probs[-1] for s in side]) for side in (first, second))
    )
    of_first, of_second = (torch.cat([s.hidden for s in side], dim=1) for side in (first, second))
    cosine = torch.cosine_similarity(of_first, of_second, dim=2).mean(dim=1)
    attention = [0.5 * (x.attention - y.attention).abs().sum(3).mean((1, 2)) for x, y in pairs]
    return Signals(
        scalars,
        {
            "hidden_cosine": tuple(cosine.tolist()),
            "cka": tuple(_cka(x, y) for x, y in zip(of_first, of_second, strict=True)),
            "attention_distance": tuple(torch.stack(attention).mean(dim=0).tolist()),
        },
    )


def _of_distributions(pairs: Sequence[tuple[Tensor, Tensor]]) -> dict[str, float]:
    rows: dict[str, list[Tensor]] = {"kl": [], "reverse_kl": [], "js": []}
    agree = []
    for p, q in pairs:
        middle = torch.logaddexp(p, q) - torch.log(torch.tensor(2.0))
        rows["kl"].append(_kl(p, q))
        rows["reverse_kl"].append(_kl(q, p))
        rows["js"].append(0.5 * (_kl(p, middle) + _kl(q, middle)))
        agree.append((p.argmax(dim=1) == q.argmax(dim=1)).double())
    scalars = {"top1_agreement": float(torch.cat(agree).mean())}
    for name, parts in rows.items():
        values = torch.cat(parts).double().clamp_min(0.0)
        scalars[f"{name}.mean"] = float(values.mean())
        scalars |= {f"{name}.{k}": float(values.quantile(q)) for k, q in _QUANTILES.items()}
    return scalars


def _at_the_end(p: Tensor, q: Tensor) -> dict[str, float]:
    found = _of_distributions([(p, q)])
    means = {f"last.{name}": found[f"{name}.mean"] for name in ("kl", "reverse_kl", "js")}
    entropy = -(p.exp() * p).sum(dim=1).mean()
    return {
        **means,
        "last.top1_agreement": found["top1_agreement"],
        "entropy": float(entropy.clamp_min(0.0)),
    }


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """Return the divergence of each row, given log-probabilities."""
    return (p.exp() * (p - q)).sum(dim=1)


def _cka(x: Tensor, y: Tensor) -> float:
    """Return linear centred kernel alignment of two `n x d`-dim tensors."""
    x, y = (values.double() - values.double().mean(dim=0) for values in (x, y))
    scale = (x.T @ x).norm() * (y.T @ y).norm()
    return float((x.T @ y).norm().square() / scale.clamp_min(1e-20))
