"""A study as the sampler of an arm's weights sees it."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from optuna import Study
from optuna.trial import FrozenTrial

from .._trials.pending import known_params


class _View:
    """A study as the weights' sampler sees it: the trials of one arm."""

    def __init__(self, study: Study, arm: Mapping[str, Any]) -> None:
        self._study, self._arm = study, arm

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    @property
    def trials(self) -> list[FrozenTrial]:
        """Trials of the arm."""
        return self.get_trials()

    def get_trials(self, *arguments: Any, **options: Any) -> list[FrozenTrial]:
        """Return trials of the arm."""
        return self._of_arm(self._study.get_trials(*arguments, **options))

    def _get_trials(self, *arguments: Any, **options: Any) -> list[FrozenTrial]:
        return self._of_arm(self._study._get_trials(*arguments, **options))

    def _of_arm(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        return [
            trial
            for trial in trials
            if all(known_params(trial).get(k) == v for k, v in self._arm.items())
        ]


def view(study: Study, arm: Mapping[str, Any]) -> Study:
    """Return a study with the trials of one arm alone."""
    return cast(Study, _View(study, arm))
