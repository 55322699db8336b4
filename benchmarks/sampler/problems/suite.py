"""The problems by name: the ones to tune on, and the ones to report."""

from functools import cache
from typing import cast, get_args

from .base import Problem
from .embedded import Embedded
from .synthetic import Noise, Shape, Synthetic
from .tabulated import Tabulated

_SHAPES = {
    "plain": Shape(),
    "steep": Shape(steepness=5.0),
    "coupled": Shape(coupling=0.3),
    "inner": Shape(peaks=(0.45, 1.1)),
    "spread": Shape(n_influential=8, background=0.3, roughness=0.8),
    "step": Shape(step=0.7),
    "cliff": Shape(step=0.7, together=True),
}
_NOISES: tuple[Noise, Noise] = ("independent", "shared")
_FIVE = ("plain", "steep", "coupled", "inner", "spread")

# Group -> names. The sampler's settings were chosen on "tune"; its problems are in no other group.
# Recommending and equating were chosen on those of "synthetic" and on seeds 200 to 219; on
# "fresh" nothing but how clear a recommended gain must be, on 13 searches.
GROUPS: dict[str, tuple[str, ...]] = {
    "tune": tuple(f"plain/{noise}/{seed}" for noise in _NOISES for seed in range(3)),
    "synthetic": tuple(
        f"{shape}/{noise}/{seed}" for noise in _NOISES for seed, shape in enumerate(_FIVE, 100)
    ),
    "fresh": tuple(
        f"{shape}/{noise}/{300 + 5 * k + i}"
        for noise in (*_NOISES, "rotating")
        for k in range(4)
        for i, shape in enumerate(_FIVE)
    ),
    "steps": tuple(
        f"{shape}/{noise}/{seed}"
        for shape in ("step", "cliff")
        for noise in (*_NOISES, "rotating")
        for seed in range(120, 125)
    ),
    "deep": ("plain80/independent/110", "plain80/shared/111"),
    "demo": tuple(f"demo/shared/{seed}" for seed in range(5)),
    "demo-rotating": tuple(f"demo/rotating/{seed}" for seed in range(5)),
    "embedded": ("zdt1/0/0", "zdt2/0/0", "dtlz2/0/0"),
}


@cache
def make_problem(name: str) -> Problem:
    """Return a problem by its name, `kind/noise/seed`."""
    kind, noise, seed = name.split("/")
    if kind == "demo":
        return Tabulated(int(seed), noise == "rotating")
    if kind in ("zdt1", "zdt2", "dtlz2"):
        return Embedded(kind, int(seed))
    dim = 80 if kind.endswith("80") else 36
    shape = _SHAPES[kind.removesuffix("80")]
    assert noise in get_args(Noise)
    return Synthetic(int(seed), shape, cast(Noise, noise), dim, kind)
