"""Models of the hub that share a repository: each is fetched alone, from its own folder."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hub import Hub, serve_models
from mergefront.errors import SpecError
from mergefront.examples.demo import BASE, EXPERT
from mergefront.objectives.checkpoints import Checkpoint, is_adapter, resolve_model
from mergefront.objectives.checkpoints.hub import public_name, weight_files
from mergefront.objectives.checkpoints.reader import INDEX
from mergefront.study.results.sharing.licences import licence_of
from tiny_models import write_llama

# A process of its own: addresses of the hub are read once.
_FETCH = """
import json, sys
from pathlib import Path
from mergefront.objectives.checkpoints import resolve_model
from mergefront.objectives.checkpoints.outline import outline_model

*names, folder = sys.argv[1:]
outlines = [str(outline_model(name, Path(folder), Path(folder))) for name in names]
print(json.dumps([outlines, [str(resolve_model(name, Path(folder))) for name in names]]))
"""


def _fetch(hub: Hub, folder: Path, *names: str) -> list[list[Path]]:
    environment = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(folder), "HF_HUB_OFFLINE": "0"}
    result = subprocess.run(
        [sys.executable, "-c", _FETCH, *names, str(folder)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return [[Path(path) for path in paths] for paths in json.loads(result.stdout)]


def test_a_model_in_a_folder_of_its_repository_is_taken_alone(tmp_path: Path) -> None:
    repository = tmp_path / "hub"
    for path, place in ((BASE, "one"), (EXPERT, "more/two"), (EXPERT, "more/two/checkpoint-7")):
        shutil.copytree(path, repository / place, dirs_exist_ok=True)
    (repository / "one/additional_chat_templates").mkdir()
    (repository / "one/additional_chat_templates/tool_use.jinja").write_text("{{ tools }}")
    (repository / "README.md").write_text("---\nlicense: mit\n---\n")
    names = ("team/all:one", "team/all@main:more/two")
    with serve_models({"team/all": repository}) as hub:
        outlines, models = _fetch(hub, tmp_path / "cache", *names)
    for path in (*outlines, *models):  # the one that has them
        assert (path / "additional_chat_templates/tool_use.jinja").is_file() == (
            path.name == "one"
        )
    for own, outline, model in zip((BASE, EXPERT), outlines, models, strict=True):
        assert Checkpoint(outline).shapes() == Checkpoint(own).shapes()
        assert Checkpoint(model).weights_hash() == Checkpoint(own).weights_hash()
        assert licence_of(model) == "mit"
        size = (own / "model.safetensors").stat().st_size
        # Once the header alone, and then the file.
        place = f"{model.name}/model.safetensors"
        assert size < hub.served[place] < size + (1 << 20)
    assert not [name for name in hub.served if name.startswith("checkpoint-7")]
    assert public_name(models[1]) == f"team/all@{hub.sha('team/all')}:more/two"


def test_shards_in_a_folder_of_the_model_are_fetched(tmp_path: Path) -> None:
    own = write_llama(tmp_path / "own")
    _name_shards(own, "shards/")
    (own / "shards").mkdir()
    for path in own.glob("*.safetensors"):
        path.rename(own / "shards" / path.name)
    with serve_models({"team/own": own}) as hub:
        outlines, models = _fetch(hub, tmp_path / "cache", "team/own")
    assert Checkpoint(outlines[0]).shapes() == Checkpoint(own).shapes()
    assert Checkpoint(models[0]).weights_hash() == Checkpoint(own).weights_hash()


@pytest.mark.parametrize("folder", ["../", "/", "a/../../"])
def test_weights_outside_a_models_folder_are_not_fetched(tmp_path: Path, folder: str) -> None:
    own = write_llama(tmp_path / "own")
    _name_shards(own, folder)
    with pytest.raises(SpecError, match=r"must have its weights in its folder, but .* names"):
        weight_files(own)


def test_an_adapter_beside_whole_weights_is_not_fetched(tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "adapter_model.safetensors").write_bytes(b"")
    both = tmp_path / "both"
    shutil.copytree(adapter, both)
    shutil.copy(BASE / "model.safetensors", both)
    with serve_models({"team/adapter": adapter, "team/both": both}) as hub:
        with pytest.raises(AssertionError, match="must be one model, but team/both has whole"):
            _fetch(hub, tmp_path / "cache", "team/both")
        _, models = _fetch(hub, tmp_path / "cache", "team/adapter")
    assert is_adapter(models[0])
    assert not [name for name in hub.served if name.startswith("both/") and "model" in name]


def _name_shards(directory: Path, folder: str) -> None:
    index = json.loads((directory / INDEX).read_text())
    index["weight_map"] = {name: folder + file for name, file in index["weight_map"].items()}
    (directory / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize("name", ["org/name:../up", "org/name:a/./b", "org/name:/a", "org/a:b:c"])
def test_what_leads_out_of_a_repository_names_no_model(name: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="directory or a hub id"):
        resolve_model(name, tmp_path)
