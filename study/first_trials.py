"""What is measured before anything is proposed: parents, then a curve, Sobol points or a grid."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from scipy.stats.qmc import Sobol

from ..errors import SpecError
from ..objectives.merging import Arm, MergePlan
from ..objectives.merging.precision import is_precision
from ..objectives.merging.settings import DENSITY, is_weight, with_arm
from ..samplers import uniform_levels
from .budget import known
from .spec.study_spec import StudySpec

Space = Mapping[str, BaseDistribution]
# More than this share of a study is not spent on comparing arms. Of a study whose number of trials
# is not known, what was asked for is.
_FIRST_SHARE = 1 / 3
# Arms are compared at so many levels at least.
_FEWEST_LEVELS = 3


def search_space(spec: StudySpec, plan: MergePlan) -> dict[str, BaseDistribution]:
    """Return one distribution a parameter, within the spec's bounds; choices first."""
    choices = plan.settings.categories.items()
    space: dict[str, BaseDistribution] = {n: CategoricalDistribution(c) for n, c in choices}
    ranges = plan.bounds(*spec.merge.bounds)
    return space | {name: FloatDistribution(*range_) for name, range_ in ranges.items()}


def first_trials(spec: StudySpec, plan: MergePlan) -> list[FrozenTrial]:
    """Return the parents, then uniform merges, Sobol points, or a grid over all parameters.

    Raises:
        SpecError: If candidates leave out experts and the bounds leave out 0.
    """
    _check_left_out(spec, plan)
    n_experts, space = plan.settings.n_experts, search_space(spec, plan)
    trials = [first(space, plan.uniform(0.0), "parent", "base")]
    for expert in range(1, n_experts + 1):
        label = "expert" if n_experts == 1 else f"expert {expert}"
        trials.append(first(space, plan.expert(expert), "parent", label))
    makers = {"uniform": _uniform_merges, "sobol": _sobol_points, "grid": _grid}
    trials += makers[spec.sampler.startup](spec, plan, space, spec.study.trials - len(trials))
    return trials


def _check_left_out(spec: StudySpec, plan: MergePlan) -> None:
    """Check that experts that an arm leaves out can have the weight that says so.

    Raises:
        SpecError: If the bounds do not hold it.
    """
    low, high = spec.merge.bounds
    left_out = [arm for arm in plan.settings.arms if len(arm.experts) < plan.settings.n_experts]
    if left_out and not low <= 0.0 <= high:
        raise SpecError(
            f"`merge.bounds` must hold 0 where a candidate can leave out experts (one merges "
            f"{left_out[0].experts_label} alone), which then have weight 0, but got [{low:g}, "
            f"{high:g}]; write [{min(low, 0):g}, {max(high, 0):g}], or merge all experts in every "
            "candidate."
        )


def same_models(plan: MergePlan) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return what candidates have in common that are one parent, and that parent's parameters.

    At weights 0 every operator gives the base, and an expert at weight 1 is itself under every arm
    that keeps it: as `SIPSampler(same=...)` takes it. None where there is one arm, or a part of
    the model is an expert's whatever the weights are, and which expert's differs between arms.
    Where precisions are searched, a parent is one model at each of them.
    """
    settings, weights = plan.settings, [n for n in plan.parameter_names if is_weight(n)]
    rules = (settings.embeddings, settings.head, settings.router, settings.towers)
    if not plan.arms or "expert" in rules:
        return []
    base = _without_precisions(plan.uniform(0.0))
    parents = [(_without_choices(base, weights), base)]
    for number in range(1, settings.n_experts + 1):
        whole = _without_precisions(plan.expert(number))
        if not settings.arms[settings.arm_of(whole)].keeps_experts:
            continue
        for place, arm in enumerate(settings.arms):
            if number in arm.experts and arm.keeps_experts:
                common = _without_choices(whole, weights) | settings.choice(place)
                if arm.is_chain:  # what was merged before an expert of weight 1 is gone
                    before = arm.experts[: arm.experts.index(number)]
                    gone = {plan.parameter(group, k) for group in plan.groups for k in before}
                    common = {n: v for n, v in common.items() if n not in gone}
                searched = {DENSITY: 1.0} if isinstance(arm.density, tuple) else {}
                parents.append((common | searched, whole))
    return parents


def _without_choices(params: Mapping[str, Any], weights: Sequence[str]) -> dict[str, Any]:
    return {name: params[name] for name in weights}


def _without_precisions(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if not is_precision(name)}


def _at_precision(
    plan: MergePlan, params: Mapping[str, Any], label: str, place: int
) -> tuple[dict[str, Any], str]:
    """Return a merge and its label with all layers at one of the precisions, in turn."""
    precision = plan.settings.precision
    if precision is None or not precision.names:
        return dict(params), label
    chosen = precision.choices[place % len(precision.choices)]
    return {**params, **dict.fromkeys(precision.names, chosen)}, f"{label}, {chosen}"


def _uniform_merges(
    spec: StudySpec, plan: MergePlan, space: Space, n_most: int
) -> list[FrozenTrial]:
    """Return uniform merges at levels spread over the bounds; the parents are the first two."""
    n = min(spec.sampler.n_startup_trials - plan.settings.n_experts - 1, n_most)
    low, high = spec.merge.bounds
    if plan.arms:
        share = int(_FIRST_SHARE * (known(spec.study.trials) or 0))
        n = min(max(n, min(len(plan.arms), share)), n_most)
        return _uniform_merges_of_arms(plan, space, n, (low, high))
    levels = uniform_levels(n + 2)[2:] if n > 0 else []
    weights = [low + level * (high - low) for level in levels]
    return [
        first(space, params, "uniform", label)
        for place, w in enumerate(weights)
        for params, label in [_at_precision(plan, plan.uniform(w), f"uniform {w:.2f}", place)]
    ]


def _uniform_merges_of_arms(
    plan: MergePlan, space: Space, n: int, bounds: tuple[float, float]
) -> list[FrozenTrial]:
    """Return one uniform merge an arm, as far as there are as many; then others of them.

    Each arm goes through the levels from another one on, so that none is measured twice.
    """
    (low, high), chosen, trials = bounds, spread_arms(plan.settings.arms, n), []
    levels = uniform_levels(max([_FEWEST_LEVELS, *Counter(chosen).values()]) + 2)[2:]
    for place, arm in enumerate(chosen):
        begun, had = chosen.index(arm), chosen[:place].count(arm)
        weight = low + levels[(begun + had) % len(levels)] * (high - low)
        label = with_arm(f"uniform {weight:.2f}", plan.settings.choice(arm))
        # An arm's precisions are others than its levels: each level comes with all of them.
        turn = 2 * begun + begun // len(levels) + had
        params, label = _at_precision(plan, plan.uniform(weight, arm), label, turn)
        params = _apart(params, plan.settings.arms, arm)
        trials.append(first(space, params, "uniform", label))
    return trials


def _apart(params: Mapping[str, Any], arms: Sequence[Arm], place: int) -> dict[str, Any]:
    """Return a merge of an arm, at another density if it is else another arm's merge.

    Of one expert that is kept whole, TIES is the linear merge.
    """
    density = arms[place].density
    if isinstance(density, tuple) and density[1] == 1.0:
        whole = replace(arms[place], density=1.0).formula
        if any(arm.formula == whole for arm in arms):
            return {**params, DENSITY: fmean(density)}
    return dict(params)


def spread_arms(arms: Sequence[Arm], n: int) -> list[int]:
    """Return the places of `n` arms such that any first part has many operators and experts.

    Each is the one whose operator and experts, together and alone, were had least so far.
    """
    chosen: list[int] = []
    for _ in range(n):
        had = [arms[place] for place in chosen]

        def use(place: int, had: Sequence[Arm] = had) -> tuple[int, int, int]:
            arm = arms[place]
            operator = sum(other.label == arm.label for other in had)
            experts = sum(other.experts_label == arm.experts_label for other in had)
            return had.count(arm), operator + experts, place

        chosen.append(min(range(len(arms)), key=use))
    return chosen


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
        if isinstance(d, FloatDistribution)
    }
    shown = ", ".join(f"{name} {value:.2f}" for name, value in params.items())
    return first(space, params, phase, label or shown)


def first(space: Space, params: Mapping[str, Any], phase: str, label: str) -> FrozenTrial:
    """Return a waiting trial; where bounds leave a parent out, its own distributions reach to it.

    All weights have one distribution.
    """
    weights = {name: value for name, value in params.items() if is_weight(name)}
    distributions: dict[str, BaseDistribution] = {}
    for name, value in params.items():
        distribution = space[name]
        if isinstance(distribution, FloatDistribution):
            reach = weights.values() if name in weights else [value]
            low, high = min(distribution.low, *reach), max(distribution.high, *reach)
            distribution = FloatDistribution(low, high)
        distributions[name] = distribution
    return create_trial(
        state=TrialState.WAITING,
        params=dict(params),
        distributions=distributions,
        user_attrs={"phase": phase, "label": label},
    )


def is_uniform(trial: FrozenTrial) -> bool:
    """Whether a trial is a parent or a uniform merge."""
    return trial.user_attrs.get("phase") in ("parent", "uniform")
