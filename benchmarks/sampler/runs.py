"""One search on one problem, kept as a file so that an interrupted benchmark goes on."""

import json
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from problems import Problem, make_problem
from problems.synthetic import N_QUESTIONS
from rivals import N_START, Importance, Start, make_sampler

from mergefront.objectives.evaluation.rotation import Rotation
from mergefront.samplers import GAIN, uniform_levels
from mergefront.study.budget import expected_gain

BUDGET = 48


@dataclass(frozen=True)
class Task:
    """What to run.

    Args:
        problem: Name of the problem.
        sampler: "mergefront", "sip-nehvi", or a name in `rivals.RIVALS`.
        start: The sampler's own start-up trials, or our uniform merges.
        seed: Of sampler and measurements.
        importance: What our sampler is told.
    """

    problem: str
    sampler: str
    start: Start = "uniform"
    seed: int = 0
    importance: Importance = "true"

    @property
    def filename(self) -> str:
        """Name of the result's file."""
        parts = (self.problem.replace("/", "-"), self.sampler, self.start, self.importance)
        return "_".join((*parts, str(self.seed))) + ".json"


@dataclass(frozen=True)
class Run:
    """What a search did.

    Args:
        task: What was run.
        params: One list of weights a trial.
        values: As measured.
        errors: Standard errors of the values.
        cpu_seconds: Of all suggestions together.
        answers: Where questions rotate: each trial's user attribute `answers`.
        gains: What each trial was expected to gain, as a share of utility; None where the sampler
            does not say.
    """

    task: Task
    params: list[list[float]]
    values: list[list[float]]
    errors: list[list[float]]
    cpu_seconds: float
    answers: list[dict[str, Any]] | None = None
    gains: list[float | None] | None = None

    @property
    def problem(self) -> Problem:
        """The problem that was searched."""
        return make_problem(self.task.problem)

    def truths(self) -> torch.Tensor:
        """Return the noise-free values of all trials."""
        with torch.no_grad():
            return self.problem.truth(torch.tensor(self.params, dtype=torch.double))

    def study(self, n: int) -> optuna.Study:
        """Return the first trials as an Optuna study, as a user would hold it."""
        study = optuna.create_study(directions=["maximize", "maximize"])
        names = self.problem.names
        weight = optuna.distributions.FloatDistribution(0.0, 1.0)
        for k, (x, y, e) in enumerate(
            zip(self.params[:n], self.values[:n], self.errors[:n], strict=True)
        ):
            told: dict[str, Any] = {} if self.answers is None else {"answers": self.answers[k]}
            gain = None if self.gains is None else self.gains[k]
            trial = optuna.trial.create_trial(
                values=y,
                params=dict(zip(names, x, strict=True)),
                distributions=dict.fromkeys(names, weight),
                user_attrs={"standard_errors": e, **told},
                system_attrs={} if gain is None else {GAIN: gain},
            )
            study.add_trial(trial)
        return study


def load_or_run(task: Task, folder: Path) -> Run:
    """Return the kept result of a task, or search now and keep it."""
    path = folder / task.filename
    if path.exists():
        content = json.loads(path.read_text())
        return Run(Task(**content.pop("task")), **content)
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = _search(task)
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(asdict(run)))
    partial.rename(path)
    return run


def _search(task: Task) -> Run:
    problem = make_problem(task.problem)
    sampler = make_sampler(task.sampler, problem, task.seed, task.importance)
    study = optuna.create_study(directions=["maximize", "maximize"], sampler=sampler)
    if task.start == "uniform":
        for level in uniform_levels(N_START):
            study.enqueue_trial(dict.fromkeys(problem.names, level))
    rng = np.random.default_rng([task.seed, 29])
    rotation = _rotation(problem, task.seed)
    rows, answers, seconds = [], [], 0.0
    for trial, x, took in _ask(study, problem):
        hand = rotation.hand(trial.number).blocks[0] if rotation else None
        measured = problem.measure(x, rng, hand)
        trial.set_user_attr("standard_errors", measured.errors.tolist())
        if measured.answers is not None:
            answers.append({"questions": hand, "values": measured.answers.tolist()})
            trial.set_user_attr("answers", answers[-1])
        study.tell(trial, measured.values.tolist())
        rows.append((x.tolist(), measured.values.tolist(), measured.errors.tolist()))
        seconds += took
    params, values, errors = map(list, zip(*rows, strict=True))
    gains = [expected_gain(trial) for trial in study.get_trials(deepcopy=False)]
    return Run(task, params, values, errors, seconds, answers or None, gains)


def _rotation(problem: Problem, seed: int) -> Rotation | None:
    """Return who deals 70 questions of the pool to every candidate."""
    if problem.n_pool is None:
        return None
    share = N_QUESTIONS / problem.n_pool
    return Rotation([""] * problem.n_pool, seed=seed + problem.deal, share=share)


def _ask(
    study: optuna.Study, problem: Problem
) -> Iterator[tuple[optuna.Trial, np.ndarray, float]]:
    for _ in range(BUDGET):
        start = time.process_time()
        trial = study.ask()
        x = np.array([trial.suggest_float(name, 0.0, 1.0) for name in problem.names])
        yield trial, x, time.process_time() - start
