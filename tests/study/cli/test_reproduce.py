"""A manifest finds its parents: by their hash, by what the user names, in a spec."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from command import invoke
from mergefront.examples.demo import BASE, EXPERT
from mergefront.objectives.checkpoints import Checkpoint
from mergefront.study.results.sharing.portable import portable_spec
from mergefront.study.spec.hashing import cached_hash, known_folder
from mergefront.study.spec.inputs import load_inputs


@pytest.fixture(scope="module")
def published(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("published") / "model"
    assert invoke("publish", finished, "--trial", 9, "--to", out).exit_code == 0
    return out


def test_parents_that_were_used_here_are_found_by_their_hash(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke("reproduce", published)
    assert (done.exit_code, done.stdout) == (0, "same bytes: model.safetensors\n")


def test_elsewhere_they_are_named(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "fresh"))
    done = invoke("reproduce", published)
    assert (done.exit_code, "--model base=DIR" in done.stderr) == (1, True)
    models = ("--model", f"base={BASE}", "--model", f"expert={EXPERT}")
    done = invoke("reproduce", published, *models)
    assert (done.exit_code, done.stdout) == (0, "same bytes: model.safetensors\n")


def test_a_folder_that_has_changed_is_found_no_more(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "fresh"))
    base, expert = (shutil.copytree(model, tmp_path / model.name) for model in (BASE, EXPERT))
    models = ("--model", f"base={base}", "--model", f"expert={expert}")
    assert invoke("reproduce", published, *models).exit_code == 0
    assert invoke("reproduce", published).exit_code == 0  # known since then
    with (base / "model.safetensors").open("ab") as file:
        file.write(b"\0")
    done = invoke("reproduce", published)
    assert (done.exit_code, "'base' is not known on this machine" in done.stderr) == (1, True)


def test_files_of_the_hubs_cache_are_no_models_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There a model's folder holds links, and the files themselves lie apart from it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "fresh"))
    snapshot, blobs = tmp_path / "snapshots" / "1", tmp_path / "blobs"
    shutil.copytree(BASE, blobs)
    snapshot.mkdir(parents=True)
    for path in list(blobs.iterdir()):
        (snapshot / path.name).symlink_to(path.rename(blobs / f"of-{path.name}"))
    weights = cached_hash(Checkpoint(snapshot))
    assert known_folder(weights) is None
    assert cached_hash(Checkpoint(BASE)) == weights
    assert known_folder(weights) == BASE.resolve()


def test_places_of_earlier_studies_are_not_given_away(finished: Path) -> None:
    inputs = load_inputs(finished)
    places = ["postgresql+psycopg://somebody:secret@db/optuna#old", "../private/study.yaml"]
    sampler = inputs.spec.sampler.model_copy(update={"warm_start": places})
    told = portable_spec(replace(inputs, spec=inputs.spec.model_copy(update={"sampler": sampler})))
    assert told["sampler"]["warm_start"] == []
    assert not any(word in json.dumps(told) for word in ("secret", "private"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("bas=x", "one of base, expert, but got 'bas'"),
        ("base=x", "must be a model's folder"),
        ("base", "must be NAME=DIR"),
        (f"base={EXPERT}", "models.base"),
    ],
)
def test_what_is_no_parent_is_refused(published: Path, given: str, message: str) -> None:
    done = invoke("reproduce", published, "--model", given)
    assert (done.exit_code, message in done.stderr) == (1, True)
    assert len(done.stderr.splitlines()) == 1


def test_it_is_measured_on_the_questions_of_a_folder_and_on_no_others(
    published: Path, finished: Path, tmp_path: Path
) -> None:
    done = invoke("reproduce", published, "--measure", "--questions", finished.parent)
    assert done.exit_code == 0, done.stderr
    assert "accuracy: " in done.stdout
    for split in ("search", "validation"):
        lines = (finished.parent / f"{split}.jsonl").read_text().splitlines(keepends=True)
        (tmp_path / f"{split}.jsonl").write_text("".join(lines[1:]))
    done = invoke("reproduce", published, "--measure", "--questions", tmp_path)
    assert (done.exit_code, "evaluation.tasks differ" in done.stderr) == (1, True)
    done = invoke("reproduce", published, "--measure")
    assert (done.exit_code, "search.jsonl does not exist" in done.stderr) == (1, True)


def test_a_scorers_file_is_found_among_the_questions(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    for split in ("search", "validation"):
        shutil.copy(finished.parent / f"{split}.jsonl", folder)
    (folder / "points.py").write_text("def score(answer, row): return answer == row['answer']")
    content = yaml.safe_load(finished.read_text())
    content["study"] |= {"storage": f"sqlite:///{folder}/study.db", "trials": 2}
    content["evaluation"]["tasks"][0]["scorer"] = "points.py:score"
    (folder / "spec.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.chdir(tmp_path)
    assert invoke("run", folder / "spec.yaml").exit_code == 0
    published = ("publish", folder / "spec.yaml", "--trial", 0, "--to", "model")
    assert invoke(*published).exit_code == 0
    done = invoke("reproduce", "model", "--measure", "--questions", folder)
    assert (done.exit_code, "accuracy: " in done.stdout) == (0, True), done.stderr


def test_files_of_one_name_stay_apart(finished: Path, tmp_path: Path) -> None:
    from mergefront.study.results.sharing.portable import portable_spec
    from mergefront.study.spec.inputs import StudyInputs
    from mergefront.study.spec.study_spec import StudySpec

    content = json.loads(json.dumps(StudySpec.from_yaml(finished).model_dump(mode="json")))
    (task,) = content["evaluation"]["tasks"]
    other = tmp_path / "search.jsonl"
    lines = (finished.parent / "validation.jsonl").read_text().splitlines(keepends=True)
    other.write_text(lines[-1].replace("1", "7"))
    task["files"] = {"search": "search.jsonl"}
    content["evaluation"]["tasks"] = [task, {**task, "name": "b", "files": {"search": str(other)}}]
    spec = StudySpec.parse(content, finished.parent)
    told = portable_spec(StudyInputs.without_tasks(spec))["evaluation"]["tasks"]
    assert [t["files"]["search"] for t in told] == ["search.jsonl", "b.search.jsonl"]


def test_three_files_of_one_name_and_a_scorers_file_have_names_alone(
    finished: Path, tmp_path: Path
) -> None:
    from mergefront.study.results.sharing.portable import portable_spec
    from mergefront.study.spec.inputs import StudyInputs
    from mergefront.study.spec.study_spec import StudySpec

    content = json.loads(json.dumps(StudySpec.from_yaml(finished).model_dump(mode="json")))
    (task,) = content["evaluation"]["tasks"]
    for split in ("search", "validation", "importance"):
        (tmp_path / split).mkdir()
        shutil.copy(finished.parent / "search.jsonl", tmp_path / split / "data.jsonl")
        task["files"][split] = str(tmp_path / split / "data.jsonl")
    task["scorer"] = f"{tmp_path}/score.py:points"
    spec = StudySpec.parse(content, finished.parent)
    (told,) = portable_spec(StudyInputs.without_tasks(spec))["evaluation"]["tasks"]
    assert told["scorer"] == "score.py:points"
    assert len(set(told["files"].values())) == len(told["files"])
    assert str(tmp_path) not in json.dumps(told)


def test_options_that_would_do_nothing_are_refused(published: Path, finished: Path) -> None:
    done = invoke("reproduce", published, "--spec", finished, "--model", "a=b")
    assert (done.exit_code, "--spec names parents" in done.stderr) == (1, True)
    done = invoke("reproduce", published, "--questions", finished.parent)
    assert (done.exit_code, "--questions is for --measure" in done.stderr) == (1, True)
