"""What is measured before anything is proposed: parents, then a curve, Sobol points or a grid."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from scipy.stats.qmc import Sobol

from ..objectives.merging import MergePlan
from ..objectives.merging.plan import DENSITY
from ..samplers import uniform_levels
from .spec.study_spec import StudySpec

Space = Mapping[str, FloatDistribution]


def search_space(spec: StudySpec, plan: MergePlan) -> dict[str, FloatDistribution]:
    """Return one distribution a parameter, within the spec's bounds."""
    ranges = plan.bounds(*spec.merge.bounds)
    return {name: FloatDistribution(*range_) for name, range_ in ranges.items()}


def first_trials(spec: StudySpec, plan: MergePlan) -> list[FrozenTrial]:
    """Return the parents, then uniform merges, Sobol points, or a grid over all parameters."""
    n_experts, space = plan.settings.n_experts, search_space(spec, plan)
    trials = [first(space, plan.uniform(0.0), "parent", "base")]
    for expert in range(1, n_experts + 1):
        label = "expert" if n_experts == 1 else f"expert {expert}"
        trials.append(first(space, plan.expert(expert), "parent", label))
    makers = {"uniform": _uniform_merges, "sobol": _sobol_points, "grid": _grid}
    trials += makers[spec.sampler.startup](spec, plan, space, spec.study.trials - len(trials))
    return trials


def _uniform_merges(
    spec: StudySpec, plan: MergePlan, space: Space, n_most: int
) -> list[FrozenTrial]:
    """Return uniform merges at levels spread over the bounds; the parents are the first two."""
    n = min(spec.sampler.n_startup_trials - plan.settings.n_experts - 1, n_most)
    low, high = spec.merge.bounds
    levels = uniform_levels(n + 2)[2:] if n > 0 else []
    weights = [low + level * (high - low) for level in levels]
    return [first(space, plan.uniform(w), "uniform", f"uniform {w:.2f}") for w in weights]


def _sobol_points(
    spec: StudySpec, plan: MergePlan, space: Space, n_most: int
) -> list[FrozenTrial]:
    n = max(0, min(spec.sampler.n_startup_trials, n_most))
    engine = Sobol(len(space), rng=np.random.default_rng([43, spec.study.seed]))
    points = engine.random_base2(max(n - 1, 0).bit_length())[:n]
    return [_at(space, point, "startup", f"sobol {i}") for i, point in enumerate(points)]


def _grid(spec: StudySpec, plan: MergePlan, space: Space, n_most: int) -> list[FrozenTrial]:
    """Return `n_most` points: three levels of a density, all others of the weights' diagonal.

    Levels of the weights do not include the bounds, where the parents are.
    """
    densities = (0.0, 0.5, 1.0) if DENSITY in space else (0.0,)
    points = []
    for k, density in enumerate(densities):
        n = len(range(k, n_most, len(densities)))
        for i in range(1, n + 1):
            level = i / (n + 1)
            points.append([density if name == DENSITY else level for name in space])
    phase = "startup" if DENSITY in space else "uniform"
    return [_at(space, np.array(point), phase, "") for point in points]


def _at(space: Space, point: NDArray[np.float64], phase: str, label: str) -> FrozenTrial:
    """Return a trial at a point of the unit cube."""
    params = {
        name: round(d.low + float(x) * (d.high - d.low), 4)
        for (name, d), x in zip(space.items(), point, strict=True)
    }
    shown = ", ".join(f"{name} {value:.2f}" for name, value in params.items())
    return first(space, params, phase, label or shown)


def first(space: Space, params: Mapping[str, float], phase: str, label: str) -> FrozenTrial:
    """Return a waiting trial; where bounds leave a parent out, its own distributions reach to it.

    All weights have one distribution.
    """
    weights = {name: value for name, value in params.items() if name != DENSITY}
    distributions: dict[str, BaseDistribution] = {}
    for name, value in params.items():
        reach = weights.values() if name in weights else [value]
        low, high = min(space[name].low, *reach), max(space[name].high, *reach)
        distributions[name] = FloatDistribution(low, high)
    return create_trial(
        state=TrialState.WAITING,
        params=dict(params),
        distributions=distributions,
        user_attrs={"phase": phase, "label": label},
    )


def is_uniform(trial: FrozenTrial) -> bool:
    """Whether a trial is a parent or a uniform merge."""
    return trial.user_attrs.get("phase") in ("parent", "uniform")
