"""Operators that interpolate along the sphere, and others that look at a whole tensor.

Formulas follow mergekit 0.1.5. Where mergekit's operator has no weights (Karcher, model stock,
SCE), ours gets them so that the weights named in its docstring give mergekit's result.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ._base import Operator, Options, Parameter

_SMALL_NORM = 1e-8


def _slerp(
    base: Tensor, experts: Sequence[Tensor], weights: Sequence[float], options: Options
) -> Tensor:
    """Return the spherical interpolation from base to expert (Shoemake 1985).

    Nearly parallel tensors (cosine above 0.9995, as those of fine-tuned siblings nearly always
    are) are interpolated linearly.
    """
    return _slerp_at(base, experts[0], weights[0], parallel=0.9995)


def _slerp_at(a: Tensor, b: Tensor, t: float, parallel: float) -> Tensor:
    cosine = float(torch.dot(_unit(a.reshape(-1)), _unit(b.reshape(-1))))
    if abs(cosine) > parallel:
        return torch.lerp(a, b, t)
    angle = math.acos(max(-1.0, min(1.0, cosine)))
    return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)


def _unit(vector: Tensor, smallest: float = _SMALL_NORM) -> Tensor:
    norm = torch.linalg.vector_norm(vector)
    return vector / norm if norm > smallest else vector


def _nuslerp(
    base: Tensor, experts: Sequence[Tensor], weights: Sequence[float], options: Options
) -> Tensor:
    """Interpolate base and expert, or the task vectors of two experts, by relative weights.

    With two experts `t = w_2 / (w_1 + w_2)`, 0.5 where the sum vanishes; only their ratio counts.
    """
    if len(experts) == 1:
        return _nuslerp_at(base, experts[0], weights[0])
    total = sum(weights)
    t = weights[1] / total if abs(total) >= 1e-6 else 0.5
    return base + _nuslerp_at(experts[0] - base, experts[1] - base, t)


def _nuslerp_at(a: Tensor, b: Tensor, t: float) -> Tensor:
    flat_a, flat_b = a.reshape(-1), b.reshape(-1)
    norm_a = torch.linalg.vector_norm(flat_a).clamp_min(1e-7)
    norm_b = torch.linalg.vector_norm(flat_b).clamp_min(1e-7)
    cosine = float(torch.dot(flat_a / norm_a, flat_b / norm_b).clamp(-1.0, 1.0))
    if 1 - cosine * cosine <= 1e-16:
        return torch.lerp(a, b, t)
    angle = math.acos(cosine)
    return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)


def _multislerp(
    base: Tensor, experts: Sequence[Tensor], weights: Sequence[float], options: Options
) -> Tensor:
    """Average directions in the tangent space of their mean, and norms linearly.

    One expert is averaged with the base, weights `1 - w` and `w`; several experts' task vectors
    among themselves, with weights that are normalised to sum to 1.
    """
    if len(experts) == 1:
        return _tangent_mean([base, experts[0]], [1 - weights[0], weights[0]])
    total = sum(weights)
    shares = [weight / total if abs(total) >= 1e-8 else 1 / len(weights) for weight in weights]
    return base + _tangent_mean([expert - base for expert in experts], shares)


def _tangent_mean(vectors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    flat = torch.stack([vector.reshape(-1) for vector in vectors])  # k x n
    shares = torch.tensor(weights, dtype=flat.dtype, device=flat.device)
    norms = torch.linalg.vector_norm(flat, dim=1)
    units = flat / (norms[:, None] + _SMALL_NORM)
    mean = shares @ units
    size = torch.linalg.vector_norm(mean)
    if size < _SMALL_NORM:
        return (shares @ flat).view(vectors[0].shape)
    mean = mean / size
    tangent = shares @ (units - (units @ mean)[:, None] * mean)
    angle = torch.linalg.vector_norm(tangent)
    if angle > _SMALL_NORM:
        mean = mean * angle.cos() + tangent * (angle.sin() / angle)
    merged: Tensor = (mean * (shares @ norms)).view(vectors[0].shape)
    return merged


def _karcher(
    base: Tensor, experts: Sequence[Tensor], weights: Sequence[float], options: Options
) -> Tensor:
    """Return the weighted Karcher mean of base and experts on the sphere.

    The base has the weight that is left to 1. mergekit's operator is the case of equal weights:
    `1 / (K + 1)` for each of `K` experts.
    """
    shares = [1 - sum(weights), *weights]
    flat = torch.stack([tensor.reshape(-1) for tensor in (base, *experts)])
    weight = torch.tensor(shares, dtype=flat.dtype, device=flat.device)
    norms = torch.linalg.vector_norm(flat, dim=1)
    used = norms > 0
    units = flat[used] / norms[used, None]
    direction = weight[used] / weight[used].sum()
    mean = _unit(direction @ units, 0.0)
    for _ in range(int(options["iterations"])):
        step = direction @ _log_map(mean, units)
        size = torch.linalg.vector_norm(step)
        if size < 1e-5:
            break
        mean = _unit(size.cos() * mean + size.sin() * step / size, 0.0)
    merged: Tensor = ((weight @ norms) * mean).view(base.shape)
    return merged


def _log_map(mean: Tensor, units: Tensor) -> Tensor:
    """Return the tangent vectors at `mean` that point to each unit vector."""
    cosines = (units @ mean).clamp(-1.0, 1.0)
    angles = cosines.acos()
    sines = angles.sin()
    factor = torch.where(sines > 1e-7, angles / sines.clamp_min(1e-7), torch.ones_like(sines))
    return factor[:, None] * (units - cosines[:, None] * mean)


def _model_stock(
    base: Tensor, experts: Sequence[Tensor], weights: Sequence[float], options: Options
) -> Tensor:
    """Return `base + t mean_k(w_k d_k)` with `t` from the angle between task vectors.

    `t = K c / (1 + (K - 1) c)`, `c` the mean pairwise cosine (Jang et al. 2024); all weights 1
    is the published operator.
    """
    deltas = [(expert - base).reshape(-1) for expert in experts]
    cosines = [
        torch.dot(a, b)
        / (torch.linalg.vector_norm(a) * torch.linalg.vector_norm(b)).clamp_min(1e-6)
        for i, a in enumerate(deltas)
        for b in deltas[:i]
    ]
    cosine = float(torch.stack(cosines).mean())
    k = len(deltas)
    divisor = 1 + (k - 1) * cosine
    t = k * cosine / divisor if abs(divisor) >= 1e-6 else 0.0
    mean = torch.stack([w * d for w, d in zip(weights, deltas, strict=True)]).mean(dim=0)
    return base + t * mean.view(base.shape)


def _sce(
    base: Tensor, experts: Sequence[Tensor], weights: Sequence[float], options: Options
) -> Tensor:
    """Select by variance, calculate weights by energy, erase minority signs (Wan et al. 2024).

    Each task vector is first scaled by its weight; all weights 1 is the published operator.
    """
    pairs = zip(weights, experts, strict=True)
    deltas = torch.stack([w * (expert - base).reshape(-1) for w, expert in pairs])  # k x n
    if options["select_topk"] < 1 and len(deltas) > 1:
        deltas = deltas * _most_variable(deltas, options["select_topk"])
    total = deltas.sum(dim=0)
    agree = deltas.sign() == torch.where(total >= 0, 1.0, -1.0)
    energy = deltas.square().mean(dim=1)
    shares = (
        energy / energy.sum()
        if energy.sum() >= 1e-6
        else energy.new_full(energy.shape, 1 / len(deltas))
    )
    used = agree * shares[:, None]
    merged = (deltas * used).sum(dim=0) / used.sum(dim=0).clamp_min(1e-6)
    return base + merged.view(base.shape)


def _most_variable(deltas: Tensor, share: float) -> Tensor:
    """Return a mask of the positions whose values differ most between models."""
    variance = deltas.var(dim=0, unbiased=False)
    k = int(int((variance != 0).sum()) * share)
    mask = torch.zeros_like(variance)
    mask[variance.topk(k).indices] = 1.0
    return mask


SLERP = Operator("slerp", _slerp, max_experts=1, exact_ends=True)
NUSLERP = Operator("nuslerp", _nuslerp, max_experts=2, exact_ends=True)
MULTISLERP = Operator("multislerp", _multislerp)
KARCHER = Operator(
    "karcher", _karcher, exact_ends=True, parameters=(Parameter("iterations", 10, 1, 1000),)
)
MODEL_STOCK = Operator("model_stock", _model_stock, min_experts=2)
SCE = Operator("sce", _sce, parameters=(Parameter("select_topk", 1.0, 0.0, 1.0),))
