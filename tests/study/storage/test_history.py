"""The same trials as Optuna reads."""

import math
import random

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState

from mergefront.study.storage.connection import open_storage
from mergefront.study.storage.history import History
from mergefront.study.storage.ledger import Ledger

SPACE: dict[str, BaseDistribution] = {
    "weight": FloatDistribution(0, 1),
    "layers": IntDistribution(2, 8, step=2),
    "operator": CategoricalDistribution(["linear", "ties"]),
}


def _step(study: optuna.Study, open_trials: list[optuna.Trial], rng: random.Random) -> None:
    """Change the study as any tool might."""
    match rng.randrange(5):
        case 0:
            study.enqueue_trial({"weight": rng.random()})
        case 1 | 2:
            open_trials.append(study.ask(SPACE))
        case 3 if open_trials:
            trial = rng.choice(open_trials)
            trial.set_user_attr("standard_errors", [rng.random(), None])
            trial.set_constraint("truncation", rng.random())
        case _ if open_trials:
            trial = open_trials.pop(rng.randrange(len(open_trials)))
            if rng.random() < 0.3:
                study.tell(trial, state=TrialState.FAIL)
            else:
                study.tell(trial, [rng.random(), math.inf])


def test_a_study_is_read_as_optuna_reads_it_at_every_moment(storage_url: str) -> None:
    study = optuna.create_study(
        storage=open_storage(storage_url),
        directions=["maximize", "minimize"],
        sampler=optuna.samplers.RandomSampler(seed=0),
    )
    history, rng = History(study._study_id), random.Random(0)
    open_trials: list[optuna.Trial] = []
    for _ in range(60):
        _step(study, open_trials, rng)
        with Ledger(study).engine.begin() as connection:
            trials = history.read(connection)
        assert trials == study.get_trials()
        assert [t._trial_id for t in trials] == [t._trial_id for t in study.get_trials()]


def test_intermediate_values_too(storage_url: str) -> None:
    study = optuna.create_study(storage=open_storage(storage_url))
    trial = study.ask({"weight": FloatDistribution(0, 1)})
    trial.report(0.5, 1)
    trial.report(math.nan, 2)
    with Ledger(study).engine.begin() as connection:
        (read,) = History(study._study_id).read(connection)
    assert read.intermediate_values[1] == 0.5
    assert math.isnan(read.intermediate_values[2])
