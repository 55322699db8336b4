"""What a storage's URL says, and what of it may be shown."""

import re
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from ...errors import StudyError

# Parts of a URL's query that hold secrets (libpq's names).
_SECRETS = frozenset({"password", "sslpassword", "passfile"})
_HIDDEN = "***"
# Where a password has a plain "@", a driver takes the rest of it for the host.
_AT_IN_PASSWORD = re.compile(r"@.*@|[?&](ssl)?password=[^&]*@", re.DOTALL)


def parse_url(url: str) -> URL:
    """Parse a URL; a path that begins with `~` is below the home directory.

    Raises:
        StudyError: If it cannot be read, without any part of it.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise _unreadable() from error
    if parsed.get_backend_name() != "sqlite":
        if _AT_IN_PASSWORD.search(url) or "@" in str(parsed.host):
            raise _unreadable()
    elif parsed.database in (None, "", ":memory:"):
        raise StudyError(
            "A study needs a database that outlives its process, but got SQLite without a file. "
            "Name one: `sqlite:///runs/study.db`."
        )
    elif str(parsed.database).startswith("~"):
        parsed = parsed.set(database=str(_home(str(parsed.database))))
    return parsed


def _home(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise StudyError(
            f"The storage's path {path!r} begins with the home directory of an unknown user. "
            "Write the whole path."
        ) from error


def _unreadable() -> StudyError:
    return StudyError(
        "The storage's URL cannot be read (it is not shown, it may hold a password). It must be "
        "sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE; in a password, write @ as "
        "%40, : as %3A and / as %2F."
    )


def shown_url(url: str | URL) -> str:
    """Return a URL without its passwords."""
    parsed = parse_url(url) if isinstance(url, str) else url
    hidden = {key: _HIDDEN for key in parsed.query if key.lower() in _SECRETS}
    shown = parsed.update_query_dict(hidden).render_as_string(hide_password=True)
    return shown.replace("%2A%2A%2A", _HIDDEN)


def holds_secret(url: str) -> bool:
    """Whether a URL holds a password, or names a file that does."""
    parsed = parse_url(url)
    return parsed.password is not None or any(key.lower() in _SECRETS for key in parsed.query)


def without_secrets(text: str, url: URL) -> str:
    """Return a text, such as a driver's message, without the passwords of a URL."""
    secrets = [v for k, v in url.query.items() if k.lower() in _SECRETS]
    for secret in [url.password, *secrets]:
        if isinstance(secret, str) and secret:
            text = text.replace(secret, _HIDDEN)
    return text


def sqlite_path(url: str) -> Path | None:
    """Return the file of an SQLite URL; None for other databases."""
    parsed = parse_url(url)
    return Path(str(parsed.database)) if parsed.get_backend_name() == "sqlite" else None
