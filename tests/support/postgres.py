"""A PostgreSQL server of the suite's own, which can be stopped and started."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy
from sqlalchemy.pool import NullPool

_SETTINGS = {
    # Only what a test needs: nothing survives it anyway.
    "fsync": "off",
    "shared_buffers": "16MB",
    "max_connections": "150",
    "listen_addresses": "127.0.0.1",
}


class Server:
    """A running server with the user `postgres`; root runs it as the system user `postgres`.

    Args:
        directory: New and empty; short, for the socket's path.
        password: Demanded from every client (scram), or None to trust them.
    """

    def __init__(self, directory: Path, password: str | None = None) -> None:
        self.directory, self.password, self.port = directory, password, _free_port()
        if os.geteuid() == 0:
            shutil.chown(directory, "postgres", "postgres")
        line = ["initdb", "-D", self._data, "-U", "postgres", "-E", "UTF8", "--no-locale"]
        if password is None:
            self._run(*line, "-A", "trust", "--no-sync")
        else:
            secret = directory / "password"
            secret.write_text(password)
            options = ["-A", "scram-sha-256", f"--pwfile={secret}"]
            self._run(*line, *options, "--no-sync")
        self.start()

    @property
    def _data(self) -> str:
        return str(self.directory / "data")

    def start(self) -> None:
        """Start it and wait until it answers."""
        settings = {**_SETTINGS, "port": str(self.port)}
        settings["unix_socket_directories"] = str(self.directory)
        options = " ".join(f"-c {key}={value}" for key, value in settings.items())
        log = str(self.directory / "log")
        self._run("pg_ctl", "-D", self._data, "-w", "-t", "60", "-l", log, "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        """Cut off every client: as a crash does, or (`fast`) in good order."""
        self._run("pg_ctl", "-D", self._data, "-m", mode, "-w", "stop")

    def restart(self, away_seconds: float = 0.0) -> None:
        """Stop it, and start it again after a while."""
        self.stop()
        time.sleep(away_seconds)
        self.start()

    def new_database(self) -> str:
        """Create an empty database; return its URL, without the password."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name}")
        return f"postgresql://postgres@127.0.0.1:{self.port}/{name}"

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database, with the password."""
        user = f"postgres:{self.password}" if self.password else "postgres"
        return f"postgresql+psycopg2://{user}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str) -> None:
        """Execute one statement as the superuser."""
        engine = sqlalchemy.create_engine(
            self.url(), isolation_level="AUTOCOMMIT", poolclass=NullPool
        )
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(statement))

    def _run(self, program: str, *arguments: str) -> None:
        line = [str(programs() / program), *arguments]
        if os.geteuid() == 0:  # the server refuses to run as root
            line = ["runuser", "-u", "postgres", "--", *line]
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL, cwd=self.directory)


@contextmanager
def serve(password: str | None = None) -> Iterator[Server]:
    """Yield a running server; nothing of it is left afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="pg."))
    try:
        server = Server(directory, password)
        yield server
        server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def programs() -> Path:
    """Return the directory of the server's programs.

    Raises:
        RuntimeError: If there is none.
    """
    found = shutil.which("pg_ctl") or shutil.which("postgres")
    candidates = [Path(found).resolve().parent] if found else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for candidate in candidates:
        if (candidate / "initdb").exists():
            return candidate
    raise RuntimeError(
        "The tests need a PostgreSQL server: `apt-get install postgresql` (Debian, Ubuntu), "
        "`dnf install postgresql-server` (Fedora) or `brew install postgresql` (macOS)."
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
