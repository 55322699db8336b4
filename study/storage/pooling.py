"""Connection poolers: they must lend a session, not a transaction.

The study's lock belongs to a session of PostgreSQL. A pooler in transaction mode (pgbouncer,
Supabase's and other clouds' "transaction pooler") gives every transaction whatever session is
free: the lock excludes nobody and is left behind.
"""

from sqlalchemy import text
from sqlalchemy.engine import Connection, Engine

from ...errors import StudyError

# A busy pooler may by chance give two clients different sessions.
_ATTEMPTS = 5


def check_sessions(engine: Engine) -> None:
    """Check that two clients, connected at once, are never given the same session.

    Args:
        engine: Without a pool of its own.

    Raises:
        StudyError: If they are.
    """
    if engine.dialect.name != "postgresql":
        return
    with engine.connect() as first, engine.connect() as second:
        for _ in range(_ATTEMPTS):
            if backend(first) == backend(second):
                raise transaction_pooling()


def backend(connection: Connection) -> int:
    """Return the identifier of the session that serves a transaction of its own."""
    with connection.begin():
        return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())


def transaction_pooling() -> StudyError:
    """Return the error about a pooler that lends transactions."""
    return StudyError(
        "Between here and PostgreSQL a pooler lends transactions instead of sessions, and locks "
        "do not hold. Set `pool_mode = session` in pgbouncer, or name the database's own port in "
        "`study.storage`."
    )
