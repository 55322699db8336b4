"""Simulated workers on a real PostgreSQL: ask and tell, nothing in between."""

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from mergefront.samplers import SIPSampler
from mergefront.study.storage.connection import open_storage
from mergefront.study.storage.ledger import Ending, Ledger
from mergefront.study.storage.locks import AdvisoryLock
from mergefront.study.workers.claims import Claims

STUDY = "load"
SPACE: dict[str, BaseDistribution] = {
    f"layer_{index:03d}": FloatDistribution(0.0, 1.0) for index in range(36)
}
# What every finished trial of a study carries.
ATTRIBUTES: dict[str, Any] = {
    "standard_errors": [0.02, 1.3],
    "n_questions": 320,
    "generated_tokens": 5000,
    "merge_seconds": 0.01,
    "evaluate_seconds": 300.0,
    "fingerprint": "0123456789ab",
    "finish_reasons": {"stop": 320},
}
WORKER = {"worker": "simulated", "host": "simulated"}


@dataclass(frozen=True)
class Load:
    """What trials cost.

    Args:
        seconds: For one trial's ask and tell, of every trial.
        statements: SQL statements for a trial.
        per_second: Trials a second, all workers together.
    """

    seconds: list[float]
    statements: float
    per_second: float


def fill(url: str, n: int) -> None:
    """Create the study with `n` finished trials."""
    storage = open_storage(url)
    study = optuna.create_study(
        study_name=STUDY, storage=storage, directions=["maximize", "minimize"]
    )
    ledger, rng = Ledger(study), np.random.default_rng(0)
    for _ in range(n):
        with ledger.engine.begin() as connection:
            ledger.add(connection, _finished(rng))
    ledger.engine.dispose()


def _finished(rng: np.random.Generator) -> FrozenTrial:
    x = rng.uniform(size=36) * 0.6 + rng.uniform() * 0.4
    values = [float(x[:6].mean()), float(x[4:12].mean())]
    return create_trial(
        values=[value + 0.05 * rng.normal() for value in values],
        params=dict(zip(SPACE, x.tolist(), strict=True)),
        distributions=SPACE,
        user_attrs={**ATTRIBUTES, **WORKER, "standard_errors": [0.05, 0.05], "phase": "search"},
    )


def _open(url: str) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.RandomSampler()
    storage = open_storage(url, create=False)
    return optuna.load_study(study_name=STUDY, storage=storage, sampler=sampler)


def _ours(url: str) -> Callable[[], None]:
    study = _open(url)
    claims, lock = Claims(study, 10**6, SPACE), advisory_lock(url)

    def trial() -> None:
        with claims.ledger.engine.connect() as connection:
            claims.trials(connection)
        with lock.hold() as connection:
            claimed = claims.claim(connection, WORKER)
        assert isinstance(claimed, FrozenTrial)
        ending = Ending(TrialState.COMPLETE, [0.5, 0.5], ATTRIBUTES)
        with claims.ledger.engine.begin() as connection:
            claims.ledger.end(connection, claimed._trial_id, ending)

    return trial


def _stock(url: str) -> Callable[[], None]:
    study = _open(url)

    def trial() -> None:
        asked = study.ask(SPACE)
        for key, value in {**WORKER, "phase": "search", **ATTRIBUTES}.items():
            asked.set_user_attr(key, value)
        study.tell(asked, [0.5, 0.5])

    return trial


SIDES = {"mergefront": _ours, "study.ask / tell": _stock}


def advisory_lock(url: str) -> AdvisoryLock:
    """Return the study's lock."""
    full = url.replace("postgresql:", "postgresql+psycopg2:")
    engine = sqlalchemy.create_engine(full, poolclass=sqlalchemy.pool.NullPool)
    return AdvisoryLock(engine, STUDY, 300.0)


def _work(url: str, side: str, n_trials: int, barrier: Any, results: Any) -> None:
    trial = SIDES[side](url)
    trial()  # opens connections, loads the history
    counter = _count_statements()
    barrier.wait()
    seconds = []
    for _ in range(n_trials):
        start = time.perf_counter()
        trial()
        seconds.append(time.perf_counter() - start)
    results.put((seconds, counter[0]))


def _count_statements() -> list[int]:
    counter = [0]

    def count(*_: object) -> None:
        counter[0] += 1

    sqlalchemy.event.listen(sqlalchemy.engine.Engine, "before_cursor_execute", count)
    return counter


def measure(url: str, side: str, n_workers: int, n_trials: int) -> Load:
    """Let processes ask and tell at full speed.

    Args:
        url: Of a filled database.
        side: A name in `SIDES`.
        n_workers: Processes.
        n_trials: Of each.
    """
    # Forked: sixty-four interpreters of their own would need the memory of as many imports.
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(n_workers + 1), context.Queue()
    arguments = (url, side, n_trials, barrier, results)
    processes = [context.Process(target=_work, args=arguments) for _ in range(n_workers)]
    for process in processes:
        process.start()
    barrier.wait()
    start = time.perf_counter()
    parts = [results.get() for _ in processes]
    wall = time.perf_counter() - start
    for process in processes:
        process.join()
    total = n_workers * n_trials
    seconds = [s for part, _ in parts for s in part]
    return Load(seconds, sum(n for _, n in parts) / total, total / wall)


def lock_seconds(url: str, pending: int, repeats: int) -> list[float]:
    """Return for how long claims with `SIPSampler` hold the lock.

    Args:
        url: Of a filled database.
        pending: Other workers' running trials.
        repeats: Claims, each of which is given back.
    """
    study = _open(url)
    rng = np.random.default_rng(1)
    importance = dict(zip(SPACE, rng.uniform(size=36).tolist(), strict=True))
    study.sampler = SIPSampler(importance=importance, seed=0, search_space=SPACE)
    claims, lock = Claims(study, 10**6, SPACE), advisory_lock(url)
    with claims.ledger.engine.begin() as connection:
        for _ in range(pending):
            claims.ledger.add(connection, _running(rng))
    seconds = []
    for repeat in range(repeats + 1):
        with lock.hold() as connection:
            start = time.perf_counter()
            claimed = claims.claim(connection, WORKER)
            held = time.perf_counter() - start
        assert isinstance(claimed, FrozenTrial)
        with claims.ledger.engine.begin() as connection:
            claims.ledger.end(connection, claimed._trial_id, Ending(TrialState.FAIL))
        if repeat:  # the first one loads the history
            seconds.append(held)
    return seconds


def _running(rng: np.random.Generator) -> FrozenTrial:
    params = dict(zip(SPACE, rng.uniform(size=36).tolist(), strict=True))
    return create_trial(state=TrialState.RUNNING, params=params, distributions=SPACE)
