"""Arms: choices that are made together, and the parameters that each of them fixes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial
from torch import Tensor

from .pending import given_params
from .same_points import Pair, SamePoints
from .search_space import UnitCube, fits, is_of_kind

Params = Mapping[str, Any]
_FREE = object()


class Arms:
    """The choices of a study whose parameters depend on them.

    Args:
        fixed: What each arm fixes: parameter -> value. The parameters that all of them fix are
            the choices, which tell arms apart; others have no effect under the arm.
        same: Pairs: what points have in common that are all one, such as the base under every
            arm, and the parameters that stand for them. Defaults to (): all points differ.

    Raises:
        ValueError: If there are fewer than two, they fix nothing in common, two have the same
            choices, or no arm allows a part of `same`.
    """

    def __init__(self, fixed: Sequence[Params], same: Sequence[Pair] = ()) -> None:
        self.fixed = [dict(arm) for arm in fixed]
        self._same = SamePoints(same)
        self._checked: Mapping[str, BaseDistribution] | None = None
        if len(self.fixed) < 2:
            raise ValueError(f"arms must be two at least, but got {len(self.fixed)}.")
        self.names = [name for name in self.fixed[0] if all(name in arm for arm in self.fixed)]
        if not self.names:
            raise ValueError(
                "arms must all fix the choices that tell them apart, but no parameter is fixed by "
                f"every arm: {'; '.join(', '.join(arm) or 'nothing' for arm in self.fixed[:5])}."
            )
        self._keys = [self._key(arm) for arm in self.fixed]
        twice = next((key for key in self._keys if self._keys.count(key) > 1), None)
        if twice is not None:
            raise ValueError(
                f"arms must differ in what all of them fix ({', '.join(self.names)}), but two "
                f"have {twice}."
            )
        for part in self._same.parts:
            if (reason := self.refusal(part)) is not None:
                raise ValueError(f"`same` must hold what an arm allows, but {reason}")
        self._places = [(params, self.allowed(params)) for _, params, _ in self._told()]

    def __len__(self) -> int:
        return len(self.fixed)

    def check(self, space: Mapping[str, BaseDistribution]) -> None:
        """Check what arms fix, and `same`, against distributions, as far as these say.

        A parent may lie outside the bounds, so `same` need not be within.

        Raises:
            ValueError: At the first value that its parameter cannot have.
        """
        if self._checked == space:  # every proposal asks
            return
        for who, params, option in self._told():
            can_be = fits if option == "arms" else is_of_kind
            for name, distribution in space.items():
                if name in params and not can_be(params[name], distribution):
                    raise ValueError(
                        f"{who} fixes {name} to {params[name]!r}, which is not "
                        f"{'within' if option == 'arms' else 'of'} {distribution}; correct "
                        f"`{option}`."
                    )
        self._checked = dict(space)

    def check_names(self, known: Iterable[str]) -> None:
        """Check that what arms fix, and `same`, is a parameter.

        Raises:
            ValueError: At the first that is none of them.
        """
        names = dict.fromkeys(known)
        for who, params, option in self._told():
            if unknown := [name for name in params if name not in names]:
                shown = ", ".join(list(names)[:8])
                raise ValueError(
                    f"{who} fixes {unknown[0]!r}, which is no parameter of the study "
                    f"({shown}{', ...' if len(names) > 8 else ''}); correct `{option}`."
                )

    def check_trials(self, trials: Iterable[FrozenTrial]) -> None:
        """Check that what an arm fixes, or `same`, is a parameter, once a trial of it is known.

        Raises:
            ValueError: At the first that no trial has.
        """
        seen, places = dict[str, None](), set[int]()
        for trial in trials:
            seen.update(dict.fromkeys(trial.params))
            places |= {place} if (place := self.place_of(trial.params)) is not None else set()
        told = (params for params, allowed in self._places if places.intersection(allowed))
        if any(name not in seen for params in told for name in params):
            self.check_names(seen)

    def place_of(self, params: Params) -> int | None:
        """Return which arm parameters belong to; None for none."""
        key = self._key(params)
        return self._keys.index(key) if key in self._keys else None

    def allowed(self, given: Params) -> list[int]:
        """Return the places of the arms that fix nothing otherwise than it is given."""
        return [place for place, arm in enumerate(self.fixed) if _agree(arm, given)]

    def refusal(self, given: Params) -> str | None:
        """Return in one sentence why no arm allows what is given; None if one does."""
        return None if self.allowed(given) else self._why_none(given)

    def _why_none(self, given: Params) -> str:
        wished = {name: given[name] for name in self.names if name in given}
        near = min(
            self.fixed,
            key=lambda arm: (len(_contradicted(arm, wished)), len(_contradicted(arm, given))),
        )
        against = _contradicted(near, given)
        asked = {n: given[n] for n in [*self.names, *against] if n in given}
        fixes = {n: near[n] for n in against if n not in self.names}
        return (
            f"no arm allows {_listed(asked)}; the nearest is {self._shown(near)}"
            f"{f', which fixes {_listed(fixes)}' if fixes else ''}."
        )

    def settled(self, params: Params, number: int, given: Params | None = None) -> dict[str, Any]:
        """Return parameters of an arm that exists, with what it fixes.

        It is one that allows all that is given, and of these the one that has most of the choices;
        of several, one by the trial's number.

        Args:
            params: With some of the choices, or all.
            number: Of the trial.
            given: What cannot be changed any more. Defaults to None: nothing.

        Raises:
            ValueError: If no arm allows what is given.
        """
        arms = self._allowed_arms(given or {})
        shared = [_n_shared(arm, self.names, params) for arm in arms]
        best = [arm for arm, n in zip(arms, shared, strict=True) if n == max(shared)]
        return {**params, **(given or {}), **best[number % len(best)]}

    def proposal(
        self, trial: FrozenTrial, params: Params, space: Mapping[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return a sampler's proposal as one of an arm that allows what the trial has already.

        Args:
            trial: That it is for.
            params: Of the proposal.
            space: What is proposed; other parameters that the arm fixes are left out.

        Raises:
            ValueError: If no arm does.
        """
        settled = self.settled(params, trial.number, given_params(trial))
        return {name: settled[name] for name in space if name in settled}

    def alone(
        self,
        trial: FrozenTrial,
        name: str,
        distribution: BaseDistribution,
        ask: Callable[[FrozenTrial, str, BaseDistribution], Any],
    ) -> Any:
        """Return the value of one parameter that is suggested alone.

        Args:
            trial: With what it has, or was queued with.
            name: Of the parameter.
            distribution: Of the parameter.
            ask: Returns a sampler's value.

        Raises:
            ValueError: If no arm allows what is given, or one fixes what the parameter cannot be.
        """
        self.check({name: distribution})
        given, number = given_params(trial), trial.number
        if name in self.names:
            asked = {name: ask(trial, name, distribution)}
            return self.settled(asked, number, given)[name]
        values = [arm.get(name, _FREE) for arm in self._allowed_arms(given)]
        free = _FREE in values
        return ask(trial, name, distribution) if free else values[number % len(values)]

    def columns(self, cube: UnitCube, given: Params | None = None) -> Tensor:
        """Return what each arm fixes in the unit cube, `arms x d`-dim; NaN where it is free.

        Args:
            cube: Over the search space.
            given: What cannot be changed any more: the rows are of the arms that allow it, and it
                is fixed in all of them. Defaults to None: nothing.
        """
        wished = {
            name: value
            for name, value in (given or {}).items()
            if name in cube.search_space
            and UnitCube({name: cube.search_space[name]}).holds({name: value})
        }
        arms = self._allowed_arms(given or {})
        return torch.stack([cube.encode_known({**wished, **arm}) for arm in arms]).clamp(0, 1)

    def joined(self, cube: UnitCube, points: Tensor) -> Tensor:
        """Return points with those that are one in one place, an `n x d`-dim tensor.

        Args:
            cube: Over the search space.
            points: An `n x d`-dim tensor.
        """
        return self._same.joined(cube, points)

    def _told(self) -> Iterator[tuple[str, Params, str]]:
        """Yield who fixes something, what it fixes, and the option that says so."""
        for arm in self.fixed:
            yield f"Arm ({self._shown(arm)})", arm, "arms"
        for part in self._same.parts:
            yield "A pair of `same`", part, "same"

    def _allowed_arms(self, given: Params) -> list[dict[str, Any]]:
        if allowed := self.allowed(given):
            return [self.fixed[place] for place in allowed]
        reason = self._why_none(given)
        raise ValueError(reason[0].upper() + reason[1:])

    def _key(self, params: Params) -> tuple[Any, ...]:
        return tuple(params.get(name) for name in self.names)

    def _shown(self, arm: Params) -> str:
        return _listed({name: arm[name] for name in self.names})


def _listed(params: Params) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in params.items())


def _agree(arm: Params, given: Params) -> bool:
    return not any(name in given and given[name] != value for name, value in arm.items())


def _contradicted(arm: Params, given: Params) -> list[str]:
    return [name for name, value in arm.items() if name in given and given[name] != value]


def _n_shared(arm: Params, names: Sequence[str], params: Params) -> int:
    return sum(arm[name] == params[name] for name in names if name in params)
