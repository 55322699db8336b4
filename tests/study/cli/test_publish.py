"""A published model is made again from its manifest, byte by byte."""

import base64
import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from command import invoke
from mergefront.examples.demo import BASE, EXPERT


@pytest.fixture(scope="module")
def published(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("published") / "model"
    done = invoke("publish", finished, "--trial", 9, "--to", out)
    assert done.exit_code == 0, done.stderr
    assert f"mergefront reproduce {out}" in done.stderr
    return out


def test_a_folder_holds_all_that_travels(published: Path) -> None:
    names = {path.name for path in published.iterdir()}
    assert names >= {"README.md", "recipe.yaml", "manifest.json", "front.png", "model.safetensors"}
    manifest = json.loads((published / "manifest.json").read_text())
    assert manifest["trial"] == 9
    assert set(manifest["files"]) == {"model.safetensors"}
    assert manifest["versions"]["torch"]


def test_nothing_published_tells_of_the_authors_machine(published: Path, finished: Path) -> None:
    places = [str(finished.parent), str(BASE), str(EXPERT), "study.db"]
    for path in published.iterdir():
        if path.suffix in (".json", ".yaml", ".md", ".jinja"):
            assert not [place for place in places if place in path.read_text()], path
    spec = json.loads((published / "manifest.json").read_text())["spec"]
    assert (spec["models"]["base"], spec["models"]["experts"]) == ("base", ["expert"])
    (task,) = spec["evaluation"]["tasks"]
    assert task["files"] == {"search": "search.jsonl", "validation": "validation.jsonl"}


def test_it_is_made_again_and_measured_the_same(published: Path, finished: Path) -> None:
    done = invoke("reproduce", published, "--measure", "--spec", finished)
    assert done.exit_code == 0, done.stderr
    assert "same bytes: model.safetensors" in done.stdout
    assert "accuracy: " in done.stdout


def _changed(published: Path, tmp_path: Path, key: str, value: object) -> Path:
    content = json.loads((published / "manifest.json").read_text())
    content[key] = value
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(content))
    return path


def test_other_bytes_and_other_values_are_found(
    published: Path, finished: Path, tmp_path: Path
) -> None:
    path = _changed(published, tmp_path, "files", {"model.safetensors": "0" * 64})
    done = invoke("reproduce", path, "--spec", finished)
    assert (done.exit_code, "weights differ" in done.stderr) == (1, True)
    path = _changed(published, tmp_path, "values", {"accuracy": 0.0, "tokens": 900.0})
    done = invoke("reproduce", path, "--measure", "--spec", finished)
    assert (done.exit_code, "Not as published" in done.stderr) == (1, True)


def test_other_parents_are_refused_by_name(
    published: Path, finished: Path, tmp_path: Path
) -> None:
    content = yaml.safe_load(finished.read_text())
    content["models"]["base"], content["models"]["experts"] = (
        content["models"]["experts"][0],
        [content["models"]["base"]],
    )
    for task in content["evaluation"]["tasks"]:
        task["files"] = {k: str(finished.parent / v) for k, v in task["files"].items()}
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(content))
    done = invoke("reproduce", published, "--spec", other)
    assert (done.exit_code, "models.base" in done.stderr) == (1, True)


def test_blocks_come_from_a_manifest_that_has_some(
    published: Path, finished: Path, tmp_path: Path
) -> None:
    spec = yaml.safe_load(finished.read_text())
    spec["merge"]["granularity"] = "learned-blocks"
    (other := finished.parent / "learned.yaml").write_text(yaml.safe_dump(spec))
    for manifest in (published, _changed(published, tmp_path, "spec", {})):
        done = invoke("reproduce", manifest, "--spec", other)
        assert (done.exit_code, "has granularity 'layer'" in done.stderr) == (1, True)
        assert len(done.stderr.strip().splitlines()) == 1


_ODD = '{"spec": {}, "params": {"layer_000": "x"}, "fingerprint": {}, "files": []}'


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"spec": 1}', _ODD])
def test_what_is_no_manifest_is_said(text: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(text)
    done = invoke("reproduce", tmp_path)
    assert done.exit_code == 1
    assert "manifest" in done.stderr


class _Hub(BaseHTTPRequestHandler):
    """Takes repositories and commits as the hub does, files in the commit itself."""

    def do_GET(self) -> None:
        hub: Any = self.server
        names = [{"rfilename": name} for name in hub.there]
        told = {"id": "me/merged", "sha": "0" * 40, "siblings": names, "private": hub.private}
        self._answer(told)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub: Any = self.server
        if self.path == "/api/repos/create":
            hub.created.append(json.loads(body))
            self._answer({"url": f"http://127.0.0.1:{hub.server_port}/me/merged", "id": "1"})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files
            ]
            self._answer({"files": modes})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    hub.files[value["path"]] = base64.b64decode(value["content"])
            self._answer(
                {
                    "commitUrl": f"http://127.0.0.1:{hub.server_port}/me/merged/commit/1",
                    "commitOid": "1" * 40,
                    "success": True,
                }
            )
        else:
            self._answer({})

    def _answer(self, content: object) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def hub() -> Iterator[Any]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Hub) as server:
        stand_in: Any = server
        stand_in.created, stand_in.files = [], {}
        stand_in.there, stand_in.private = [".gitattributes"], True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield stand_in
        server.shutdown()


def _publish(finished: Path, hub: Any, to: str = "me/merged") -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "mergefront", "publish", str(finished), "--trial", "9"]
    environment = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": "hf_of_a_test",
        "HF_HUB_DISABLE_XET": "1",
    }
    return subprocess.run(
        [*line, "--to", to, "--private"], capture_output=True, text=True, env=environment
    )


@pytest.mark.parametrize(
    ("there", "private", "to", "told"),
    [
        (["a.txt", "b.txt"], True, "me/merged", "'me/merged' holds a.txt and 1 more. Choose"),
        ([], False, "me/merged", "'me/merged' is public already. Make it private"),
        ([], True, "me/a--b", "--to must be ORGANISATION/NAME, but got 'me/a--b'"),
    ],
)
def test_a_repository_that_is_in_use_is_refused(
    finished: Path, hub: Any, there: list[str], private: bool, to: str, told: str
) -> None:
    hub.there, hub.private = there, private
    done = _publish(finished, hub, to)
    assert done.returncode == 1
    (error,) = done.stderr.splitlines()
    assert told in error
    assert (hub.created, hub.files) == ([], {})


def test_the_hub_gets_everything(finished: Path, published: Path, hub: Any) -> None:
    done = _publish(finished, hub)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("/me/merged")
    asked = hub.created[0]  # huggingface_hub 1 says `private`, 2 says `visibility`
    assert asked.get("private") is True or asked.get("visibility") == "private"
    assert hub.files["model.safetensors"] == (published / "model.safetensors").read_bytes()
    assert {"README.md", "manifest.json", "recipe.yaml", "front.png"} <= hub.files.keys()


def test_without_a_network_it_is_one_line(finished: Path) -> None:
    line = [sys.executable, "-m", "mergefront", "publish", str(finished), "--trial", "9"]
    done = subprocess.run(
        [*line, "--to", "me/merged"],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 1
    (error,) = done.stderr.splitlines()
    assert error.startswith("Error: The hub did not take 'me/merged'")


def test_a_publication_without_room_for_its_manifest_leaves_nothing(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mergefront.study.results.sharing.publish.manifest_of", full)
    done = invoke("publish", finished, "--trial", 9, "--to", tmp_path / "model")
    assert (done.exit_code, "No space left on device. Make room" in done.stderr) == (1, True)
    assert list(tmp_path.iterdir()) == []
