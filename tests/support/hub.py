"""A model hub of the suite's own: what is used of the Hugging Face Hub's HTTP interface."""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_INFO = re.compile(r"/api/models/(?P<id>[^/]+/[^/]+)(/revision/(?P<revision>[^/?]+))?$")
_TREE = re.compile(r"/api/models/(?P<id>[^/]+/[^/]+)/tree/(?P<revision>[^/?]+)")
_FILE = re.compile(r"/(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)$")
_RANGE = re.compile(r"bytes=(\d+)-(\d+)$")
_BLOCK = 1 << 20


@dataclass
class Hub:
    """Serves directories as models on 127.0.0.1.

    Args:
        models: Hub id -> directory; `id@revision` for a branch or tag of its own.
        gated: Ids whose terms nobody has accepted.
    """

    models: Mapping[str, Path]
    gated: frozenset[str] = frozenset()
    endpoint: str = ""
    served: dict[str, int] = field(default_factory=dict)  # bytes of each file's content

    def sha(self, model: str) -> str:
        """Return the model's only commit."""
        return hashlib.sha1(model.encode()).hexdigest()

    def at(self, model: str, revision: str | None) -> str | None:
        """Return the entry of `models` that a revision or commit of a model is."""
        entries = [e for e in self.models if e.partition("@")[0] == model]
        named = [e for e in entries if revision in (e.partition("@")[2], self.sha(e))]
        newest = [e for e in entries if "@" not in e and revision in (None, "main")]
        return next(iter(named + newest), None)

    def files(self, model: str) -> list[Path]:
        """Return the model's files, those of its folders too."""
        return sorted(path for path in self.models[model].rglob("*") if path.is_file())

    def name(self, model: str, path: Path) -> str:
        """Return a file's path in the repository."""
        return path.relative_to(self.models[model]).as_posix()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer(with_content=False)

    def do_GET(self) -> None:
        self._answer(with_content=True)

    def _answer(self, with_content: bool) -> None:
        path = self.path.split("?")[0]
        for pattern, answer in ((_INFO, self._info), (_TREE, self._tree), (_FILE, self._file)):
            if found := pattern.match(path):
                model = self.hub.at(found["id"], found.groupdict().get("revision"))
                if model is None:
                    return self._error(404, "RepoNotFound")
                if model in self.hub.gated and pattern is _FILE:
                    return self._error(403, "GatedRepo")
                return answer(model, found, with_content)
        return self._error(404, "EntryNotFound")

    def _info(self, model: str, found: re.Match[str], with_content: bool) -> None:
        names = [{"rfilename": self.hub.name(model, path)} for path in self.hub.files(model)]
        self._json({"id": model, "sha": self.hub.sha(model), "siblings": names})

    def _tree(self, model: str, found: re.Match[str], with_content: bool) -> None:
        entries = [
            {
                "type": "file",
                "path": self.hub.name(model, p),
                "size": p.stat().st_size,
                "oid": _etag(p),
            }
            for p in self.hub.files(model)
        ]
        self._json(entries)

    def _file(self, model: str, found: re.Match[str], with_content: bool) -> None:
        path = self.hub.models[model] / found["name"]
        if not path.is_file():
            return self._error(404, "EntryNotFound")
        size = path.stat().st_size
        first, last = 0, size - 1
        partly = _RANGE.match(self.headers.get("Range", ""))
        if partly:
            first, last = int(partly[1]), min(int(partly[2]), last)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        else:
            self.send_response(200)
        self.send_header("ETag", f'"{_etag(path)}"')
        self.send_header("X-Repo-Commit", self.hub.sha(model))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        if with_content:
            self._send(path, first, last + 1)

    def _send(self, path: Path, first: int, end: int) -> None:
        with path.open("rb") as file:
            file.seek(first)
            while first < end:
                block = file.read(min(_BLOCK, end - first))
                self.wfile.write(block)
                first += len(block)
                key = f"{path.parent.name}/{path.name}"
                self.hub.served[key] = self.hub.served.get(key, 0) + len(block)

    def _json(self, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _error(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _etag(path: Path) -> str:
    """Return a name of the content that needs no reading: the suite's files do not change."""
    return hashlib.sha1(f"{path}{path.stat().st_size}".encode()).hexdigest()


@contextmanager
def serve_models(models: Mapping[str, Path], gated: frozenset[str] = frozenset()) -> Iterator[Hub]:
    """Serve models until the block ends; clients reach them by `HF_ENDPOINT`."""
    hub = Hub(models, gated)
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def at_hub(
    hub: Hub, cache: Path, *arguments: object, offline: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run `mergefront` in a process of its own, whose hub this is: addresses are read once.

    Args:
        hub: That answers.
        cache: The folder of what is fetched.
        arguments: Of the command.
        offline: Whether it must do with what was fetched before.
    """
    environment = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(cache)}
    environment["HF_HUB_OFFLINE"] = str(int(offline))
    line = [sys.executable, "-m", "mergefront", *map(str, arguments)]
    return subprocess.run(
        line, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
