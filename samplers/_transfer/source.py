"""What an earlier study knows, small enough to be kept with another one."""

from collections.abc import Iterable, Mapping, Sequence
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
        direction: "maximize" or "minimize" in its study; None in sources that were kept without.
    """

    name: str | None
    values: list[float]
    noise: list[float]
    lengthscales: list[float]
    mean: float
    direction: str | None = None

    def tells_of(self, direction: str) -> bool:
        """Whether better here is better there."""
        return self.direction in (None, direction)

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
        ways = directions_of(study)
        objectives = [_objective(*each) for each in zip(labels, processes, ways, strict=True)]
        bounds = [_bounds(d) for d in space.values()]
        return cls(study.study_name, len(trials), list(space), bounds, points, objectives)

    @classmethod
    def parse(cls, text: Mapping[str, Any]) -> "Source":
        """Read what `asdict` wrote."""
        return cls(**{**text, "objectives": [Objective(**one) for one in text["objectives"]]})

    def matched(self, names: Sequence[str]) -> list[str]:
        """Return which of its parameters can be read off another study's."""
        return [self.names[k] for k in carried(names, self.names)[1]]

    def shared(self, labels: Sequence[str | None], directions: Sequence[str]) -> list[str | None]:
        """Return which objectives of another study it knows; see `hints`."""
        wanted = enumerate(zip(labels, directions, strict=True))
        return [label for place, (label, way) in wanted if self._find(label, place, way)]

    def check(self, labels: Sequence[str | None], directions: Sequence[str]) -> None:
        """Check that it knows an objective of another study; see `hints`.

        Raises:
            ValueError: If it knows none.
        """
        if self.shared(labels, directions):
            return
        theirs = _shown((one.name, one.direction) for one in self.objectives)
        raise ValueError(
            f"warm_start: study {self.study!r} has the objectives {theirs}, and this one "
            f"{_shown(zip(labels, directions, strict=True))}: one at least must be in both, with "
            "the same direction. Leave it out, or name another study."
        )

    def hints(
        self, cube: UnitCube, labels: Sequence[str | None], directions: Sequence[str]
    ) -> list[Hint | None]:
        """Return a hint for each objective of another study.

        Args:
            cube: Over its parameters.
            labels: Names of its objectives; None for each where it names none.
            directions: Of its objectives, "maximize" or "minimize".

        Returns:
            None for an objective that the source does not know: of no such name (where one of the
            studies names none: not at this place), or of the other direction.
        """
        mapped, offset, kept = self._mapping(cube)
        if not kept:
            return [None] * len(labels)
        points = torch.tensor(self.points, dtype=torch.double)
        jumps = neighbours([self.names[k] for k in kept])
        wanted = enumerate(zip(labels, directions, strict=True))
        known = [self._find(label, place, way) for place, (label, way) in wanted]
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

    def _find(self, label: str | None, place: int, direction: str) -> Objective | None:
        if label is None or any(one.name is None for one in self.objectives):
            candidates = self.objectives[place : place + 1]
        else:
            candidates = [one for one in self.objectives if one.name == label]
        return next((one for one in candidates if one.tells_of(direction)), None)


def directions_of(study: Study) -> list[str]:
    """Return a study's directions as they are kept: "maximize" or "minimize"."""
    return [direction.name.lower() for direction in study.directions]


def _shown(objectives: Iterable[tuple[str | None, str | None]]) -> str:
    return ", ".join(" ".join(filter(None, (way, name))) for name, way in objectives)


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


def _objective(label: str | None, process: Process, direction: str) -> Objective:
    return Objective(
        label,
        _rounded(process.y.tolist()),
        _rounded(process.noise.tolist()),
        _rounded(process.kernel.lengthscales.tolist()),
        process.mean,
        direction,
    )


def _rounded(values: Any) -> Any:
    if isinstance(values, list):
        return [_rounded(value) for value in values]
    return float(f"{values:.{_DIGITS}g}")
