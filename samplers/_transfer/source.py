"""What an earlier study knows, small enough to be kept with another one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from optuna import Study
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from torch import Tensor

from .._gp import Elsewhere, Hint, Kernel, Observations, Process, fit_surrogate
from .._threads import one_thread
from .._trials.measurements import MEASURED, finite_trials, measurements
from .._trials.search_space import UnitCube, neighbours, signs
from .depth import carried

# Trials that a process is kept by: their number times that of the layers is the size of a source.
_MOST_KEPT = 100
_DIGITS = 7


@dataclass(frozen=True)
class Objective:
    """One objective's measurements and hyperparameters, standardized and maximized.

    Args:
        name: As the study calls it; None if it does not.
        values: At the source's points.
        noise: Their variances.
        lengthscales: One a parameter.
        mean: The prior mean.
    """

    name: str | None
    values: list[float]
    noise: list[float]
    lengthscales: list[float]
    mean: float

    def process(self, points: Tensor, kept: Sequence[int], jumps: Tensor) -> Process:
        """Return the process over some of the source's columns."""
        lengthscales = torch.tensor(self.lengthscales, dtype=torch.double)[kept]
        return Process(
            X=points[:, kept],
            y=torch.tensor(self.values, dtype=torch.double),
            noise=torch.tensor(self.noise, dtype=torch.double),
            location=0.0,
            spread=1.0,
            kernel=Kernel(lengthscales, jumps),
            mean=self.mean,
        )


@dataclass(frozen=True)
class Source:
    """What a study found, as a function of its weights.

    Args:
        study: Its name.
        n_trials: That were measured.
        names: Of its parameters, without choices.
        bounds: Their lowest and highest values.
        points: Of the unit cube over them, one row a trial.
        objectives: What was learned of each.
    """

    study: str
    n_trials: int
    names: list[str]
    bounds: list[list[float]]
    points: list[list[float]]
    objectives: list[Objective]

    @classmethod
    def of(cls, study: Study) -> "Source":
        """Distil a study of any Optuna sampler.

        Raises:
            ValueError: If it has no finished trial with values, or its trials share no numeric
                parameter.
        """
        trials = finite_trials(study.get_trials(deepcopy=False, states=MEASURED))
        if not trials:
            raise ValueError(
                f"warm_start needs studies with measured trials, but study "
                f"{study.study_name!r} has none."
            )
        space = _numeric(trials[-1].distributions)
        space = {name: d for name, d in space.items() if all(name in t.params for t in trials)}
        if not space:
            raise ValueError(
                f"warm_start needs studies whose trials share numeric parameters, but those of "
                f"{study.study_name!r} share none."
            )
        cube = UnitCube(space)
        trials = [trial for trial in trials if cube.holds(trial.params)]
        known = measurements(trials)
        observations = Observations(
            X=cube.encode([trial.params for trial in trials]),
            Y=known.values * signs(study.directions),
            errors=known.errors,
            jumps=cube.jumps,
            sizes=known.sizes,
        )
        with one_thread():
            surrogate = fit_surrogate(observations, most=_MOST_KEPT)
        processes = [fit.process for fit in surrogate.fits]
        labels: Sequence[str | None] = study.metric_names or [None] * len(processes)
        points = _rounded(processes[0].X.tolist())
        objectives = [_objective(*pair) for pair in zip(labels, processes, strict=True)]
        bounds = [_bounds(d) for d in space.values()]
        return cls(study.study_name, len(trials), list(space), bounds, points, objectives)

    @classmethod
    def parse(cls, text: Mapping[str, Any]) -> "Source":
        """Read what `asdict` wrote."""
        return cls(**{**text, "objectives": [Objective(**one) for one in text["objectives"]]})

    def matched(self, names: Sequence[str]) -> list[str]:
        """Return which of its parameters can be read off another study's."""
        return [self.names[k] for k in carried(names, self.names)[1]]

    def shared(self, labels: Sequence[str | None]) -> list[str | None]:
        """Return which objectives of another study it knows; see `hints`."""
        return [label for k, label in enumerate(labels) if self._find(label, k)]

    def hints(self, cube: UnitCube, labels: Sequence[str | None]) -> list[Hint | None]:
        """Return a hint for each objective of another study.

        Args:
            cube: Over its parameters.
            labels: Names of its objectives; None for each where it names none.

        Returns:
            None for an objective that the source does not know.
        """
        mapped, offset, kept = self._mapping(cube)
        if not kept:
            return [None] * len(labels)
        points = torch.tensor(self.points, dtype=torch.double)
        jumps = neighbours([self.names[k] for k in kept])
        known = [self._find(label, place) for place, label in enumerate(labels)]
        return [
            None if one is None else Elsewhere(mapped, offset, one.process(points, kept, jumps))
            for one in known
        ]

    def _mapping(self, cube: UnitCube) -> tuple[Tensor, Tensor, list[int]]:
        """Return how weights of a cube are carried to this source's, whatever their bounds are.

        Returns:
            A `d x e`-dim tensor and an `e`-dim offset, see `Elsewhere`, and the indices of the `e`
            parameters that have a counterpart.
        """
        numeric = [k for k in range(cube.dim) if k not in cube.categorical_columns]
        names = [cube.column_names[k] for k in numeric]
        shares, kept = carried(names, self.names)
        here = torch.tensor([_bounds(cube.search_space[n]) for n in names], dtype=torch.double)
        low, high = (
            torch.tensor([self.bounds[k] for k in kept], dtype=torch.double).reshape(-1, 2).T
        )
        here = here.reshape(-1, 2)
        mapped = torch.zeros((cube.dim, len(kept)), dtype=torch.double)
        mapped[numeric] = (here[:, 1] - here[:, 0])[:, None] * shares / (high - low)
        return mapped, (here[:, 0] @ shares - low) / (high - low), kept

    def _find(self, label: str | None, place: int) -> Objective | None:
        if label is None or any(one.name is None for one in self.objectives):
            return self.objectives[place] if place < len(self.objectives) else None
        return next((one for one in self.objectives if one.name == label), None)


def _numeric(space: Mapping[str, BaseDistribution]) -> dict[str, BaseDistribution]:
    return {
        name: d
        for name, d in sorted(space.items())
        if not d.single() and not isinstance(d, CategoricalDistribution)
    }


def _bounds(distribution: BaseDistribution) -> list[float]:
    """Return a number's bounds; those of the cube where its scale is logarithmic."""
    if isinstance(distribution, FloatDistribution | IntDistribution) and not distribution.log:
        return [float(distribution.low), float(distribution.high)]
    return [0.0, 1.0]


def _objective(label: str | None, process: Process) -> Objective:
    return Objective(
        label,
        _rounded(process.y.tolist()),
        _rounded(process.noise.tolist()),
        _rounded(process.kernel.lengthscales.tolist()),
        process.mean,
    )


def _rounded(values: Any) -> Any:
    if isinstance(values, list):
        return [_rounded(value) for value in values]
    return float(f"{values:.{_DIGITS}g}")
