"""BMMSampler: SIP-BMM, AP-BMM and BAMBO as they are described."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from botorch.acquisition import AcquisitionFunction
from botorch.models import ModelListGP
from botorch.sampling import SobolQMCNormalSampler
from linear_operator.utils.warnings import NumericalWarning
from numpy.typing import NDArray
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial
from torch import Tensor

from ._acqf import AcquisitionBudget, climb, raw_points, rounded
from ._acqf.qlognehvi import improvement, noisy_improvement
from ._acqf.rerank import Rerank
from ._constraints import Feasibility, Weighted, fit_feasibility
from ._gp import Observations
from ._gp.published import Lengthscales, fit_published
from ._trials.measurements import MEASURED
from ._trials.search_space import UnitCube
from .sip_sampler import SIPSampler

BMMAcquisition = Literal["qlognehvi", "qehvi"]
_N_SAMPLES = 128
# qEHVI's cost doubles with every point in flight; so many fewer samples keep it level.
_FEWEST_SAMPLES = 16


@dataclass(frozen=True)
class BMMSettings:
    """Which of the published methods.

    Args:
        lengthscales: How importance enters; see `_gp/published.py`.
        acquisition: "qlognehvi" (SIP-BMM, AP-BMM) or "qehvi" (BAMBO), both in their
            logarithmic form.
        rerank: AP-BMM's re-ranking of a pool of candidates. Defaults to None: the best one.
    """

    lengthscales: Lengthscales = "prior"
    acquisition: BMMAcquisition = "qlognehvi"
    rerank: Rerank | None = None

    def __post_init__(self) -> None:
        if self.lengthscales not in get_args(Lengthscales):
            raise ValueError(
                f"lengthscales must be one of {get_args(Lengthscales)}, but got "
                f"{self.lengthscales!r}."
            )
        if self.acquisition not in get_args(BMMAcquisition):
            raise ValueError(
                f"acquisition must be one of {get_args(BMMAcquisition)}, but got "
                f"{self.acquisition!r}."
            )


class BMMSampler(SIPSampler):
    """The published Bayesian optimizers of layer-wise merges, with known bugs fixed.

    SIP-BMM and AP-BMM (arXiv 2512.09972) and BAMBO: Sobol points, then a Matérn-5/2
    process per objective and the expected improvement of the hypervolume. Different from the
    released code: measured noise instead of an invented one, bounds that do not move with the
    data, a reference point inferred from the front, every variable moves its own layer, pending
    trials of every worker are known, a failed trial is no measurement.

    A batch is proposed by asking several times: points in flight are pending. See `SIPSampler`
    for reproducibility.

    Args:
        settings: Which method. Defaults to None: SIP-BMM's with a real prior.
        importance: Parameter name -> importance in [0, 1]; needs "initial" or "prior".
        reference_point: See `SIPSampler`.
        n_startup_trials: Sobol points before the surrogate is used. Defaults to 8.
        seed: See `SIPSampler`.
        search_space: See `SIPSampler`.

    Raises:
        ValueError: If an option is out of its range.
    """

    def __init__(
        self,
        settings: BMMSettings | None = None,
        *,
        importance: Mapping[str, float] | None = None,
        reference_point: Sequence[float] | None = None,
        n_startup_trials: int = 8,
        seed: int | None = None,
        search_space: Mapping[str, BaseDistribution] | None = None,
    ) -> None:
        super().__init__(
            importance=importance,
            reference_point=reference_point,
            n_startup_trials=n_startup_trials,
            startup="sobol",
            seed=seed,
            search_space=search_space,
        )
        self._settings = settings or BMMSettings()
        self._fitted: tuple[bytes, ModelListGP] | None = None

    def _model_point(
        self,
        study: Study,
        number: int,
        cube: UnitCube,
        measured: list[FrozenTrial],
        pending: list[dict[str, Any]],
        given: Mapping[str, Any],
    ) -> NDArray[np.float64]:
        observations = self._observations(study, cube, measured)
        taken = cube.encode(pending) if pending else observations.X[:0]
        model = self._fit(observations)
        among = study.get_trials(deepcopy=False, states=MEASURED)
        feasibility = fit_feasibility(measured, observations, cube, among)
        X = observations.X[feasibility.likely(observations.X)]
        n_samples = _N_SAMPLES
        if self._settings.acquisition == "qehvi":
            n_samples = max(n_samples >> len(taken), _FEWEST_SAMPLES)
        draws = SobolQMCNormalSampler(torch.Size([n_samples]), seed=self._torch_seed(number))
        pool = _Pool(self._settings, model, X, feasibility, draws)
        reference = self._reference(study, pool.means)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NumericalWarning)  # jitter, where points coincide
            best = pool.best(reference, taken, self._rng(number, stream=1))
        return rounded(best).numpy()

    def _fit(self, observations: Observations) -> ModelListGP:
        """Fit, or return the last fit: the points of a batch share one."""
        known = (observations.X, observations.Y, observations.errors)
        key = b"".join(t.numpy().tobytes() for t in known if t is not None)
        if self._fitted is None or self._fitted[0] != key:
            self._fitted = key, fit_published(observations, self._settings.lengthscales)
        return self._fitted[1]


class _Pool:
    """Candidates for one proposal.

    Args:
        settings: Which method.
        model: Fitted.
        X: Measured points that may be picked, `n x d`-dim.
        feasibility: Of all points.
        sampler: Of the posterior.
    """

    def __init__(
        self,
        settings: BMMSettings,
        model: ModelListGP,
        X: Tensor,
        feasibility: Feasibility,
        sampler: SobolQMCNormalSampler,
    ) -> None:
        self._settings, self._model, self._X, self._sampler = settings, model, X, sampler
        self._feasibility = feasibility
        self._budget = AcquisitionBudget()
        self.means = self._predict(X)

    def best(self, reference: Tensor, taken: Tensor, rng: np.random.Generator) -> Tensor:
        """Return the best candidate, `d`-dim: of the acquisition, or as re-ranking prefers."""
        acquisition = self._acquisition(reference, taken)
        raw = raw_points(self._X, self.means, self._budget.n_raw, rng)
        rerank, budget = self._settings.rerank, self._budget
        if rerank is not None:
            budget = replace(budget, n_restarts=rerank.pool)
        pool, scores = climb(acquisition, raw, budget, rng)
        if rerank is not None:
            scores = rerank.scores(scores, self._predict(pool), pool, self.means, taken)
        return pool[scores.argmax()]

    def _acquisition(self, reference: Tensor, taken: Tensor) -> AcquisitionFunction:
        pending = taken if len(taken) else None
        common = (pending, reference, self._sampler)
        acquisition = (
            improvement(self._model, self.means, *common)
            if self._settings.acquisition == "qehvi"
            else noisy_improvement(self._model, self._X, *common)
        )
        if self._feasibility.margins:
            return Weighted(acquisition, self._feasibility, True, self._X)
        return acquisition

    def _predict(self, X: Tensor) -> Tensor:
        with torch.no_grad():
            means: Tensor = self._model.posterior(X).mean
        # A fully Bayesian model has one posterior for each draw of its hyperparameters.
        return means.mean(dim=0) if means.dim() == 3 else means
