"""Who recommends points: the ascent over convex combinations, and what is clear enough to name."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from optuna import Study
from optuna.trial import TrialState
from torch import Tensor

from ._acqf import Scale, front_span, infer_reference_point, worth_knowing
from ._acqf.expected_utility import expected_smallest, normal_draws
from ._constraints import LIKELY
from ._trials.search_space import signs
from .denoise import StudyModel

# Deviations are doubled: the search went where the surrogate was optimistic.
CAUTION = 2.0
# A combination is recommended only if its expected gain is so many of the gain's own deviations.
_CLEAR = 0.1
_STEPS, _STEP_SIZE = 100, 0.2
_SHARPNESS = 20.0  # how strongly an ascent starts at one evaluated point
_N_STARTS = 3
_SAME = 1e-9
# Corners of the hull and points that the posterior is conditioned on, at most.
_MOST_CORNERS, _MOST_POINTS = 200, 600


@dataclass(frozen=True)
class Recommendation:
    """What to take for one preference.

    Args:
        params: Of the model, one value a parameter that all trials share.
        values: Predicted noise-free values, one an objective, in its own direction.
        deviations: Posterior standard deviations of the values, on the questions of the study:
            they say which model is better.
        preference: Weight of every objective; they sum to one.
        utility: Expected utility with `CAUTION`, in spans of the front beyond the reference point.
        number: Of the evaluated trial that this is; None for a point that nobody evaluated.
        gain: Expected utility beyond that of the best evaluated trial; 0 where that is named.
        probability: That all constraints are kept.
        question_errors: Standard deviations of what all models share: the study's questions are a
            sample of those that might be asked. 0 where nothing tells which were asked.
    """

    params: dict[str, Any]
    values: list[float]
    deviations: list[float]
    preference: list[float]
    utility: float
    number: int | None
    gain: float
    probability: float
    question_errors: list[float]

    @property
    def fresh_deviations(self) -> list[float]:
        """Standard deviations of the values on other questions: they say how good a model is."""
        return fresh_deviations(self.deviations, self.question_errors)


def fresh_deviations(deviations: Sequence[float], question_errors: Sequence[float]) -> list[float]:
    """Return the deviations of predictions for other questions, one an objective.

    Args:
        deviations: Posterior; they are doubled (`CAUTION`).
        question_errors: See `Recommendation`.
    """
    pairs = zip(deviations, question_errors, strict=True)
    return [math.hypot(CAUTION * deviation, error) for deviation, error in pairs]


@dataclass(frozen=True)
class Adviser:
    """Advises on one study.

    Args:
        model: Of the study.
        reference: An `m`-dim tensor, maximized: utility 0.
        span: An `m`-dim tensor: one unit of every objective.
        flips: An `m`-dim tensor that turns maximized values into the study's.
    """

    model: StudyModel
    reference: Tensor
    span: Tensor
    flips: Tensor

    @classmethod
    def of(
        cls,
        model: StudyModel,
        study: Study,
        reference_point: Sequence[float] | None = None,
        span: Sequence[float] | None = None,
    ) -> "Adviser":
        """Return an adviser; see `recommend`."""
        flips = signs(study.directions)
        means = model.believed[0][model.likely]
        reference = infer_reference_point(means)
        if reference_point is not None:
            reference = torch.tensor(list(reference_point), dtype=torch.double) * flips
        unit = front_span(means, reference)
        if span is not None:
            unit = torch.tensor(list(span), dtype=torch.double)
        return cls(model, reference, unit, flips)

    def eligible(self) -> Tensor:
        """Return which trials may be named, `n`-dim: whole and probably within constraints."""
        whole = [trial.state == TrialState.COMPLETE for trial in self.model.trials]
        likely = self.model.kept >= LIKELY
        return likely & torch.tensor(whole, dtype=torch.bool)

    def question_errors(self, values: Tensor) -> Tensor:
        """Return how far other questions may move values, for all models alike, `b x m`-dim.

        Args:
            values: A `b x m`-dim tensor, in the study's own directions.
        """
        sampling = self.model.sampling
        return torch.zeros_like(values) if sampling is None else sampling.deviations(values)

    def of_trials(self, weights: Tensor) -> Tensor:
        """Return the expected utility of every trial and preference, `n x w`-dim."""
        columns = [self._utility(*self.model.believed, row, self.model.kept) for row in weights]
        return torch.stack(columns, dim=1)

    def expected(self, X: Tensor, weights: Tensor) -> Tensor:
        """Return the expected utility of each point for its own preference, `b`-dim.

        Args:
            X: A `b x d`-dim tensor.
            weights: A `b x m`-dim tensor.
        """
        return self._expected(self.model, X, weights)

    def _expected(self, model: StudyModel, X: Tensor, weights: Tensor) -> Tensor:
        kept = model.feasibility.probability(X)
        return self._utility(*model.surrogate.posterior(X), weights, kept)

    def _utility(self, means: Tensor, deviations: Tensor, weights: Tensor, kept: Tensor) -> Tensor:
        unit = self.span * weights
        utility = expected_smallest((means - self.reference) / unit, CAUTION * deviations / unit)
        return torch.where(utility > 0, utility * kept, utility * (2.0 - kept))

    def recommend(self, weights: Tensor) -> list[Recommendation]:
        """Return what to take for each row of a `w x m`-dim tensor of preferences."""
        eligible = self.eligible().nonzero().flatten()
        if not len(eligible):
            return []
        of_trials = self.of_trials(weights)[eligible]
        best = eligible[of_trials.argmax(dim=0)]
        points = self._climb(
            weights, eligible[of_trials.topk(min(_N_STARTS, len(eligible)), 0).indices]
        )
        return [self._one(points[k], int(best[k]), weights[k]) for k in range(len(weights))]

    def _one(self, point: Tensor, row: int, weights: Tensor) -> Recommendation:
        """Return the point, or the evaluated trial if the point is not clearly better."""
        pair = torch.stack([point, self.model.observations.X[row]])
        utilities = self.expected(pair, weights.expand(2, -1))
        gain = float(utilities[0] - utilities[1])
        likely = bool(self.model.feasibility.allows(point[None]))
        if not (likely and self._is_clear(pair, weights)):
            return self._recommendation(pair[1], weights, float(utilities[1]), 0.0, row)
        return self._recommendation(pair[0], weights, float(utilities[0]), gain, None)

    def _is_clear(self, pair: Tensor, weights: Tensor) -> bool:
        """Whether the first point's utility is probably beyond the second's."""
        z = normal_draws(2 * len(weights)).reshape(-1, len(weights), 2)
        columns = []
        for j, fit in enumerate(self.model.surrogate.fits):
            mean, covariance = fit.process.joint(pair)
            values, vectors = torch.linalg.eigh(covariance)
            root = vectors * values.clamp_min(0.0).sqrt()
            columns.append(mean + z[:, j] @ root.T)
        drawn = torch.stack(columns, dim=-1)  # draws x 2 x m
        utility = ((drawn - self.reference) / (self.span * weights)).amin(dim=-1)
        gains = utility[:, 0] - utility[:, 1]
        return bool(gains.mean() > _CLEAR * gains.std())

    def _recommendation(
        self, point: Tensor, weights: Tensor, utility: float, gain: float, row: int | None
    ) -> Recommendation:
        model = self.model
        means, deviations = model.surrogate.posterior(point[None])
        trial = None if row is None else model.trials[row]
        values = means * self.flips
        return Recommendation(
            params=dict(trial.params) if trial else self._params(point),
            values=values[0].tolist(),
            deviations=deviations[0].tolist(),
            preference=weights.tolist(),
            utility=utility,
            number=None if trial is None else trial.number,
            gain=gain,
            probability=float(model.feasibility.probability(point[None])[0]),
            question_errors=self.question_errors(values)[0].tolist(),
        )

    def _params(self, point: Tensor) -> dict[str, Any]:
        """Return a point's parameters, with those that have one value in all trials."""
        decoded = self.model.cube.decode(point.numpy())
        first = self.model.trials[0]
        constant = {
            name: first.params[name] for name, d in first.distributions.items() if d.single()
        }
        return {**constant, **decoded}

    def _climb(self, weights: Tensor, starts: Tensor) -> Tensor:
        """Return the best convex combination found for each preference, `w x d`-dim.

        Args:
            weights: A `w x m`-dim tensor.
            starts: An `s x w`-dim tensor of rows to start from.
        """
        model, corners = self._reduced(weights, starts.flatten())
        logits = self._logits(self.model.observations.X[starts.flatten()], corners)
        moves = torch.zeros_like(logits).requires_grad_()
        optimizer = torch.optim.Adam([moves], lr=_STEP_SIZE)
        repeated = weights.repeat(len(starts), 1)
        best, best_score = (
            torch.softmax(logits, dim=1) @ corners,
            torch.full((len(logits),), -math.inf),
        )
        for _ in range(_STEPS):
            optimizer.zero_grad()
            points = torch.softmax(logits + moves, dim=1) @ corners
            scores = self._expected(model, points, repeated)
            (-scores.sum()).backward()
            optimizer.step()
            allowed = self.model.feasibility.allows(points)
            better = allowed & (scores > best_score)
            best = torch.where(better[:, None], points, best).detach()
            best_score = torch.where(better, scores, best_score).detach()
        winners = best_score.reshape(len(starts), -1).argmax(dim=0), torch.arange(len(weights))
        chosen: Tensor = best.reshape(len(starts), len(weights), -1)[winners]
        return chosen

    def _logits(self, starts: Tensor, corners: Tensor) -> Tensor:
        """Return where ascents begin: near their starts, in the hull of those with their steps."""
        distances = torch.cdist(starts, corners)
        logits = -_SHARPNESS * distances / distances.mean().clamp_min(1e-12)
        columns = self.model.cube.stepped_columns
        differs = (starts[:, None, columns] - corners[None, :, columns]).abs() > _SAME
        return logits.masked_fill(differs.any(dim=2), -math.inf)

    def _reduced(self, weights: Tensor, starts: Tensor) -> tuple[StudyModel, Tensor]:
        """Return a model that is quick to ask, and the corners of the hull, `c x d`-dim."""
        X, surrogate = self.model.observations.X, self.model.surrogate
        scale = Scale(self.reference, self.span, weights)
        means, likely = self.model.believed[0], self.model.likely
        if len(X) > _MOST_POINTS:
            rows = worth_knowing(means, scale, _MOST_POINTS, likely)
            surrogate = surrogate.restricted(torch.cat([rows, starts]).unique())
        rows = worth_knowing(means, scale, _MOST_CORNERS, likely)
        corners = X[torch.cat([rows, starts]).unique()]
        inside = ((corners >= 0.0) & (corners <= 1.0)).all(dim=1)
        return replace(self.model, surrogate=surrogate), corners[inside]
