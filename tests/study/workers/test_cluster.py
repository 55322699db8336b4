"""Many workers on one PostgreSQL study, through everything that happens in a cluster."""

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from cluster import Cluster
from mergefront.samplers import SIPSampler
from mergefront.study import StudySpec
from mergefront.study.seeding import init_study
from mergefront.study.spec.inputs import load_inputs
from mergefront.study.storage.connection import (
    _engine,
    _full_url,
    load_study,
    open_storage,
    state_dir,
)
from mergefront.study.storage.locks import AdvisoryLock
from mergefront.study.workers.claims import Claims
from postgres import Server, serve
from processes import CONTEXT
from small_study import write_spec

SPACE: dict[str, BaseDistribution] = {
    f"layer_{index:03d}": FloatDistribution(0, 1) for index in range(36)
}


GRACE_SECONDS = 4.0


def _history(url: str) -> optuna.Study:
    """Create a study with 20 finished trials of 36 weights."""
    storage = open_storage(url)
    study = optuna.create_study(
        study_name="asks",
        storage=storage,
        directions=["maximize", "minimize"],
        load_if_exists=True,
    )
    rng = np.random.default_rng(0)
    for _ in range(20):
        x = rng.uniform(size=36)
        trial = create_trial(
            values=[float(x[3] + x[7]), float(x.sum())],
            params=dict(zip(SPACE, x.tolist(), strict=True)),
            distributions=SPACE,
            user_attrs={"standard_errors": [0.1, 0.5]},
        )
        study.add_trial(trial)
    return study


def _ask(url: str, barrier: Any = None) -> list[float]:
    study = optuna.load_study(study_name="asks", storage=open_storage(url, create=False))
    study.sampler = SIPSampler(seed=0, search_space=SPACE)
    lock = AdvisoryLock(_engine(_full_url(url)), "asks", 300.0)
    if barrier is not None:
        barrier.wait()
    with lock.hold() as connection:
        claimed = Claims(study, 100, SPACE).claim(connection, {"worker": "any"})
    assert isinstance(claimed, FrozenTrial)
    return list(claimed.params.values())


def test_simultaneous_asks_give_the_very_points_of_sequential_ones(postgres: Server) -> None:
    alone, together = postgres.new_database(), postgres.new_database()
    _history(alone)
    _history(together)
    expected = sorted(_ask(alone) for _ in range(5))
    barrier = CONTEXT.Barrier(5)
    processes = [CONTEXT.Process(target=_ask, args=(together, barrier)) for _ in range(5)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    study = optuna.load_study(study_name="asks", storage=open_storage(together))
    running = study.get_trials(states=(TrialState.RUNNING,))
    points = sorted(list(trial.params.values()) for trial in running)
    assert points == expected
    distances = [np.linalg.norm(np.subtract(a, b)) for a in points for b in points if a is not b]
    assert min(distances) > 0.3  # asks that do not see each other: 0.014 to 0.037


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of the test's own, to be stopped."""
    with serve() as server:
        yield server


def _spec(folder: Path, server: Server, trials: int, n_questions: int) -> Path:
    study = {
        "storage": server.new_database(),
        "trials": trials,
        "heartbeat_seconds": 0.5,
        "grace_seconds": GRACE_SECONDS,
    }
    return write_spec(folder, n_questions, study=study)


def test_eight_workers_keep_the_budget_and_repeat_no_point(
    tmp_path: Path, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = _spec(tmp_path, postgres, 40, 24)
    init_study(load_inputs(path))
    cluster = Cluster(path, tmp_path)
    try:
        cluster.start(8)
        assert cluster.wait(400) == [0] * 8
    finally:
        cluster.kill()
    trials = load_study(StudySpec.from_yaml(path)).get_trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 40
    points = [list(trial.params.values()) for trial in trials]
    distances = [np.linalg.norm(np.subtract(a, b)) for a in points for b in points if a is not b]
    assert min(distances) > 0.01
    assert len({trial.user_attrs["worker"] for trial in trials}) == 8


def test_a_study_survives_chaos(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = _spec(tmp_path, server, trials=64, n_questions=100)
    inputs = load_inputs(path)
    init_study(inputs)
    cluster, rng = Cluster(path, tmp_path), random.Random(0)
    events = ["kill"] * 9 + ["restart"] * 2 + ["long restart"]
    rng.shuffle(events)
    try:
        cluster.start(4)
        for event in ["kill", "stop", *events, "go on"]:
            _wait_for_results(cluster, len(cluster.measured()) + 2)
            time.sleep(rng.uniform(0, 1))
            print(f"{event} after {len(cluster.measured())} results")
            if event == "stop":
                cluster.stop_at_work(load_study(inputs.spec))
            else:
                _happen(event, cluster, server, rng)
        assert len(cluster.measured()) < 64  # all of it happened while the study ran
        assert set(cluster.wait(400)) == {0}
    finally:
        cluster.kill()
    _check(inputs.spec, cluster)


def _happen(event: str, cluster: Cluster, server: Server, rng: random.Random) -> None:
    if event == "kill":
        rng.choice(cluster.working()).kill()
        cluster.start(1)
    elif event == "go on":
        time.sleep(GRACE_SECONDS)
        cluster.go_on()
    else:
        server.restart(away_seconds=1.5 * GRACE_SECONDS if event == "long restart" else 0.0)


def _wait_for_results(cluster: Cluster, n: int) -> None:
    """Wait for results, and for somebody to be at work."""
    deadline = time.monotonic() + 120
    while len(cluster.measured()) < n or not cluster.working():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _check(spec: StudySpec, cluster: Cluster) -> None:
    trials = load_study(spec).get_trials()
    failures = [t.user_attrs["failure"] for t in trials if t.state == TrialState.FAIL]
    adopted = sum("measured_as" in trial.user_attrs for trial in trials)
    aside = len(_superseded(spec))
    print(f"failed: {failures}; late results: {adopted} adopted, {aside} second measurements")
    assert any(reason.startswith("its worker died") for reason in failures)
    assert adopted + aside >= 1  # the stopped worker's
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert len(complete) == spec.study.trials
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.FAIL}
    points = {tuple(trial.params.values()) for trial in complete}
    assert len(points) == len(complete)
    # No chimera: whatever was tried again has all its parameters from one proposal.
    for trial in trials:
        if (first := trial.system_attrs.get("failed_trial")) is not None:
            assert trial.params == trials[first].params
    _check_nothing_is_lost(spec, cluster, trials)


def _check_nothing_is_lost(spec: StudySpec, cluster: Cluster, trials: list[FrozenTrial]) -> None:
    stored = {(t.user_attrs.get("measured_as", t.number), tuple(t.values or ())) for t in trials}
    stored |= {(result["number"], tuple(result["values"])) for result in _superseded(spec)}
    measured = cluster.measured()
    assert len(measured) >= spec.study.trials
    assert [m for m in measured if (m["number"], tuple(m["values"])) not in stored] == []
    complete = {tuple(t.params.values()) for t in trials if t.state == TrialState.COMPLETE}
    assert all(tuple(trials[m["number"]].params.values()) in complete for m in measured)
    assert list((state_dir(spec) / "spool").glob("trial-*")) == []


def _superseded(spec: StudySpec) -> list[dict[str, Any]]:
    folder = state_dir(spec) / "spool" / "superseded"
    return [json.loads(path.read_text()) for path in folder.glob("*.json")]
