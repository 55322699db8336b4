"""The spec's sections on prior knowledge and on who proposes candidates."""

from importlib.util import find_spec
from typing import Literal, Self

from pydantic import Field, model_validator

from ...objectives.importance.activation import Pooling
from ...objectives.importance.parameter import Norm, Tensors
from ...samplers import BMMSettings, Rerank
from .base import Fraction, Section
from .presets import Preset

# Presets of BMMSampler, and keys that it alone has.
BMM_PRESETS = ("sip-bmm", "ap-bmm", "bambo")
_BMM_KEYS = ("lengthscales", "acquisition", "rerank")


class ImportanceSection(Section):
    """Prior knowledge about the layers.

    Args:
        kind: How far fine-tuning moved the tensors (`parameter`), how differently the parents see
            the same prompts (`activation`, of the tasks' split `importance`), `both`, or a `file`.
        trust: How much `SIPSampler` believes it.
        norm: Of parameters.
        tensors: Of parameters.
        pooling: Of activations.
        path: Of the file: JSON, search variable -> number in [0, 1].
        permuted: Whether the values are given to random variables instead: a control.
    """

    kind: Literal["none", "parameter", "activation", "both", "file"] = "parameter"
    trust: Literal["learned"] | Fraction = "learned"
    norm: Norm = "relative"
    tensors: Tensors = "all"
    pooling: Pooling = "last"
    path: str | None = None
    permuted: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.kind == "file") != (self.path is not None):
            raise ValueError("kind 'file' needs `path`, and no other kind has one")
        return self


class RerankSection(Section):
    """AP-BMM's re-ranking; see `Rerank`."""

    gap: float = Field(default=0.25, ge=0)
    proximity: float = Field(default=0.15, ge=0)
    pool: int = Field(default=6, ge=2)


class SamplerSection(Section):
    """Who proposes candidates.

    Args:
        preset: `mergefront` is SIPSampler; `qnehvi` the same without prior knowledge of layers;
            `sip-bmm`, `ap-bmm`, `bambo` are BMMSampler; `moead-cmaes` is ours over the library
            cmaes; `uniform`, `task-arithmetic`, `ties`, `dare`, `breadcrumbs`, `della` are
            sweeps of one weight; the others are Optuna's own.
        n_startup_trials: First trials: with `uniform` start-up parents and uniform merges; with
            `sobol` Sobol points, and the parents besides.
        startup: What is measured before anything is proposed; `grid` fills the whole budget
            with a grid of weights (and densities).
        batch: Size of synchronous batches. Defaults to None: whoever is free gets a proposal.
        lengthscales: Of BMMSampler; see `BMMSettings`.
        acquisition: The same.
        rerank: The same.
    """

    preset: Preset = "mergefront"
    n_startup_trials: int = Field(default=8, ge=2)
    startup: Literal["uniform", "sobol", "grid"] = "uniform"
    batch: int | None = Field(default=None, ge=1)
    lengthscales: Literal["default", "initial", "prior", "saas"] = "prior"
    acquisition: Literal["qlognehvi", "qehvi"] = "qlognehvi"
    rerank: RerankSection | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        fields = type(self).model_fields
        foreign = [key for key in _BMM_KEYS if getattr(self, key) != fields[key].default]
        if foreign and self.preset not in BMM_PRESETS:
            raise ValueError(
                f"only the presets {', '.join(BMM_PRESETS)} have {', '.join(foreign)}, but got "
                f"preset {self.preset!r}"
            )
        if self.lengthscales == "saas" and find_spec("numpyro") is None:
            raise ValueError(
                "lengthscales 'saas' needs JAX and NumPyro; run `pip install 'mergefront[saas]'`"
            )
        return self

    @property
    def bmm(self) -> BMMSettings:
        """Settings of BMMSampler."""
        rerank = None if self.rerank is None else Rerank(**self.rerank.model_dump())
        return BMMSettings(self.lengthscales, self.acquisition, rerank)
