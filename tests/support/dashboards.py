"""The dashboard as a user starts it, asked over HTTP."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any


def free_port() -> int:
    """Return a port that nobody listens on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(url: str) -> Any:
    """Return the JSON at an address."""
    with urllib.request.urlopen(url, timeout=30) as response:
        return json.load(response)


@contextmanager
def served(spec: Path) -> Iterator[str]:
    """Serve a study's dashboard; ends with its address asked to stop, and stopped."""
    port = free_port()
    line = [sys.executable, "-m", "mergefront", "dashboard", str(spec), "--port", str(port)]
    process = subprocess.Popen(line, stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        assert process.wait(timeout=60) == 0


def wait_for_graphs(url: str) -> dict[str, Any]:
    """Return the first study once its three pictures are there."""
    for _ in range(240):
        time.sleep(0.5)
        try:
            study: dict[str, Any] = get(f"{url}/api/studies/1")
        except OSError:
            continue
        if len(study["plotly_graph_objects"]) == 3:
            return study
    raise AssertionError("the pictures were never drawn")
