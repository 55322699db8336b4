"""SimMergeSampler: what to merge and how, learned while a study runs; then the weights."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
from optuna import Study, Trial
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from .._trials.magnitude import LARGEST
from .._trials.measurements import MEASURED
from .._trials.pending import given_params, known_params, publish
from .bandit import LinUCB, NeuralLinear
from .regressors import Array
from .view import view

# What is chosen together: name of a parameter -> its value.
Arm = Mapping[str, Any]
Features = Callable[[Arm], Sequence[float] | None]
_REGISTRY = "simmerge:choices:"
_STATES = (*MEASURED, TrialState.RUNNING, TrialState.WAITING)


def add_choices(study: Study, name: str, choices: Sequence[str]) -> list[str]:
    """Add choices of a parameter to a study that may be running; return all there are.

    Optuna refuses a categorical parameter whose choices change. Choices added here are kept in
    the study's attributes, in the order they came, and a trial holds their number: read a choice
    by `suggest_choice`. Workers see new ones with their next trial. Add them from one process.

    Args:
        study: To add them to.
        name: Of the parameter, for example "operator".
        choices: Those that are there already are left alone.
    """
    known = _registered(study, name)
    known += [choice for choice in dict.fromkeys(choices) if choice not in known]
    study.set_user_attr(_REGISTRY + name, known)
    return known


def suggest_choice(trial: Trial, name: str) -> str:
    """Return a trial's choice of a parameter that `add_choices` gave the study.

    It is noted in the trial's user attributes under the parameter's name.

    Raises:
        ValueError: If the parameter has no choices.
    """
    known = _registered(trial.study, name)
    if not known:
        raise ValueError(f"{name!r} has no choices; call `add_choices(study, {name!r}, [...])`.")
    choice = known[trial.suggest_int(name, 0, len(known) - 1)]
    trial.set_user_attr(name, choice)
    return choice


def _registered(study: Study, name: str) -> list[str]:
    return list(study.user_attrs.get(_REGISTRY + name, []))


@dataclass(frozen=True)
class BanditSettings:
    """Of the bandit that chooses.

    Args:
        kind: "linucb", or "neural-linear" for features learned by a small network.
        alpha: Optimism in standard deviations of the reward; see `LinUCB`.
        ridge: See `LinUCB`.
        earlier: Features and rewards of merges that were measured before, `n x d`-dim and
            `n`-dim, larger is better, on the scale of the study's rewards.

    Raises:
        ValueError: If one is out of its range.
    """

    kind: Literal["linucb", "neural-linear"] = "linucb"
    alpha: float = 1.0
    ridge: float = 1.0
    earlier: tuple[Array, Array] | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("linucb", "neural-linear"):
            raise ValueError(f"kind must be 'linucb' or 'neural-linear', but got {self.kind!r}.")
        self.make(0)

    def make(self, seed: int) -> LinUCB | NeuralLinear:
        """Return the bandit."""
        if self.kind == "linucb":
            return LinUCB(self.alpha, self.ridge)
        return NeuralLinear(self.alpha, self.ridge, seed)


class SimMergeSampler(BaseSampler):
    """Chooses what to merge by a contextual bandit, and the weights under it by another sampler.

    An arm is one value for every parameter of `choices`, for example an operator, a base, an
    expert and an order. Its features tell arms apart and let what one arm brought say something
    about others; new operators, models and tasks need no more than features (`add_choices`).

    After the online variant of SimMerge (arXiv 2601.09473), neural-linear LinUCB under partial
    feedback. Ours differs: arms under way narrow the bounds, a queued trial's fixed parameters
    (say, its task) are kept to, and layer weights are searched under the arm in the same trial.

    A suggestion depends on the study's history, `seed` and the trial's number alone.

    Example::

        choices = {"operator": ["linear", "slerp", "ties"], "expert": ["math", "code"]}
        sampler = SimMergeSampler(choices, lambda arm: signals[arm["expert"], arm["operator"]])
        study = optuna.create_study(direction="maximize", sampler=sampler)

    Args:
        choices: Name of a parameter -> its values; None for one whose choices are in the study
            (`add_choices`).
        features: Arm -> numbers, the same many for all arms, best of length about 1; None for an
            arm that is not to be tried.
        settings: Of the bandit.
        reward: Of a finished trial, larger is better; by default the first objective.
        weights: Sampler of all other parameters; it sees the trials of the chosen arm alone.
            Defaults to None: they are drawn at random.
        seed: Drawn from the operating system if None.

    Raises:
        ValueError: If there is nothing to choose.
    """

    def __init__(
        self,
        choices: Mapping[str, Sequence[Any] | None],
        features: Features,
        *,
        settings: BanditSettings | None = None,
        reward: Callable[[FrozenTrial], float] | None = None,
        weights: BaseSampler | None = None,
        seed: int | None = None,
    ) -> None:
        if not choices:
            raise ValueError("choices must name at least one parameter, but there are none.")
        self._choices, self._features = dict(choices), features
        self._seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
        settings = settings or BanditSettings()
        self._bandit, self._earlier = settings.make(self._seed), settings.earlier
        self._reward, self._weights = reward, weights
        self._chosen: dict[int, dict[str, Any]] = {}

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Tell the weights' sampler."""
        if self._weights is not None:
            self._weights.before_trial(study, trial)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Tell the weights' sampler."""
        if self._weights is not None:
            self._weights.after_trial(study, trial, state, values)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Choose the arm; return the choices, and what the weights' sampler asks for under it."""
        options = self._options(study)
        arm = self._choose(study, trial, options)
        self._chosen[trial.number] = arm
        return {**self._distributions(options), **self._weight_space(study, trial, arm)}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the arm with the highest bound, and weights under it."""
        params = arm = self._chosen.pop(trial.number)
        space = {name: d for name, d in search_space.items() if name not in self._choices}
        if self._weights is not None and space:
            weights = self._weights.sample_relative(view(study, arm), trial, space)
            params = {**arm, **weights}
        publish(study, trial, params)
        return params

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Ask the weights' sampler, or draw."""
        arm = {name: trial.params[name] for name in self._choices if name in trial.params}
        place = (view(study, arm), trial, param_name, param_distribution)
        if self._weights is not None:
            return self._weights.sample_independent(*place)
        entropy = [self._seed, trial.number, zlib.crc32(param_name.encode())]
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        return RandomSampler(seed).sample_independent(*place)

    def _options(self, study: Study) -> dict[str, list[Any]]:
        """Return the values of every parameter, with one look at the study's attributes."""
        attributes = study.user_attrs
        options = {
            name: list(attributes.get(_REGISTRY + name, []) if values is None else values)
            for name, values in self._choices.items()
        }
        for name, values in options.items():
            if not values:
                raise ValueError(
                    f"{name!r} has no choices; call `add_choices(study, {name!r}, [...])`."
                )
        return options

    def _distributions(self, options: Mapping[str, list[Any]]) -> dict[str, BaseDistribution]:
        return {
            name: IntDistribution(0, len(values) - 1)
            if self._choices[name] is None
            else CategoricalDistribution(values)
            for name, values in options.items()
        }

    def _choose(
        self, study: Study, trial: FrozenTrial, options: Mapping[str, list[Any]]
    ) -> dict[str, Any]:
        """Return the parameters of the arm with the highest bound."""
        arms = self._arms(options, self._read(options, given_params(trial)))
        trials = study._get_trials(deepcopy=False, states=_STATES, use_cache=False)
        others = [other for other in trials if other.number != trial.number]
        measured = [other for other in others if other.state in MEASURED]
        tried, rewards = self._experience(study, measured, options)
        under_way = [other for other in others if other.state not in MEASURED]
        begun = [self._read(options, known_params(other)) for other in under_way]
        pending = self._rows(begun, options)
        dim = len(arms[0][1])
        rows = np.array([row for _, row in arms], dtype=np.float64)
        bounds = self._bandit.bounds(rows, _matrix(tried, dim), rewards, _matrix(pending, dim))
        # Equal bounds, as of all arms at the start, are not settled by the order of the choices.
        order = np.random.default_rng([self._seed, trial.number]).permutation(len(arms))
        best = arms[order[int(np.argmax(bounds[order]))]][0]
        return {
            name: options[name].index(value) if self._choices[name] is None else value
            for name, value in best.items()
        }

    def _read(self, options: Mapping[str, list[Any]], params: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is known of an arm, with choices in place of their numbers.

        A number that no choice has, as a user may queue it, says nothing.
        """
        found = {}
        for name in (name for name in self._choices if name in params):
            value, known = params[name], options[name]
            if self._choices[name] is not None:
                found[name] = value
            elif isinstance(value, int | np.integer) and value < len(known):
                found[name] = known[int(value)]
        return found

    def _arms(
        self, options: Mapping[str, list[Any]], fixed: Arm
    ) -> list[tuple[Arm, Sequence[float]]]:
        """Return all arms that a trial may take, with their features."""
        values = [[fixed[name]] if name in fixed else options[name] for name in self._choices]
        arms = [dict(zip(self._choices, row, strict=True)) for row in product(*values)]
        described = [(arm, self._features(arm)) for arm in arms]
        usable: list[tuple[Arm, Sequence[float]]] = [
            (arm, row) for arm, row in described if row is not None
        ]
        if not usable:
            raise ValueError("No arm has features; at least one must be there to try.")
        return usable

    def _experience(
        self, study: Study, measured: Sequence[FrozenTrial], options: Mapping[str, list[Any]]
    ) -> tuple[list[Sequence[float]], Array]:
        rows: list[Sequence[float]] = []
        rewards: list[float] = []
        if self._earlier is not None:
            rows += [list(row) for row in self._earlier[0]]
            rewards += [float(reward) for reward in self._earlier[1]]
        for trial in measured:
            found = self._rows([self._read(options, trial.params)], options)
            reward = self._reward_of(study, trial)
            if found and abs(reward) <= LARGEST:
                rows += found
                rewards.append(reward)
        return rows, np.array(rewards)

    def _rows(
        self, arms: Sequence[Arm], options: Mapping[str, list[Any]]
    ) -> list[Sequence[float]]:
        """Return the features of those arms that are known as a whole and have any."""
        whole = [arm for arm in arms if arm.keys() == self._choices.keys()]
        rows = [self._features_of(arm, options) for arm in whole]
        return [row for row in rows if row is not None]

    def _features_of(self, arm: Arm, options: Mapping[str, list[Any]]) -> Sequence[float] | None:
        """Return an arm's features; None for one of unknown choices that has none."""
        try:
            return self._features(arm)
        except LookupError:
            if all(value in options[name] for name, value in arm.items()):
                raise
            return None

    def _reward_of(self, study: Study, trial: FrozenTrial) -> float:
        if self._reward is not None:
            return self._reward(trial)
        sign = 1.0 if study.directions[0] == StudyDirection.MAXIMIZE else -1.0
        return sign * trial.values[0] if trial.values else float("nan")

    def _weight_space(
        self, study: Study, trial: FrozenTrial, arm: Arm
    ) -> dict[str, BaseDistribution]:
        if self._weights is None:
            return {}
        space = self._weights.infer_relative_search_space(view(study, arm), trial)
        return {name: d for name, d in space.items() if name not in self._choices}


def _matrix(rows: Sequence[Sequence[float]], dim: int) -> Array:
    return np.array(rows, dtype=np.float64).reshape(len(rows), dim)
