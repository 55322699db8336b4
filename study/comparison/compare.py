"""Searches of one spec side by side, at equal budgets and over shared answers."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial

from ...errors import SpecError, StudyError
from ...objectives import Measurement, MergeObjective
from ...objectives.evaluation import Answer
from ...objectives.evaluation.rotation import answers_attribute
from ...samplers import MEASURED
from ..baseline import baseline_of
from ..budget import UNLIMITED
from ..first_trials import first_trials, search_space
from ..opening import open_inputs
from ..readiness import check_ready
from ..results.front import front_report
from ..run import devices_of, make_objective, make_sampler, run
from ..seeding import fingerprint_of, init_study
from ..spec.inputs import StudyInputs
from ..spec.study_spec import StudySpec
from ..storage.connection import load_study, state_dir
from .scores import Search
from .simulation import Evaluated, Simulation, Usage, usage
from .variants import Variant


@dataclass(frozen=True)
class Clock:
    """Simulated workers.

    Args:
        n_workers: How many.
        variation: Coefficient of variation of log-normal evaluation times with the recorded
            mean; None takes what each evaluation took when its answers were generated.
        suggest_seconds: That a proposal takes.
    """

    n_workers: int
    variation: float | None = None
    suggest_seconds: float = 0.0

    @property
    def suffix(self) -> str:
        """Of the studies' names."""
        times = "" if self.variation is None else f".cv{self.variation:g}"
        pause = f".p{self.suggest_seconds:g}" if self.suggest_seconds else ""
        return f".w{self.n_workers}{times}{pause}"


def search(
    spec: StudySpec, variant: Variant, seed: int, split: str, clock: Clock | None
) -> Search:
    """Run or resume one search, and measure its front on a fresh split.

    Args:
        spec: Of the comparison.
        variant: What differs.
        seed: Of the search.
        split: Of the fresh questions.
        clock: Simulated workers. Defaults to None: one real worker.

    Raises:
        StudyError: If no trial is believed to keep to the constraints, or the search has more
            trials than the comparison gives it.
    """
    check_budgets(spec, [(variant, seed)], clock)
    inputs = open_inputs(variant.spec(spec, seed, clock.suffix if clock else ""))
    if clock is None:
        run(inputs)
        study = load_study(inputs.spec)
        use = _real_use(study)
    else:
        study, use = _simulated(inputs, clock)
    report = front_report(study, inputs.spec)
    report.check_models()
    with devices_of(inputs.spec) as devices:
        fresh = make_objective(inputs, split, devices)
        values = [fresh.measure(trial.params).values for trial in report.trials]
        fresh.backend.close()
    return Search(variant.label, seed, study.study_name, report, np.array(values), use)


def _simulated(inputs: StudyInputs, clock: Clock) -> tuple[optuna.Study, Usage]:
    study = init_study(inputs, queue=False)
    spec = inputs.spec
    if len(study.get_trials(deepcopy=False)) < spec.study.trials:
        _simulate(study, inputs, clock)
    return study, usage(study.get_trials(deepcopy=False), clock.n_workers)


def _simulate(study: optuna.Study, inputs: StudyInputs, clock: Clock) -> None:
    study.sampler = make_sampler(inputs, study)
    with devices_of(inputs.spec) as devices:
        _simulate_on(study, inputs, clock, make_objective(inputs, devices=devices))


def _simulate_on(
    study: optuna.Study, inputs: StudyInputs, clock: Clock, objective: MergeObjective
) -> None:
    spec = inputs.spec
    simulation = Simulation(
        study,
        search_space(spec, inputs.plan),
        _Evaluation(objective, study, inputs, clock),
        clock.n_workers,
        spec.sampler.batch and clock.n_workers,
        first_trials(spec, inputs.plan),
        clock.suggest_seconds,
        baseline_of(inputs),
    )
    try:
        with FileLock(state_dir(spec) / "simulation.lock", timeout=0):
            simulation.run(spec.study.trials)
    except Timeout:
        raise StudyError(
            f"Another process simulates study {study.study_name!r}. Wait for it, or stop it."
        ) from None
    objective.backend.close()


@dataclass
class _Evaluation:
    objective: MergeObjective
    study: optuna.Study
    inputs: StudyInputs
    clock: Clock

    def __post_init__(self) -> None:
        spec = self.inputs.spec
        tasks = [scored.task for scored in self.objective.questions]
        self.rotation = spec.evaluation.rotation(tasks, spec.study.seed)

    def __call__(self, trial: FrozenTrial) -> Evaluated:
        number = len(self.study.get_trials(deepcopy=False))
        hand = self.rotation.hand(number) if self.rotation else None
        measurement = self.objective.measure(trial.params, race=hand)
        told: dict[str, Any] = {"fingerprint": fingerprint_of(self.study)}
        if hand is not None:
            told["answers"] = answers_attribute(self.objective.metrics, measurement.answers)
        return Evaluated(
            measurement.values,
            {**measurement.attributes(), **told},
            self._seconds(measurement, number),
            {name: violation for name, (violation, _) in measurement.constraints.items()},
        )

    def _seconds(self, measurement: Measurement, number: int) -> float:
        evaluation = self.inputs.spec.evaluation
        vllm = evaluation.backend == "vllm"
        slots = evaluation.engine.max_num_seqs if vllm else evaluation.together
        recorded = recorded_seconds(measurement.answers, slots)
        variation = self.clock.variation
        if variation is None:
            return recorded
        # By the trial's number, so that all searches meet the same times; the mean is a unit.
        sigma = sqrt(np.log1p(variation**2))
        rng = np.random.default_rng([31, number])
        return float(rng.lognormal(-(sigma**2) / 2, sigma)) * _UNIT


# Mean simulated evaluation where times are drawn; only ratios mean anything then.
_UNIT = 300.0


def recorded_seconds(answers: Sequence[Answer], slots: int) -> float:
    """Return how long answers took when they were generated, so many at once.

    Known answers cost nothing again, but an evaluation of its own would have taken this long:
    the end of the last one if each began as soon as one before it ended.
    """
    ends = [0.0] * min(slots, max(len(answers), 1))
    for answer in answers:
        heapq.heapreplace(ends, ends[0] + answer.seconds)
    return max(ends)


def _real_use(study: optuna.Study) -> Usage:
    """Return the times of a real search with one worker; a pause counts as wall-clock."""
    trials = [t for t in study.get_trials(deepcopy=False) if t.datetime_start and t.duration]
    starts = [t.datetime_start.timestamp() for t in trials if t.datetime_start]
    ends = [t.datetime_complete.timestamp() for t in trials if t.datetime_complete]
    seconds = max(ends) - min(starts)
    busy = sum(t.duration.total_seconds() for t in trials if t.duration)
    until_last = busy - (ends[int(np.argmax(starts))] - max(starts))
    claims = max(starts) - min(starts)
    return Usage(seconds, until_last / claims if claims else 1.0, busy / seconds)


def check(
    spec: StudySpec, variants: Sequence[Variant], split: str, clock: Clock | None = None
) -> None:
    """Check every variant's spec, models and questions before anything runs.

    Raises:
        SpecError: At the first that does not fit.
    """
    if spec.study.trials == UNLIMITED:
        raise SpecError(
            "`compare` gives every method the same number of trials, but the spec has another "
            "budget. Add `--trials N`."
        )
    for place, variant in enumerate(variants):
        if variant in variants[:place]:
            raise SpecError(
                f"--presets names {variant.label!r} twice, which would be one search that counts "
                "as two. Remove one."
            )
        asked = variant.spec(spec, spec.study.seed)
        cut = {"racing": asked.evaluation.racing is not None, "screen": asked.evaluation.screen}
        if clock is not None and (used := [key for key, is_used in cut.items() if is_used]):
            raise SpecError(
                "Simulated workers measure whole candidates, but the spec has "
                f"`evaluation.{used[0]}`. Remove it, or compare without --simulate."
            )
        inputs = open_inputs(asked)
        check_ready(inputs)
        inputs.fresh_split(split)


def check_budgets(
    spec: StudySpec, tasks: Sequence[tuple[Variant, int]], clock: Clock | None = None
) -> None:
    """Check that no search that is there already has more trials than the others will have.

    Its first trials are not what a search of so many would be: startup depends on the budget.

    Raises:
        StudyError: With the search that has most.
    """
    suffix = clock.suffix if clock else ""
    searches = [variant.spec(spec, seed, suffix) for variant, seed in tasks]
    found = [(_n_measured(each), each.study) for each in searches]
    most, asked = max(found, key=lambda pair: pair[0])
    if most > asked.trials:
        raise StudyError(
            "Every search of a comparison has the same number of trials, here "
            f"{asked.trials}, but {asked.name!r} has {most} already. Add `--trials {most}`, or "
            "give the spec another `study.name`."
        )


def _n_measured(spec: StudySpec) -> int:
    try:
        trials = load_study(spec).get_trials(deepcopy=False)
    except StudyError:  # not begun, or the search says what is wrong
        return 0
    return sum(trial.state in MEASURED for trial in trials)


def content_of(spec: StudySpec) -> tuple[dict[str, Any], Path]:
    """Return what another process needs to parse the same spec."""
    return spec.model_dump(mode="json"), spec.folder
