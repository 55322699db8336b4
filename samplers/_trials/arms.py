"""Arms: choices that are made together, and the parameters that each of them fixes."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .search_space import UnitCube


class Arms:
    """The choices of a study whose parameters depend on them.

    Args:
        fixed: What each arm fixes: parameter -> value. The parameters that all of them fix are
            the choices, which tell arms apart; others have no effect under the arm.

    Raises:
        ValueError: If there are fewer than two, or two have the same choices.
    """

    def __init__(self, fixed: Sequence[Mapping[str, Any]]) -> None:
        self.fixed = [dict(arm) for arm in fixed]
        if len(self.fixed) < 2:
            raise ValueError(f"arms must be two at least, but got {len(self.fixed)}.")
        self.names = [name for name in self.fixed[0] if all(name in arm for arm in self.fixed)]
        self._keys = [self._key(arm) for arm in self.fixed]
        twice = next((key for key in self._keys if self._keys.count(key) > 1), None)
        if twice is not None:
            raise ValueError(
                f"arms must differ in what all of them fix ({', '.join(self.names)}), but two "
                f"have {twice}."
            )

    def __len__(self) -> int:
        return len(self.fixed)

    def place_of(self, params: Mapping[str, Any]) -> int | None:
        """Return which arm parameters belong to; None for none."""
        key = self._key(params)
        return self._keys.index(key) if key in self._keys else None

    def settled(
        self, params: Mapping[str, Any], number: int, given: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return parameters of an arm that exists, with what it fixes.

        It is the arm that has most of what is given, and then most of the choices; of several,
        one by the trial's number.

        Args:
            params: With some of the choices, or all.
            number: Of the trial.
            given: What cannot be changed any more. Defaults to None: nothing.
        """
        given = given or {}
        shared = [
            (_n_shared(arm, self.names, given), _n_shared(arm, self.names, params))
            for arm in self.fixed
        ]
        best = [arm for arm, n in zip(self.fixed, shared, strict=True) if n == max(shared)]
        return {**params, **best[number % len(best)]}

    def columns(self, cube: UnitCube) -> Tensor:
        """Return what each arm fixes in the unit cube, `arms x d`-dim; NaN where it is free."""
        return torch.stack([_column_values(cube, arm) for arm in self.fixed])

    def _key(self, params: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(params.get(name) for name in self.names)


def _column_values(cube: UnitCube, arm: Mapping[str, Any]) -> Tensor:
    known = {name: d for name, d in cube.search_space.items() if name in arm}
    values = iter(UnitCube(known).encode([arm])[0].tolist())
    row = [next(values) if name in known else torch.nan for name in cube.column_names]
    return torch.tensor(row, dtype=torch.double)


def _n_shared(arm: Mapping[str, Any], names: Sequence[str], params: Mapping[str, Any]) -> int:
    return sum(arm[name] == params[name] for name in names if name in params)
