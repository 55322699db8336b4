"""While the database is away."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

logger = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0

T = TypeVar("T")


def is_outage(error: BaseException) -> bool:
    """Whether an error says that the database cannot be reached for now."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    return isinstance(cause, OperationalError | InterfaceError)


def through_outages(action: Callable[[], T], sleep: Callable[[float], None] = time.sleep) -> T:
    """Repeat an action until the database answers.

    Args:
        action: Harmless when repeated.
        sleep: Waits for some seconds; what it raises ends the waiting.
    """
    pause = _FIRST_PAUSE
    while True:
        try:
            return action()
        except (SQLAlchemyError, StorageInternalError) as error:
            if not is_outage(error):
                raise
            logger.warning("the database does not answer; trying again in %g s", pause)
        sleep(pause)
        pause = min(2.0 * pause, _LONGEST_PAUSE)
