"""Bandits in rounds: models come along, something is chosen for them, that alone is measured."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean

import numpy as np
import optuna
from measure import METHODS
from numpy.typing import NDArray
from signals import own_task
from table import OPERATORS, Pair, Table

from mergefront.samplers.simmerge import ArmFeatures, BanditSettings, Merge, SimMergeSampler

Arm = Mapping[str, str]
Array = NDArray[np.float64]
_ROUND = "models"
_LABELS = [METHODS[name].label for name in OPERATORS]


@dataclass(frozen=True)
class Game:
    """What comes along, and what can be chosen for it.

    Args:
        rounds: Names of what comes along, in order.
        choices: Name -> values.
        features: Round and arm -> features.
        worth: Round and arm -> accuracy.
        level: Round -> mean accuracy of its models; rewards are gains over it.
        fixed: Arms of the best fixed operator; more than one where an order is left open.
    """

    rounds: list[str]
    choices: dict[str, list[str]]
    features: Callable[[str, Arm], list[float]]
    worth: Callable[[str, Arm], float]
    level: Callable[[str], float]
    fixed: list[Arm]

    @property
    def arms(self) -> list[Arm]:
        """All arms."""
        rows = product(*self.choices.values())
        return [dict(zip(self.choices, row, strict=True)) for row in rows]

    def regret(self, chosen: Mapping[str, Sequence[Arm]]) -> list[float]:
        """Return cumulative regret of what was chosen in each round, mean over several arms."""
        losses = []
        for name in self.rounds:
            best = max(self.worth(name, arm) for arm in self.arms)
            losses.append(best - fmean(self.worth(name, arm) for arm in chosen[name]))
        total: list[float] = np.cumsum(losses).tolist()
        return total

    def experience(self, names: Sequence[str]) -> tuple[Array, Array]:
        """Return features and rewards of all arms of other rounds."""
        rows = [(name, arm) for name in names for arm in self.arms]
        features = np.array([self.features(*row) for row in rows])
        return features, np.array([self.worth(*row) - self.level(row[0]) for row in rows])


def play(game: Game, settings: BanditSettings, seed: int) -> list[float]:
    """Return a bandit's cumulative regret, in a study whose trials are queued with their round."""
    sampler = SimMergeSampler(
        {_ROUND: game.rounds, **game.choices},
        lambda arm: game.features(arm[_ROUND], {k: v for k, v in arm.items() if k != _ROUND}),
        settings=settings,
        seed=seed,
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for name in game.rounds:
        study.enqueue_trial({_ROUND: name})
    chosen: dict[str, list[Arm]] = {}

    def objective(trial: optuna.Trial) -> float:
        name = trial.suggest_categorical(_ROUND, game.rounds)
        arm = {key: trial.suggest_categorical(key, v) for key, v in game.choices.items()}
        chosen[name] = [arm]
        return game.worth(name, arm) - game.level(name)

    study.optimize(objective, n_trials=len(game.rounds))
    return game.regret(chosen)


def regrets(game: Game, others: Sequence[str], seed: int) -> dict[str, list[float]]:
    """Return the cumulative regret of every selector.

    Args:
        game: Its rounds are of models left out.
        others: Rounds of other models, all of whose arms were measured before.
        seed: Of the bandits.
    """
    found = {
        "random": game.regret(dict.fromkeys(game.rounds, game.arms)),
        "best fixed operator": game.regret(dict.fromkeys(game.rounds, game.fixed)),
    }
    earlier = game.experience(others)
    kinds = {"LinUCB": BanditSettings("linucb"), "neural-linear": BanditSettings("neural-linear")}
    for name, settings in kinds.items():
        found[f"{name}, knowing nothing"] = play(game, settings, seed)
        knowing = BanditSettings(settings.kind, earlier=earlier)
        found[f"{name}, after other models"] = play(game, knowing, seed)
    return found


def two_way_game(table: Table, train: Sequence[Pair], test: Sequence[Pair], fixed: str) -> Game:
    """Return the game of choosing each pair's operator."""
    names = {"+".join(pair): pair for pair in [*train, *test]}
    arms = arm_features(table, train)

    def features(name: str, arm: Arm) -> list[float]:
        pair = names[name]
        return list(arms(table.merge(pair, arm["operator"], own_task(pair))))

    return Game(
        _shuffled("+".join(pair) for pair in test),
        {"operator": list(OPERATORS)},
        features,
        lambda name, arm: table.score(names[name], (arm["operator"],), own_task(names[name])),
        lambda name: table.mean_of_parents(names[name], own_task(names[name])),
        [{"operator": fixed}],
    )


def three_way_game(
    table: Table, train: Sequence[Pair], test: Sequence[tuple[str, ...]], fixed: str
) -> Game:
    """Return the game of choosing each triple's order and operators."""
    names = {"+".join(triple): triple for triple in table.triples}
    arms = arm_features(table, train)

    def features(name: str, arm: Arm) -> list[float]:
        triple = names[name]
        last = triple[int(arm["last"])]
        left, right = (model for model in triple if model != last)
        task = own_task(triple)
        first = arms(table.merge((left, right), arm["first operator"], task))
        then = [
            arms(table.merge((model, last), arm["last operator"], task)) for model in (left, right)
        ]
        return list(np.concatenate([first, np.mean(then, axis=0)]))

    def worth(name: str, arm: Arm) -> float:
        triple = names[name]
        last = triple[int(arm["last"])]
        operators = (arm["first operator"], arm["last operator"])
        return next(
            value
            for (models, ops), value in table.triples[triple].items()
            if models[2] == last and ops == operators
        )

    places = ["0", "1", "2"]
    return Game(
        _shuffled("+".join(triple) for triple in test),
        {"last": places, "first operator": list(OPERATORS), "last operator": list(OPERATORS)},
        features,
        worth,
        lambda name: table.mean_of_parents(names[name], own_task(names[name])),
        [{"last": p, "first operator": fixed, "last operator": fixed} for p in places],
    )


def arm_features(table: Table, pairs: Sequence[Pair]) -> ArmFeatures:
    """Return features learned from the signals of pairs in training."""
    merges: list[Merge] = [
        table.merge(pair, o, own_task(pair)) for pair in pairs for o in OPERATORS
    ]
    return ArmFeatures(merges, _LABELS)


def _shuffled(names: Iterable[str]) -> list[str]:
    found = sorted(names)
    random.Random(0).shuffle(found)
    return found
