"""SimMergeSampler in Optuna studies: arms first, weights under them, new choices while it runs."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from mergefront.samplers import SIPSampler
from mergefront.samplers.simmerge import (
    BanditSettings,
    SimMergeSampler,
    add_choices,
    suggest_choice,
)

OPERATORS = ["linear", "slerp", "ties"]
EXPERTS = ["math", "code"]
WORTH = {"linear": 0.1, "slerp": 0.2, "ties": 0.5, "dare": 0.9}


def _one_hot(arm: Any) -> list[float]:
    row = [float(arm["operator"] == name) for name in WORTH]
    return [*row, float(arm.get("expert") == "code")]


def _objective(trial: optuna.Trial) -> float:
    operator = trial.suggest_categorical("operator", OPERATORS)
    expert = trial.suggest_categorical("expert", EXPERTS)
    return WORTH[operator] + 0.2 * (expert == "code")


def _study(sampler: SimMergeSampler, **options: Any) -> optuna.Study:
    return optuna.create_study(**{"direction": "maximize", **options}, sampler=sampler)


def _choices() -> dict[str, list[str]]:
    return {"operator": OPERATORS, "expert": EXPERTS}


@pytest.mark.parametrize("kind", ["linucb", "neural-linear"])
def test_the_best_arm_is_found_and_kept_to(kind: Any) -> None:
    study = _study(SimMergeSampler(_choices(), _one_hot, settings=BanditSettings(kind), seed=0))
    study.optimize(_objective, n_trials=30)
    assert study.best_params == {"operator": "ties", "expert": "code"}
    last = [trial.params for trial in study.trials[-10:]]
    assert sum(params == study.best_params for params in last) >= 8


def test_what_is_minimized_is_a_loss() -> None:
    study = _study(SimMergeSampler(_choices(), _one_hot, seed=0), direction="minimize")
    study.optimize(_objective, n_trials=25)
    assert study.trials[-1].params == {"operator": "linear", "expert": "math"}


def test_suggestions_depend_on_history_and_seed_alone() -> None:
    runs = []
    for _ in range(2):
        study = _study(SimMergeSampler(_choices(), _one_hot, seed=4))
        study.optimize(_objective, n_trials=8)
        study.sampler = SimMergeSampler(_choices(), _one_hot, seed=4)  # a restart
        study.optimize(_objective, n_trials=4)
        runs.append([trial.params for trial in study.trials])
    assert runs[0] == runs[1]
    other = _study(SimMergeSampler(_choices(), _one_hot, seed=5))
    other.optimize(_objective, n_trials=12)
    assert [trial.params for trial in other.trials] != runs[0]


def test_workers_at_once_try_different_arms() -> None:
    study = _study(SimMergeSampler(_choices(), _one_hot, seed=0))
    trials = [study.ask() for _ in range(6)]
    chosen: Counter[tuple[str, str]] = Counter()
    for trial in trials:
        chosen[trial.relative_params["operator"], trial.relative_params["expert"]] += 1
    assert len(chosen) >= 5


def test_merges_measured_before_are_known_from_the_start() -> None:
    rows = np.array([_one_hot({"operator": name}) for name in OPERATORS] * 5)
    rewards = np.array([WORTH[name] for name in OPERATORS] * 5)
    settings = BanditSettings(earlier=(rows, rewards))
    study = _study(SimMergeSampler({"operator": OPERATORS}, _one_hot, settings=settings, seed=0))
    assert study.ask().relative_params["operator"] == "ties"


def test_a_queued_trial_keeps_its_context() -> None:
    """A task comes along with the trial; the operator is chosen for it."""
    tasks = ["chat", "math"]

    def features(arm: Any) -> list[float]:
        return [float(arm == {"task": t, "operator": o}) for t in tasks for o in OPERATORS]

    study = _study(SimMergeSampler({"task": tasks, "operator": OPERATORS}, features, seed=0))
    for i in range(40):
        study.enqueue_trial({"task": tasks[i % 2]})

    def objective(trial: optuna.Trial) -> float:
        task = trial.suggest_categorical("task", tasks)
        operator = trial.suggest_categorical("operator", OPERATORS)
        return float(operator == ("ties" if task == "math" else "linear"))

    study.optimize(objective, n_trials=40)
    assert [trial.params["task"] for trial in study.trials] == tasks * 20
    assert [trial.value for trial in study.trials[-6:]] == [1.0] * 6


def test_operators_are_added_while_the_study_runs(tmp_path: Path) -> None:
    """Two processes' worth of study objects on one database; one adds, the other's next trials
    see it."""
    url = f"sqlite:///{tmp_path}/study.db"
    sampler = SimMergeSampler({"operator": None}, _one_hot, seed=0)
    study = _study(sampler, storage=url, study_name="s")
    add_choices(study, "operator", OPERATORS)

    def objective(trial: optuna.Trial) -> float:
        return WORTH[suggest_choice(trial, "operator")]

    study.optimize(objective, n_trials=12)
    elsewhere = optuna.load_study(study_name="s", storage=url)
    assert add_choices(elsewhere, "operator", ["ties", "dare"]) == [*OPERATORS, "dare"]
    study.optimize(objective, n_trials=12)
    chosen = [trial.user_attrs["operator"] for trial in study.trials]
    assert "dare" not in chosen[:12]
    assert Counter(chosen[-6:])["dare"] >= 5


def test_tasks_are_added_and_queued_while_the_study_runs() -> None:
    def features(arm: Any) -> list[float]:
        own = [float(arm["operator"] == o and arm["task"] == "law") for o in OPERATORS]
        return [*own, *(float(arm["operator"] == o) for o in OPERATORS)]

    sampler = SimMergeSampler({"task": None, "operator": OPERATORS}, features, seed=0)
    study = _study(sampler)
    add_choices(study, "task", ["math"])

    def objective(trial: optuna.Trial) -> float:
        task = suggest_choice(trial, "task")
        operator = trial.suggest_categorical("operator", OPERATORS)
        return float(operator == ("slerp" if task == "law" else "ties"))

    study.optimize(objective, n_trials=10)
    number = add_choices(study, "task", ["law"]).index("law")
    for _ in range(12):
        study.enqueue_trial({"task": number})
    study.optimize(objective, n_trials=12)
    assert [t.user_attrs["task"] for t in study.trials] == ["math"] * 10 + ["law"] * 12
    assert [t.value for t in study.trials[7:10]] == [1.0] * 3
    assert [t.value for t in study.trials[-3:]] == [1.0] * 3


@pytest.mark.parametrize("queued", [{"operator": "brand new"}, {"operator": 9}])
def test_a_queued_trial_of_an_unknown_choice_is_in_nobodys_way(queued: dict[str, Any]) -> None:
    known = isinstance(queued["operator"], str)
    choices = {"operator": OPERATORS if known else None}
    table = {name: _one_hot({"operator": name}) for name in OPERATORS}
    sampler = SimMergeSampler(choices, lambda arm: table[arm["operator"]], seed=0)
    study = _study(sampler)
    add_choices(study, "operator", OPERATORS)
    study.ask().suggest_float("other", 0, 1)  # takes a number, as the one below does
    study.enqueue_trial(queued)
    waiting = study.get_trials()[-1]
    trial = optuna.Trial(study, study._storage.create_new_trial(study._study_id))
    number = (
        OPERATORS.index(trial.suggest_categorical("operator", OPERATORS))
        if known
        else (trial.suggest_int("operator", 0, len(OPERATORS) - 1))
    )
    assert 0 <= number < len(OPERATORS)
    assert study.get_trials()[waiting.number].state == TrialState.WAITING


def test_arms_without_features_are_not_tried() -> None:
    def features(arm: Any) -> list[float] | None:
        return None if arm["operator"] == "ties" else _one_hot(arm)

    study = _study(SimMergeSampler(_choices(), features, seed=0))
    study.optimize(_objective, n_trials=12)
    assert {trial.params["operator"] for trial in study.trials} == {"linear", "slerp"}
    nothing = _study(SimMergeSampler(_choices(), lambda arm: None, seed=0))
    with pytest.raises(ValueError, match="No arm has features"):
        _ = nothing.ask().relative_params


def test_failed_trials_teach_nothing() -> None:
    study = _study(SimMergeSampler(_choices(), _one_hot, seed=0))

    def objective(trial: optuna.Trial) -> float:
        value = _objective(trial)
        return float("nan") if trial.number % 3 == 0 else value

    study.optimize(objective, n_trials=24)
    assert study.best_params == {"operator": "ties", "expert": "code"}


def _curve(trial: optuna.Trial) -> float:
    """Each operator has its own best weights; that of ties is better than all others'."""
    operator = trial.suggest_categorical("operator", ["linear", "ties"])
    best = {"linear": 0.2, "ties": 0.8}[operator]
    names = [f"layer_{i:03d}" for i in range(2)]
    distance = sum((trial.suggest_float(name, 0, 1) - best) ** 2 for name in names)
    return {"linear": 0.6, "ties": 1.0}[operator] - distance


def test_without_a_sampler_of_their_own_weights_are_drawn_apart() -> None:
    """Each parameter has a draw of its own, the same after a restart."""
    runs = []
    for _ in range(2):
        sampler = SimMergeSampler({"operator": ["linear"]}, lambda arm: [1.0], seed=0)
        study = _study(sampler)
        study.optimize(
            lambda trial: (
                len(trial.suggest_categorical("operator", ["linear"]))
                + sum(trial.suggest_float(f"layer_{i:03d}", 0, 1) for i in range(4))
            ),
            n_trials=20,
        )
        runs.append([[trial.params[f"layer_{i:03d}"] for i in range(4)] for trial in study.trials])
    assert runs[0] == runs[1]
    assert abs(np.corrcoef(np.array(runs[0]).T) - np.eye(4)).max() < 0.6
    assert np.array(runs[0]).std() > 0.2


def test_the_studys_choices_are_looked_up_once_a_suggestion(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = _study(SimMergeSampler({"operator": None, "expert": None}, _one_hot, seed=0))
    add_choices(study, "operator", OPERATORS)
    add_choices(study, "expert", [*EXPERTS, *(f"e{i}" for i in range(40))])
    looks = []
    attributes: Any = vars(optuna.Study)["user_attrs"]

    def count(self: optuna.Study) -> Any:
        looks.append(1)
        return attributes.fget(self)

    monkeypatch.setattr(optuna.Study, "user_attrs", property(count))
    _ = study.ask().relative_params
    assert len(looks) == 1


class _Witness(optuna.samplers.RandomSampler):
    """Notes what it is told."""

    def __init__(self) -> None:
        super().__init__(seed=0)
        self.told: list[str] = []

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self.told.append("before")

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Any
    ) -> None:
        self.told.append(state.name)


def test_the_weights_sampler_hears_of_every_trial() -> None:
    witness = _Witness()
    study = _study(SimMergeSampler(_choices(), _one_hot, weights=witness, seed=0))
    study.optimize(_objective, n_trials=2)
    assert witness.told == ["before", "COMPLETE"] * 2


def test_weights_are_searched_under_the_arm() -> None:
    sampler = SimMergeSampler(
        {"operator": ["linear", "ties"]},
        lambda arm: [float(arm["operator"] == "linear"), float(arm["operator"] == "ties")],
        settings=BanditSettings(alpha=0.5),
        weights=SIPSampler(seed=0, n_startup_trials=6),
        seed=0,
    )
    study = _study(sampler)
    study.optimize(_curve, n_trials=26)
    assert study.best_params["operator"] == "ties"
    assert study.best_value > 0.97
    assert len({trial.params["operator"] for trial in study.trials}) == 2


def test_parameters_of_one_arm_alone_are_searched_together() -> None:
    """Only ties has a density; where it was measured, it is proposed with the weights."""

    def objective(trial: optuna.Trial) -> float:
        operator = trial.suggest_categorical("operator", ["linear", "ties"])
        value = trial.suggest_float("layer_000", 0, 1)
        if operator == "ties":
            value += trial.suggest_float("density", 0.1, 0.9)
        return value

    sampler = SimMergeSampler(
        {"operator": ["linear", "ties"]},
        lambda arm: [float(arm["operator"] == "ties"), 0.5],
        weights=SIPSampler(seed=0, n_startup_trials=4),
        seed=0,
    )
    study = _study(sampler)
    study.optimize(objective, n_trials=16)
    trial = study.ask({})
    assert trial.relative_params.keys() == {"operator", "layer_000", "density"}
    assert study.best_value > 1.7


def test_any_reward_of_a_trial_with_several_objectives() -> None:
    def reward(trial: FrozenTrial) -> float:
        return float(trial.values[0] - 0.01 * trial.values[1])

    study = optuna.create_study(
        directions=["maximize", "minimize"],
        sampler=SimMergeSampler(_choices(), _one_hot, reward=reward, seed=0),
    )
    study.optimize(
        lambda trial: (_objective(trial), 100.0 * (trial.params["operator"] == "ties")),
        n_trials=25,
    )
    assert study.trials[-1].params == {"operator": "slerp", "expert": "code"}
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match="choices must name"):
        SimMergeSampler({}, _one_hot)
    with pytest.raises(ValueError, match="kind must be"):
        BanditSettings(kind="thompson")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="alpha=-1"):
        BanditSettings(alpha=-1.0)
    study = _study(SimMergeSampler({"operator": None}, _one_hot))
    with pytest.raises(ValueError, match="add_choices"):
        _ = study.ask().relative_params
    with pytest.raises(ValueError, match="add_choices"):
        suggest_choice(_study(SimMergeSampler(_choices(), _one_hot)).ask(), "base")
