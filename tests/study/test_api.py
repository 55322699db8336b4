"""`import mergefront`: what a notebook does without the command line."""

import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend

import mergefront
from mergefront.errors import SpecError, StudyError


def test_everything_public_is_there_and_nothing_is_loaded_before_it_is_used() -> None:
    code = (
        "import sys, mergefront, mergefront.study.cli\n"
        "assert set(mergefront.__all__) <= set(dir(mergefront))\n"
        "heavy = {'torch', 'botorch', 'optuna', 'transformers', 'numpy', 'pydantic'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
    for name in set(mergefront.__all__) - {"recommend"}:
        assert getattr(mergefront, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'fly'"):
        _ = mergefront.fly


def test_a_study_is_named_by_path_spec_or_itself(finished: Path) -> None:
    study = mergefront.load_study(finished)
    by_study = mergefront.front(study)
    for source in (finished, str(finished), mergefront.StudySpec.from_yaml(finished)):
        assert mergefront.front(source).to_json() == by_study.to_json()
    assert by_study.hypervolume > 0
    assert mergefront.run(finished).study_name == study.study_name  # complete: nothing to do


def test_a_front_is_a_data_frame_and_a_table(finished: Path) -> None:
    front = mergefront.front(finished)
    frame = front.to_dataframe()
    assert list(frame.index) == [trial.number for trial in front.trials]
    first = front.trials[0]
    assert frame.loc[first.number, "accuracy"] == first.user_attrs["denoised"][0]
    assert frame.loc[first.number, "tokens_measured"] == first.values[1]
    assert frame.loc[first.number, "layer_000"] == first.params["layer_000"]
    shown = front._repr_html_()
    assert shown.count("<tr>") == len(front.trials) + 1
    assert f"knee: trial {front.knee}" in shown


def test_the_front_of_a_study_that_we_did_not_make() -> None:
    study = optuna.create_study(directions=["minimize", "minimize"])
    study.optimize(lambda t: (t.suggest_float("x", 0, 1), 1 - t.params["x"]), n_trials=5)
    front = mergefront.front(study)
    assert front.metric_names == ["objective 0", "objective 1"]
    assert len(front.trials) == 5
    with pytest.raises(StudyError, match="was not made by MergeFront"):
        mergefront.validate(study)


@pytest.mark.parametrize("kind", ["memory", "journal"])
def test_a_copy_outside_databases_can_be_read(finished: Path, tmp_path: Path, kind: str) -> None:
    study = mergefront.load_study(finished)
    storage: optuna.storages.BaseStorage = optuna.storages.InMemoryStorage()
    if kind == "journal":
        file = JournalFileBackend(str(tmp_path / "journal.log"))
        storage = optuna.storages.JournalStorage(file)
    optuna.copy_study(from_study_name="small", from_storage=study._storage, to_storage=storage)
    copied = optuna.load_study(study_name="small", storage=storage)
    assert mergefront.front(copied).hypervolume == mergefront.front(study).hypervolume
    for refused in (
        lambda: mergefront.validate(copied),
        lambda: mergefront.export(copied, 1, tmp_path / "out"),
    ):
        with pytest.raises(StudyError, match=r"need a study in a database, but 'small' is in"):
            refused()
    assert not (tmp_path / "out").exists()


def test_export_and_merge_write_the_same_model(finished: Path, tmp_path: Path) -> None:
    study = mergefront.load_study(finished)
    trial = study.trials[9]
    mergefront.export(study, trial.number, tmp_path / "a")
    mergefront.merge(finished, trial.params, tmp_path / "b")
    bytes_of = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ab"]
    assert bytes_of[0] == bytes_of[1]


@pytest.mark.parametrize("split", ["search", "importance", "tset"])
def test_only_fresh_questions_validate_and_a_refusal_leaves_nothing(
    finished: Path, split: str
) -> None:
    study = mergefront.load_study(finished)
    before = optuna.get_all_study_names(study._storage)
    with pytest.raises(SpecError, match="must be validation or test") as caught:
        mergefront.validate(study, split)
    assert ("saw its questions" in str(caught.value)) == (split != "tset")
    assert ("did you mean 'test'?" in str(caught.value)) == (split == "tset")
    assert optuna.get_all_study_names(study._storage) == before


def test_a_split_without_questions_leaves_nothing(finished: Path) -> None:
    study = mergefront.load_study(finished)
    with pytest.raises(SpecError, match="has no split 'test'"):
        mergefront.validate(study, "test")
    assert f"{study.study_name}.test" not in optuna.get_all_study_names(study._storage)
