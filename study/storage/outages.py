"""While the database is away."""

import logging
import re
import sqlite3
import time
from collections.abc import Callable
from typing import TypeVar

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

logger = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0

T = TypeVar("T")


# What an SQLite file never recovers from by itself.
_SQLITE_ENDS = ("no such table", "readonly database", "unable to open database file")
# PostgreSQL's code of a server that only reads: a primary that has become a standby, for a while.
_READ_ONLY = "25006"


def is_outage(error: BaseException) -> bool:
    """Whether an error says that the database cannot be reached for now."""
    cause = _cause(error)
    if isinstance(cause, DBAPIError) and getattr(cause.orig, "pgcode", None) == _READ_ONLY:
        return True
    if not isinstance(cause, OperationalError | InterfaceError):
        return False
    text = str(cause.orig)
    if isinstance(cause.orig, sqlite3.Error):
        return not any(end in text for end in _SQLITE_ENDS)
    return re.search(r'database "[^"]*" does not exist', text) is None


def reason_of(error: BaseException) -> str:
    """Return the driver's own words, in one line."""
    cause = _cause(error)
    original = cause.orig if isinstance(cause, DBAPIError) else cause
    return " ".join(str(original).split()) or type(cause).__name__


def _cause(error: BaseException) -> BaseException:
    return (error.__cause__ or error) if isinstance(error, StorageInternalError) else error


def unless_away(action: Callable[[], None]) -> None:
    """Do what asks the database for something that can wait; nothing, while it is away."""
    try:
        action()
    except (SQLAlchemyError, StorageInternalError) as error:
        if not is_outage(error):
            raise
        logger.debug("the database does not answer (%s)", reason_of(error))


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
            logger.warning(
                "the database does not answer (%s); trying again in %g s", reason_of(error), pause
            )
        sleep(pause)
        pause = min(2.0 * pause, _LONGEST_PAUSE)
