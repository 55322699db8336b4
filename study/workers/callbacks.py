"""Optuna's callbacks, called after each trial that a worker measured."""

from collections.abc import Callable, Sequence

import optuna
from optuna.trial import FrozenTrial

from ...objectives import Measurement
from ..storage.outages import through_outages
from .worker import Reporter

Callback = Callable[[optuna.Study, FrozenTrial], None]


class Callbacks:
    """A reporter that calls Optuna's callbacks, and passes on what it is told.

    Args:
        told: The reporter that speaks.
        callbacks: Called with the study and the finished trial, as `Study.optimize` does; what
            they raise ends the worker, its trial being safe.
        load: Returns the study.
    """

    def __init__(
        self, told: Reporter, callbacks: Sequence[Callback], load: Callable[[], optuna.Study]
    ) -> None:
        self._told, self._callbacks, self._load = told, callbacks, load
        self._study: optuna.Study | None = None

    def started(self, trial: FrozenTrial, n_answers: int) -> None:
        """Pass it on."""
        self._told.started(trial, n_answers)

    def answered(self, n: int) -> None:
        """Pass it on."""
        self._told.answered(n)

    def finished(self, trial: FrozenTrial, measurement: Measurement) -> None:
        """Pass it on and call the callbacks."""
        self._told.finished(trial, measurement)
        self._call(trial)

    def failed(self, trial: FrozenTrial, reason: str) -> None:
        """Pass it on; a failure has no values to log."""
        self._told.failed(trial, reason)

    def _call(self, trial: FrozenTrial) -> None:
        self._study = self._study or through_outages(self._load)
        study, number = self._study, trial._trial_id
        stored = through_outages(lambda: study._storage.get_trial(number))
        for callback in self._callbacks:
            callback(self._study, stored)
