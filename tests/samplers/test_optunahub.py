"""The OptunaHub package: loads, says what the registry asks for, and its example runs."""

import runpy
from functools import partial
from pathlib import Path
from typing import Any

import optunahub
import pytest
import yaml

from mergefront.samplers import SIPSampler, recommend

ROOT = Path(__file__).parents[2] / "samplers" / "optunahub" / "package"
PACKAGE = ROOT / "samplers" / "sip_sampler"


def test_the_registry_loads_our_sampler() -> None:
    module: Any = optunahub.load_local_module("samplers/sip_sampler", registry_root=str(ROOT))
    assert module.SIPSampler is SIPSampler
    assert module.recommend is recommend


def test_readme_has_the_front_matter_that_the_registry_asks_for() -> None:
    _, front, body = (PACKAGE / "README.md").read_text().split("---\n", 2)
    fields = yaml.safe_load(front)
    assert set(fields) == {"author", "title", "description", "tags", "optuna_versions", "license"}
    assert "sampler" in fields["tags"]
    assert all(title in body for title in ("## Abstract", "## APIs", "## Example"))
    assert (PACKAGE / "LICENSE").read_text().strip().startswith("Apache License")


def test_example_prints_a_front(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The example loads the package from the registry on GitHub; here it comes from this folder.
    local = partial(optunahub.load_local_module, registry_root=str(ROOT))
    monkeypatch.setattr(optunahub, "load_module", local)
    runpy.run_path(str(PACKAGE / "example.py"), run_name="__main__")
    assert len(capsys.readouterr().out.splitlines()) >= 2
