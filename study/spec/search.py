"""The spec's sections on budget and prior knowledge, and on who proposes candidates until when."""

from importlib.util import find_spec
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ...objectives.importance.activation import Pooling
from ...objectives.importance.parameter import Norm, Tensors
from ...samplers import BMMSettings, Rerank
from ..budget import UNLIMITED
from .base import NAME, URL, Fraction, Section, Share
from .presets import Preset

# Presets of BMMSampler, and keys that it alone has.
BMM_PRESETS = ("sip-bmm", "ap-bmm", "bambo")
# Those that search over operators and experts.
JOINT_PRESETS = ("mergefront", "qnehvi", "gp", "tpe", "nsga2", "random")
# Presets of SIPSampler.
SIP_PRESETS = ("mergefront", "qnehvi")
_BMM_KEYS = ("lengthscales", "acquisition", "rerank")


class ImportanceSection(Section):
    """Prior knowledge about the layers.

    Args:
        kind: How much fine-tuning changed the tensors (`parameter`), how different the parents'
            hidden states are on the prompts of the split `importance` (`activation`), `both`,
            or a `file`.
        trust: How far `SIPSampler` relies on it, from 0 to 1; `learned` from the results.
        norm: Whether the change of parameters is relative to the base's or absolute.
        tensors: Whether all tensors of a layer count, or its matrices only.
        pooling: Whether hidden states are compared at the last token or on average.
        path: JSON file that maps search variables to numbers in [0, 1].
        permuted: Whether the values are given to random variables instead, as a control.
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
    """AP-BMM's re-ranking of proposals.

    Args:
        gap: Bonus for candidates that are expected to fill a gap of the front.
        proximity: Penalty for candidates close to those already being measured.
        pool: Number of candidates from which one is chosen.
    """

    gap: float = Field(default=0.25, ge=0)
    proximity: float = Field(default=0.15, ge=0)
    pool: int = Field(default=6, ge=2)


class SamplerSection(Section):
    """Who proposes candidates.

    Args:
        preset: `mergefront` is SIPSampler; `qnehvi` is the same without prior knowledge of
            layers; `sip-bmm`, `ap-bmm` and `bambo` are BMMSampler; `moead-cmaes` is MOEA/D with
            CMA-ES; `uniform`, `task-arithmetic`, `ties`, `dare`, `breadcrumbs` and `della` vary
            one weight for the whole model; the others are Optuna's samplers.
        n_startup_trials: Number of first trials: with `uniform` start-up the parents and uniform
            merges; with `sobol` Sobol points, in addition to the parents.
        startup: What is measured before the sampler proposes anything; `grid` fills the whole
            budget with a grid of weights (and densities).
        batch: Size of synchronous batches. Defaults to None: every free worker gets a proposal.
        lengthscales: How BMMSampler starts or restricts its lengthscales.
        acquisition: What BMMSampler maximizes.
        rerank: How BMMSampler re-ranks proposals. Defaults to None: not at all.
        warm_start: Earlier studies that SIPSampler learns from: names of studies in the same
            storage, `storage#study`, or spec files. Another pair, other questions, more or fewer
            layers are no matter; how far it relies on them it learns. Defaults to []: none.
    """

    preset: Preset = "mergefront"
    n_startup_trials: int = Field(default=8, ge=2)
    startup: Literal["uniform", "sobol", "grid"] = "uniform"
    batch: int | None = Field(default=None, ge=1)
    lengthscales: Literal["default", "initial", "prior", "saas"] = "prior"
    acquisition: Literal["qlognehvi", "qehvi"] = "qlognehvi"
    rerank: RerankSection | None = None
    warm_start: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _check(self) -> Self:
        fields = type(self).model_fields
        foreign = [key for key in _BMM_KEYS if getattr(self, key) != fields[key].default]
        if foreign and self.preset not in BMM_PRESETS:
            raise ValueError(
                f"only the presets {', '.join(BMM_PRESETS)} have {', '.join(foreign)}, but got "
                f"preset {self.preset!r}"
            )
        if self.warm_start and self.preset not in SIP_PRESETS:
            raise ValueError(
                f"only the presets {', '.join(SIP_PRESETS)} have warm_start, but got preset "
                f"{self.preset!r}"
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


class BudgetSection(Section):
    """What a study may use; exactly one of the keys.

    Args:
        trials: Measured trials at the end, like `study.trials`.
        tokens: Generated tokens of all candidates. No candidate is begun that would exceed it if
            it generated as many as the longest so far.
        gpu_hours: Time of merging, generating and scoring, times the GPUs of a worker.
    """

    trials: int | None = Field(default=None, ge=1)
    tokens: int | None = Field(default=None, ge=1)
    gpu_hours: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [key for key, value in self if value is not None]
        if len(given) != 1:
            raise ValueError(
                "`budget` needs exactly one of trials, tokens and gpu_hours, but got "
                f"{', '.join(given) or 'none'}"
            )
        return self


class StopSection(Section):
    """When a study ends before its budget is used.

    Args:
        gain: Expected gain of any further measurement, as a share of the utility of what is picked
            (`0.5 %`): the study ends when three proposals in a row promise less.
    """

    gain: Share


class StudySection(Section):
    """Where the study is stored and how long it runs.

    Args:
        name: The study's name, unique in its storage.
        storage: SQLAlchemy URL; a relative SQLite path is relative to the working directory.
        trials: How many measured trials the study has when it is finished: COMPLETE ones, and
            PRUNED ones if there is racing or `evaluation.screen`.
        seed: Random seed of the sampler.
        heartbeat_seconds: Seconds between two heartbeats of a worker.
        grace_seconds: Seconds without a heartbeat before a worker on another machine is
            considered dead and its trial is queued again; at least twice `heartbeat_seconds`.
        budget: What the study may use, instead of `trials`.
        stop: When it ends earlier.
    """

    name: str = Field(min_length=1, max_length=120, pattern=NAME)
    storage: str = Field(pattern=URL)
    trials: int = Field(default=UNLIMITED, ge=1)
    seed: int = Field(default=0, ge=0)
    heartbeat_seconds: float = Field(default=20.0, gt=0)
    grace_seconds: float = Field(default=120.0, gt=0)
    budget: BudgetSection | None = None
    stop: StopSection | None = None

    @model_validator(mode="before")
    @classmethod
    def _with_trials(cls, content: Any) -> Any:
        """Take the trials from the budget, if that is where they are."""
        if not isinstance(content, dict) or content.get("trials") is not None:
            return content
        content = {key: value for key, value in content.items() if key != "trials"}
        budget = content.get("budget")
        if isinstance(budget, dict) and budget.get("trials") is not None:
            return {**content, "trials": budget["trials"]}
        if budget is None:
            raise ValueError(
                "a study needs `trials`, or a `budget` of trials, tokens or gpu hours"
            )
        return content

    @model_validator(mode="after")
    def _check(self) -> Self:
        told = None if self.budget is None else self.budget.trials
        if told is not None and told != self.trials:
            raise ValueError(
                f"trials is {self.trials} and budget.trials is {told}; keep one of them"
            )
        if self.grace_seconds < 2 * self.heartbeat_seconds:
            raise ValueError(
                "grace_seconds must be at least twice heartbeat_seconds, but got "
                f"{self.grace_seconds:g} and {self.heartbeat_seconds:g}"
            )
        return self


class CostSection(Section):
    """What computing costs.

    Args:
        per_hour: Price of one GPU for one hour, in any currency.
    """

    per_hour: float = Field(gt=0)


def check_end(trials: int, tokens: float | None, screen: bool) -> None:
    """Check that a study ends although candidates that are screened generate nothing.

    Raises:
        ValueError: If nothing but tokens ends it.
    """
    if screen and tokens is not None and trials == UNLIMITED:
        raise ValueError(
            "a budget of tokens with `evaluation.screen` needs `study.trials` too, as candidates "
            "that are screened generate nothing, and tokens alone may never end the study"
        )


def check_search(
    sampler: SamplerSection, stop: StopSection | None, baseline: int | None, n_experts: int
) -> None:
    """Check that what ends and begins a search fits who searches.

    Raises:
        ValueError: With the key that does not.
    """
    if stop is not None and sampler.preset != "mergefront":
        raise ValueError(
            "`study.stop` goes by the knowledge gradient of the preset mergefront, but the "
            f"preset is {sampler.preset}; remove one of them"
        )
    if baseline is not None and (sampler.startup != "uniform" or n_experts > 1):
        raise ValueError(
            "`evaluation.baseline` adds to the uniform merges of one expert that a start-up "
            f"'uniform' begins with, but got startup {sampler.startup!r} and {n_experts} experts"
        )


def check_joint(
    sampler: SamplerSection, baseline: int | None, what: str = "operators and experts"
) -> None:
    """Check who searches over choices, of `what`, and where it begins.

    Raises:
        ValueError: With the key that does not fit.
    """
    if sampler.preset not in JOINT_PRESETS:
        raise ValueError(
            f"{what} are searched by the presets {', '.join(JOINT_PRESETS)}, but the preset is "
            f"{sampler.preset}"
        )
    if sampler.startup != "uniform" or baseline is not None:
        raise ValueError(
            f"a search over {what} begins with uniform merges of all kinds; remove "
            "`sampler.startup` and `evaluation.baseline`"
        )
