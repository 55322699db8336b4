"""Task arithmetic and its sparsified and sign-electing relatives, one code path.

Notation: `d_k = expert_k - base`, `t_k` the sparsified task vector, `p_k = w_k t_k`. Everything
is per tensor. Formulas and edge rules follow mergekit 0.1.5, with one difference: `normalize` is
off by default everywhere. Dividing by the sum of the weights cancels the weight of one expert,
and makes all uniform merges of several experts the same model.

Sources: task arithmetic (Ilharco et al. 2023), TIES (Yadav et al. 2023, here with the threshold of
each tensor, not of the whole model), DARE (Yu et al. 2024), DELLA (Deep et al. 2024), Breadcrumbs
(Davari and Belilovsky 2024).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ._base import Operator, Options, Parameter, Sparsify
from ._top_k import largest


def _combine(
    base: Tensor, deltas: Sequence[Tensor], weights: Sequence[float], options: Options
) -> Tensor:
    """Return `base + lambda * sum_k p_k`, divided by the sum of weights if asked to."""
    total = deltas[0] * weights[0]
    for delta, weight in zip(deltas[1:], weights[1:], strict=True):
        total.add_(delta, alpha=weight)
    if options["normalize"]:
        divisor = sum(weights)
        total /= divisor if abs(divisor) >= 1e-8 else 1.0
    return total.mul_(options["lambda"]).add_(base)


def _elect(
    base: Tensor, deltas: Sequence[Tensor], weights: Sequence[float], options: Options
) -> Tensor:
    """Return the base plus the sum of those `p_k` whose sign is that of `sum_k p_k`.

    A tie elects plus. Zeros match no sign, so with `normalize` they are left out of the divisor.
    """
    if sum(weight != 0.0 for weight in weights) == 1 and not options["normalize"]:
        return _combine(base, deltas, weights, options)  # one voter elects itself
    weighted = [delta * weight for delta, weight in zip(deltas, weights, strict=True)]
    positive, negative = weighted[0].clamp(min=0.0), weighted[0].clamp(max=0.0)
    for p in weighted[1:]:
        positive.add_(p.clamp(min=0.0))
        negative.add_(p.clamp(max=0.0))
    # A product with bytes is vectorised on CPUs; `torch.where` is not, and takes 20 times longer.
    plus = (positive + negative >= 0).view(torch.uint8)
    elected = positive.mul_(plus).add_(negative.mul_(plus ^ 1))
    if options["normalize"]:
        elected.div_(_divisor(weighted, weights, plus.bool()))
    return elected.mul_(options["lambda"]).add_(base)


def _divisor(weighted: Sequence[Tensor], weights: Sequence[float], plus: Tensor) -> Tensor:
    """Return the sum of the weights that were elected at each element, 1 where it is 0."""
    sign = torch.where(plus, 1.0, -1.0)
    divisor = torch.zeros_like(sign)
    for p, weight in zip(weighted, weights, strict=True):
        divisor.add_((p.sign() == sign).float(), alpha=weight)
    return torch.where(divisor == 0, torch.ones_like(divisor), divisor)


def _magnitude(
    size: Tensor, density: float, options: Options, generator: torch.Generator
) -> Tensor:
    """Keep the `max(1, int(density n))` largest elements by magnitude."""
    flat = size.view(-1)
    return largest(flat, max(1, int(density * flat.numel()))).view(size.shape)


def _random(size: Tensor, density: float, options: Options, generator: torch.Generator) -> Tensor:
    """Keep each element with probability `density`."""
    return _draw(torch.full(size.shape, density), generator, size.device)


def _draw(share: Tensor, generator: torch.Generator, device: torch.device) -> Tensor:
    """Draw a mask where the generator lives, so that every device gets the same one."""
    return torch.bernoulli(share.to(generator.device), generator=generator).bool().to(device)


def _outliers(
    size: Tensor, density: float, options: Options, generator: torch.Generator
) -> Tensor:
    """Drop the `gamma n` largest elements and as many of the smallest as `density` asks for."""
    flat = size.view(-1)
    n = flat.numel()
    kept, top = int(density * n), int(options["gamma"] * n)
    bottom = max(0, n - kept - top)
    not_bottom = largest(flat, n - bottom)
    above = n - bottom - kept  # all that ranks above the `kept` elements after the bottom ones
    return (not_bottom & ~largest(flat, max(0, above))).view(size.shape)


def _by_rank(size: Tensor, density: float, options: Options, generator: torch.Generator) -> Tensor:
    """Keep elements at random, larger ones of a row more likely: MAGPRUNE.

    The probability grows linearly with the rank in the row, from `density - epsilon` for the
    smallest to `density + epsilon` for the largest. Vectors are one row.
    """
    rows = size.view(1, -1) if size.dim() < 2 else size.flatten(0, -2)
    if rows.shape[1] == 1:
        return _random(size, density, options, generator)
    ranks = rows.argsort(dim=1).argsort(dim=1).float()
    epsilon = options["epsilon"]
    share = (density - epsilon) + 2 * epsilon * ranks / (rows.shape[1] - 1)
    return _draw(share, generator, size.device).view(size.shape)


_LAMBDA = Parameter("lambda", 1.0, -10.0, 10.0)
_NORMALIZE = Parameter("normalize", 0.0, 0.0, 1.0)
_GAMMA = Parameter("gamma", 0.01, 0.0, 0.5)
_EPSILON = Parameter("epsilon", 0.15, 0.0, 0.5)


def _family(
    name: str,
    sparsify: Sparsify | None,
    elect: bool = False,
    rescale: float = 0.0,
    extra: tuple[Parameter, ...] = (),
) -> Operator:
    """Return one member; `rescale` keeps the task vector's L1 norm through sparsification."""
    parameters = (_LAMBDA, _NORMALIZE, *extra)
    if sparsify is not None:
        parameters = (*parameters, Parameter("rescale", rescale, 0.0, 1.0))
    return Operator(
        name,
        _elect if elect else _combine,
        elementwise=True,
        on_deltas=True,
        sparsify=sparsify,
        parameters=parameters,
        dense="election" if elect else "sum",
    )


FAMILY = (
    _family("task_arithmetic", None),
    _family("ties", _magnitude, elect=True),
    _family("dare_linear", _random, rescale=1.0),
    _family("dare_ties", _random, elect=True, rescale=1.0),
    _family("breadcrumbs", _outliers, extra=(_GAMMA,)),
    _family("breadcrumbs_ties", _outliers, elect=True, extra=(_GAMMA,)),
    _family("della_linear", _by_rank, rescale=1.0, extra=(_EPSILON,)),
    _family("della", _by_rank, elect=True, rescale=1.0, extra=(_EPSILON,)),
)
