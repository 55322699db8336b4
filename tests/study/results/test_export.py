"""Exported checkpoints are the candidates that were measured."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

import mergefront
from mergefront.errors import Interrupted, LayoutError, SpecError, StudyError
from mergefront.examples.demo import BASE
from mergefront.objectives.evaluation import Models, Sampling
from mergefront.objectives.evaluation.backends.chat import Chat
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
from mergefront.objectives.merging import MergeSettings
from mergefront.study import StudySpec
from mergefront.study.results import export
from mergefront.study.results.beside import whole_directory
from mergefront.study.results.export import export_trial, merge_weights
from mergefront.study.results.report.page import write_report
from mergefront.study.results.sharing.licences import (
    check_may_be_shared,
    joined_licence,
    licence_of,
    terms_of,
)
from mergefront.study.results.sharing.publish import publish_to_folder
from mergefront.study.run import make_objective
from mergefront.study.spec.inputs import load_inputs
from mergefront.study.storage.connection import load_study
from small_study import read_json_lines, write_spec


def _generate(directory: Path, prompts: list[str]) -> list[str]:
    """Answer with nothing but transformers, as a user of the checkpoint would."""
    tokenizer: Any = AutoTokenizer.from_pretrained(directory, padding_side="left")
    model: Any = AutoModelForCausalLM.from_pretrained(directory)
    batch: Any = tokenizer.apply_chat_template(
        [[{"role": "user", "content": prompt}] for prompt in prompts],
        return_tensors="pt",
        padding=True,
        return_dict=True,
    )
    with torch.inference_mode():
        out = model.generate(**batch, max_new_tokens=48)
    texts = tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :])
    return [text.split("<eos>")[0] for text in texts]


@pytest.mark.parametrize("number", [0, 1, 8, 9])
def test_an_exported_trial_generates_the_measured_answers(
    finished: Path, tmp_path: Path, number: int
) -> None:
    inputs, study = load_inputs(finished), load_study(StudySpec.from_yaml(finished))
    export_trial(inputs, study, number, tmp_path / "out")
    prompts = [line["prompt"] for line in read_json_lines(finished.parent / "search.jsonl")]
    objective = make_objective(inputs)
    measured = [answer.text for answer in objective.measure(study.trials[number].params).answers]
    assert _generate(tmp_path / "out", prompts) == measured


def test_an_exported_trial_has_the_in_place_candidates_bits(
    finished: Path, tmp_path: Path
) -> None:
    inputs, study = load_inputs(finished), load_study(StudySpec.from_yaml(finished))
    export_trial(inputs, study, 9, tmp_path / "out")
    objective = make_objective(inputs)
    objective.backend.apply(inputs.plan.group_weights(study.trials[9].params))
    exported = TransformersBackend()
    exported.load(Models(tmp_path / "out", (), "float32", MergeSettings(n_experts=0)))
    assert exported.checksum() == objective.backend.checksum()
    assert exported.generate(["cig?"], Sampling(4))[0].text


def test_card_and_recipe_tell_where_it_comes_from(finished: Path, tmp_path: Path) -> None:
    inputs, study = load_inputs(finished), load_study(StudySpec.from_yaml(finished))
    export_trial(inputs, study, 9, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    recipe = yaml.safe_load((tmp_path / "out" / "recipe.yaml").read_text())
    for checkpoint in (inputs.base, *inputs.experts):
        assert checkpoint.weights_hash() in card
    assert recipe["parents"]["base"]["hash"] == inputs.base.weights_hash()
    assert recipe["weights"] == study.trials[9].params
    value, error = study.trials[9].values[0], study.trials[9].user_attrs["standard_errors"][0]
    assert f"| {value:.4g} ± {error:.2g} |" in card
    heads = next(line for line in card.splitlines() if line.startswith("| metric |"))
    order = [heads.index(t) for t in ("noise-corrected", "measured on 24 questions of the search")]
    assert order == sorted(order)
    assert (tmp_path / "out" / "front.png").read_bytes().startswith(b"\x89PNG")
    assert "merge_method: linear" in card
    metadata = yaml.safe_load(card.split("---")[1])
    assert metadata["library_name"] == "transformers"
    assert metadata["tags"] == ["merge", "mergefront"]
    assert "base_model" not in metadata  # paths of this machine say nothing elsewhere


def test_fresh_questions_come_first_on_the_card(tmp_path: Path) -> None:
    path = write_spec(tmp_path, study={"trials": 4}, sampler={"preset": "random"})
    study = mergefront.run(path)
    validated = mergefront.validate(study).models[0]
    mergefront.export(study, validated.number, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    heads = next(line for line in card.splitlines() if line.startswith("| metric |"))
    noise = "noise-corrected, errors on the study's questions"
    assert heads.startswith(f"| metric | 24 fresh questions (`validation`) | {noise} |")
    value, error = validated.measurement.values[0], validated.measurement.standard_errors[0]
    assert f"| accuracy | {value:.4g} ± {error:.2g} | " in card


@pytest.mark.parametrize(
    ("licences", "joined"),
    [
        (["apache-2.0", "apache-2.0"], "apache-2.0"),
        (["apache-2.0", "mit"], "other"),
        (["apache-2.0", None], None),
        ([], None),
    ],
)
def test_licences_of_parents_are_joined(licences: list[str | None], joined: str | None) -> None:
    assert joined_licence(licences) == joined


def test_a_licence_that_forbids_derivatives_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: CC-BY-NC-ND-4.0\n---\n# Model\n")
    found = licence_of(tmp_path)
    assert found == "cc-by-nc-nd-4.0"
    check_may_be_shared([("a/b", "apache-2.0"), ("c/d", None)])
    with pytest.raises(SpecError, match=r"c/d is under cc-by-nc-nd-4\.0"):
        check_may_be_shared([("a/b", "mit"), ("c/d", found)])
    assert licence_of(tmp_path / "nothing") is None


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: [cc-by-nc-nd-4.0]\n---\n", "cc-by-nc-nd-4.0"),
        ("---\nlicense: [mit, CC-BY-ND-4.0]\n---", None),
        ("---\nlicense: other\nlicense_name: CC BY-NC-ND 4.0\n---\n", "other"),
        ("\n---\r\nlicense: other\r\nlicense_name: cc_by_nd\r\n--- \r\n", "other"),
    ],
)
def test_a_card_forbids_derivatives_in_any_of_its_ways(
    tmp_path: Path, card: str, licence: str | None
) -> None:
    (tmp_path / "README.md").write_bytes(card.encode())
    assert licence_of(tmp_path) == licence
    with pytest.raises(SpecError, match="allows no derivatives"):
        check_may_be_shared([("a/b", terms_of(tmp_path))])
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: acme-nda\n---\n")
    check_may_be_shared([("a/b", terms_of(tmp_path))])


def test_a_trial_that_does_not_exist_or_a_full_directory_is_refused(
    finished: Path, tmp_path: Path
) -> None:
    inputs, study = load_inputs(finished), load_study(StudySpec.from_yaml(finished))
    with pytest.raises(StudyError, match="0 to 9, but got 99"):
        export_trial(inputs, study, 99, tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(SpecError, match="new or empty directory"):
        export_trial(inputs, study, 9, tmp_path)
    assert not (tmp_path / "out").exists()


def test_given_weights_are_merged_without_a_study(spec_path: Path, tmp_path: Path) -> None:
    inputs = load_inputs(spec_path)
    weights = tmp_path / "weights.json"
    weights.write_text(json.dumps({"uniform": 1.0}))
    merge_weights(inputs, weights, tmp_path / "out")
    prompts = ["1a+1b+1?", "cig?"]
    assert _generate(tmp_path / "out", prompts) == _generate(inputs.experts[0].directory, prompts)
    assert "Not measured." in (tmp_path / "out" / "README.md").read_text()
    recipe = yaml.safe_load((tmp_path / "out" / "recipe.yaml").read_text())
    assert set(recipe["weights"].values()) == {1.0}


@pytest.mark.parametrize("operator", ["linear", "dare_ties"])
def test_the_recipe_gives_the_same_bytes_again(tmp_path: Path, operator: str) -> None:
    merge = {"operator": operator, "seed": 3} | ({} if operator == "linear" else {"density": 0.5})
    inputs = load_inputs(write_spec(tmp_path, merge=merge))
    (tmp_path / "w.json").write_text(
        json.dumps({group: 0.1 * i for i, group in enumerate(inputs.plan.groups)})
    )
    merge_weights(inputs, tmp_path / "w.json", tmp_path / "first")
    recipe = yaml.safe_load((tmp_path / "first" / "recipe.yaml").read_text())
    assert recipe["settings"]["seed"] == 3
    settings = {k: v for k, v in recipe["settings"].items() if k != "blocks"}
    again = load_inputs(write_spec(tmp_path, merge={"operator": recipe["operator"], **settings}))
    (tmp_path / "again.json").write_text(json.dumps(recipe["weights"]))
    merge_weights(again, tmp_path / "again.json", tmp_path / "second")
    files = [tmp_path / name / "model.safetensors" for name in ("first", "second")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("[0.5]", SpecError, "must hold an object"),
        ("{", SpecError, "must be a JSON file"),
        (
            '{"uniform": 0.1, "uniform": 1}',
            SpecError,
            "weights.json .*'uniform' comes twice",
        ),
        ('{"layer_000": 0.5}', LayoutError, "it lacks "),
        ('{"uniform": "half"}', LayoutError, "1 finite number"),
    ],
)
def test_weight_files_are_checked_before_anything_is_written(
    spec_path: Path, tmp_path: Path, content: str, error: type[Exception], message: str
) -> None:
    (tmp_path / "weights.json").write_text(content)
    with pytest.raises(error, match=message):
        merge_weights(load_inputs(spec_path), tmp_path / "weights.json", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _left(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), Interrupted(), OSError(28, "No space left")]
)
def test_an_interrupted_export_leaves_nothing_and_can_be_started_again(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    inputs, study = load_inputs(finished), load_study(StudySpec.from_yaml(finished))

    def cut_off(recipe: object, groups: object, out: Path) -> None:
        (out / "model.safetensors").write_bytes(b"half")
        assert not (tmp_path / "out").exists()  # nobody can take it for a checkpoint
        raise error

    expected = SpecError if isinstance(error, OSError) else type(error)
    with monkeypatch.context() as patch, pytest.raises(expected):
        patch.setattr(export, "write_checkpoint", cut_off)
        export_trial(inputs, study, 0, tmp_path / "out")
    assert _left(tmp_path) == []
    (tmp_path / ".out.partial-of-a-killed-one").mkdir()
    export_trial(inputs, study, 0, tmp_path / "out")
    assert {"config.json", "model.safetensors", "README.md"} <= set(_left(tmp_path / "out"))


def test_an_empty_folder_that_is_used_is_filled(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with whole_directory(Path(".")) as beside:
        (beside / "file").touch()
    assert _left(tmp_path) == ["file"]


def test_a_full_folder_that_is_used_is_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mount cannot be replaced: files are moved into it, and the third finds no room."""
    (tmp_path / "mount").mkdir()

    def busy(source: Path, target: Path) -> None:
        raise OSError(16, "Device or resource busy")

    def fills(source: Path, target: Path) -> None:
        if source.name == "config.json":
            target.write_text("{")
            raise OSError(28, "No space left on device")
        shutil.copy(source, target)

    monkeypatch.setattr(Path, "replace", busy)
    monkeypatch.setattr(shutil, "move", fills)
    with (
        pytest.raises(SpecError, match=r"^--to .* could not be written: No space left on device"),
        whole_directory(tmp_path / "mount", "--to") as beside,
    ):
        for name in ("config.json", "model.safetensors", "README.md"):
            (beside / name).write_text(name)
    assert _left(tmp_path) == ["mount"]
    assert _left(tmp_path / "mount") == []


def test_a_folder_that_somebody_filled_meanwhile_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with (
        pytest.raises(SpecError, match="must be a new or empty directory"),
        whole_directory(out) as beside,
    ):
        (beside / "README.md").write_text("ours")
        (out / "README.md").write_text("theirs")
    assert (out / "README.md").read_text() == "theirs"
    assert _left(tmp_path) == ["out"]


def test_a_place_that_cannot_be_written_is_refused_first(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    study, spec = load_study(StudySpec.from_yaml(finished)), StudySpec.from_yaml(finished)
    for out in (tmp_path / "file" / "out", Path("/proc/out")):
        with pytest.raises(SpecError, match="--out must be a directory that can be written"):
            export_trial(load_inputs(finished), study, 0, out)
        with pytest.raises(SpecError, match="--to must be a directory that can be written"):
            publish_to_folder(load_inputs(finished), study, 0, out)
        with pytest.raises(SpecError, match="--out must be a directory that can be written"):
            write_report(study, spec, out)


def test_an_export_stops_and_is_asked_as_it_was_measured(finished: Path, tmp_path: Path) -> None:
    inputs = load_inputs(finished)
    merge_weights(inputs, dict.fromkeys(inputs.plan.parameter_names, 0.5), tmp_path / "as-base")
    written = (tmp_path / "as-base" / "generation_config.json").read_bytes()
    assert written == (inputs.base.directory / "generation_config.json").read_bytes()
    others = replace(inputs, stop_tokens=(2, 5), chat_template="{{ messages[0].content }}")
    merge_weights(others, dict.fromkeys(inputs.plan.parameter_names, 0.5), tmp_path / "others")
    chat = Chat(tmp_path / "others")
    assert chat.stop_tokens == {2, 5}
    assert chat.tokenizer.chat_template == "{{ messages[0].content }}"


def test_a_processors_own_template_does_not_hide_the_chosen_one(tmp_path: Path) -> None:
    base = shutil.copytree(BASE, tmp_path / "base")
    (base / "chat_template.json").write_text('{"chat_template": ""}')
    inputs = load_inputs(write_spec(tmp_path, models={"base": str(base)}))
    weights = dict.fromkeys(inputs.plan.parameter_names, 0.5)
    for chosen in (None, "{{ messages[0].content }}"):
        out = tmp_path / str(chosen is None)
        merge_weights(replace(inputs, chat_template=chosen), weights, out)
        assert (out / "chat_template.json").is_file() == (chosen is None)
