"""Fixtures shared by the whole suite: a small spec, a small finished study."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from postgres import Server, serve
from small_study import write_spec

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

pytest.register_assert_rewrite("optuna.testing.pytest_samplers")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _gradients_stay_on() -> Iterator[None]:
    """Find who switches gradients off for everybody: samplers need them."""
    yield
    assert torch.is_grad_enabled()


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what is cached out of the home directory, for fixtures of any scope."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        patch.delenv("MERGEFRONT_STORAGE", raising=False)
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server for every test that does not stop it."""
    with serve() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def storage_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A storage of each kind, empty."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/study.db"
    server: Server = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture
def spec_path(tmp_path: Path) -> Path:
    """A small valid spec."""
    return write_spec(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The spec of a finished small study: 10 trials, two of them proposed by the sampler."""
    from mergefront.study.run import run
    from mergefront.study.spec.inputs import load_inputs

    path = write_spec(tmp_path_factory.mktemp("finished"))
    run(load_inputs(path))
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real browser; skips where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    found = [path for name in _BROWSERS if (path := shutil.which(name))]
    if not found:
        pytest.skip(f"needs a browser: one of {', '.join(_BROWSERS)}")
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found[0], args=_FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def reference() -> Iterator[Any]:
    """The demo pair in transformers, which other engines are compared with."""
    from backend_suite import MODELS
    from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend

    backend = TransformersBackend(device="cpu")
    backend.load(MODELS)
    yield backend
    backend.close()
