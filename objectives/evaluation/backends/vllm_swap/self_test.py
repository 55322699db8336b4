"""Whether an engine can become each parent, and in which ways.

Run at every start of an engine, before the first candidate. What fails is refused with the
reason: no search is worth anything whose weights 0 and 1 are not the parents.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from .....errors import EngineError
from ....checkpoints import Checkpoint, reads_base
from ....merging import plan_of
from ..backend import Models
from ..chat import Chat
from ..vllm_memory import EngineSettings, with_length_of
from .canary import (
    PROMPTS,
    Canary,
    Repeatability,
    ask,
    differing,
    fresh_canary,
    repeatability,
    shortfall,
    without,
)
from .engine import Engine

logger = logging.getLogger(__name__)


class SelfTest:
    """Compares engines whose weights were swapped with fresh ones.

    Args:
        models: The parents.
        settings: Of the engines.
        chat: Of the base.

    Attributes:
        state: Names of tensors that are no weights: generating changes them.
        repeatability: Whether the base, asked again, gave the same answers.
    """

    def __init__(self, models: Models, settings: EngineSettings, chat: Chat) -> None:
        self._models, self._settings, self._chat = models, settings, chat
        self._fresh: dict[int, Canary] = {}
        self.state: frozenset[str] = frozenset()
        self.repeatability: Repeatability | None = None

    def start_experts(self) -> None:
        """Start an engine with each expert's own files, look at it, and end it."""
        for number, directory in enumerate(self._models.experts, start=1):
            if reads_base(directory, self._models.base):
                continue  # vLLM has no model of it, or one with other rows
            settings = with_length_of(self._settings, self._models.base, directory)
            engine = Engine(directory, self._models.dtype, settings)
            try:
                self._fresh[number] = self._look_fresh(engine)
            finally:
                engine.close()

    def run(self, engine: Engine) -> bool:
        """Test an engine that has just started with the base; return whether to swap in place.

        Raises:
            EngineError: If a parent swapped in is not the parent.
        """
        self._fresh[0] = self._look_fresh(engine)
        if self.repeatability is not None and not self.repeatability.exact:
            logger.warning("%s", self.repeatability)
        models = self._models
        experts = [str(path) for path in models.experts]
        merge = asdict(models.merge)
        engine.call("mergefront_load", str(models.base), experts, models.dtype, merge)
        reason = self._through_loader(engine) or self._tried_in_place(engine)
        logger.info("swaps %s", f"go through vLLM's loader: {reason}" if reason else "in place")
        return not reason

    def checksum(self, engine: Engine) -> str:
        """Return a hash of the weights that an engine would use now."""
        hashes = [sorted(rank.items()) for rank in without(engine.hashes(), self.state)]
        return hashlib.sha256(repr(hashes).encode()).hexdigest()

    def _look_fresh(self, engine: Engine) -> Canary:
        """Look at an engine that has swapped nothing, and at how far it repeats itself.

        Raises:
            EngineError: If an answer depends on those generated with it by more than rounding.
        """
        before = engine.hashes()
        first = ask(engine, self._chat)
        after = engine.hashes()
        self.state |= differing(before, after)
        again = ask(engine, self._chat)
        reordered = ask(engine, self._chat, range(len(PROMPTS))[::-1])
        self.repeatability = repeatability(first, again, reordered)
        if not self.repeatability.is_rounding(self._models.dtype):
            raise EngineError(
                "vLLM must answer a prompt alike whatever is answered with it, but before any "
                f"swap a token's log-probability differs by {self.repeatability.largest:.2g} "
                "behind the same text: its kernels for this model are wrong on this machine. "
                "Set evaluation.backend to transformers."
            )
        return fresh_canary(after, first, again)

    def _look(self, engine: Engine) -> Canary:
        return Canary(tuple(engine.hashes()), ask(engine, self._chat))

    def _through_loader(self, engine: Engine) -> str:
        """Swap every parent in through the loader; return why swaps cannot be in place.

        Raises:
            EngineError: If one is not the parent that a fresh engine reads.
        """
        reason = ""
        for parent in self._in_turn():
            try:
                engine.call("mergefront_become", parent, False)
            except EngineError:
                raise
            except RuntimeError as error:
                raise EngineError(
                    f"vLLM cannot load other weights into this model on this machine: {error}. "
                    "Set evaluation.backend to transformers."
                ) from error
            canary = self._look(engine)
            if difference := self._difference(parent, canary):
                raise self._refusal(parent, difference)
            # Without a fresh engine, in place it must be what the loader gave.
            self._fresh.setdefault(parent, canary)
            reason = reason or _first(engine.call("mergefront_keep", parent))
        return reason or _first(engine.call("mergefront_prepare"))

    def _tried_in_place(self, engine: Engine) -> str:
        """Return why swaps cannot be in place, an error included: the loader's way is as right."""
        try:
            reason = self._in_place(engine)
        except Exception as error:
            reason = f"in place failed, {type(error).__name__}: {error}"
        if reason:
            logger.warning("%s", reason)
        return reason

    def _in_place(self, engine: Engine) -> str:
        """Overwrite the weights with a mixture and every parent.

        Returns:
            In what the model differs from the one that the loader gives; "" if in nothing.
        """
        mixed = self._mixture()
        engine.call("mergefront_apply", mixed)
        expected = self._look(engine)
        engine.call("mergefront_overwrite", mixed)
        if difference := self._look(engine).difference(expected, self.state):
            return f"in place a mixture is another model, {difference}"
        for parent in self._in_turn():
            engine.call("mergefront_become", parent, True)
            if difference := self._look(engine).difference(self._fresh[parent], self.state):
                return f"in place {self._directory(parent)} is another model, {difference}"
        return ""

    def _in_turn(self) -> list[int]:
        """Return the experts, then the base: a swap that changes nothing must not pass."""
        return [*range(1, 1 + len(self._models.experts)), 0]

    def _directory(self, parent: int) -> Path:
        return (self._models.base, *self._models.experts)[parent]

    def _mixture(self) -> dict[str, list[float]]:
        """Return a candidate whose search variables all have weights of their own."""
        checkpoint = Checkpoint(self._models.base)
        plan = plan_of(checkpoint, self._models.merge)
        names = plan.parameter_names
        mixed = {name: (index + 1) / (len(names) + 1) for index, name in enumerate(names)}
        return plain(plan.group_weights(mixed))

    def _difference(self, parent: int, canary: Canary) -> str | None:
        """Say in what a parent that was swapped in is not that parent."""
        if parent in self._fresh:
            return canary.difference(self._fresh[parent], self.state)
        models = self._models
        adapter = self._directory(parent)
        return shortfall(adapter, models.base, models.dtype, self._chat, canary.answers)

    def _refusal(self, parent: int, difference: str) -> EngineError:
        return EngineError(
            f"The swap must give the parent itself, but with the weights of "
            f"{self._directory(parent)} the engine is not what a fresh one is: {difference}. "
            "vLLM cannot swap this model's weights; set evaluation.backend to transformers."
        )


def plain(weights: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Return weights as remote calls take them without any flag: dictionaries, lists, floats."""
    return {name: list(numbers) for name, numbers in weights.items()}


def _first(reasons: Sequence[str]) -> str:
    """Return the first reason that a rank gives; "" if none does."""
    return next(filter(None, reasons), "")
