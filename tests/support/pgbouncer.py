"""pgbouncer before the suite's PostgreSQL server."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from postgres import Server, _free_port


def program() -> str | None:
    """Return the program, or None where it is not installed."""
    return shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")


@contextmanager
def pool(server: Server, mode: str) -> Iterator[str]:
    """Yield the URL of a new database through a pooler in a mode, `session` or `transaction`."""
    url, port = server.new_database(), _free_port()
    directory = Path(tempfile.mkdtemp(prefix="pool."))
    settings = directory / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\n* = user=postgres host=127.0.0.1 port={server.port}\n[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\npool_mode = {mode}\n"
        "unix_socket_dir =\n"
    )
    line = [str(program()), str(settings)]
    if os.geteuid() == 0:  # it refuses to run as root
        shutil.chown(directory, "postgres", "postgres")
        line = ["runuser", "-u", "postgres", "--", *line]
    process = subprocess.Popen(line, stderr=subprocess.DEVNULL, cwd=directory)
    try:
        _wait_for(port)
        yield url.replace(f":{server.port}/", f":{port}/")
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(directory, ignore_errors=True)


def _wait_for(port: int) -> None:
    for _ in range(100):
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("pgbouncer did not start")
