"""`mergefront select`: signals cached, gains learned, choices ranked, specs that run."""

import json
import re
import shutil
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import yaml

from command import invoke
from joint_study import write_joint_spec
from mergefront.errors import SpecError, StudyError
from mergefront.examples.demo import BASE, QUESTIONS
from mergefront.objectives.similarity import merge_features
from mergefront.samplers.simmerge import Example, Merge, read_examples, write_examples
from mergefront.study import StudySpec
from mergefront.study.run import run
from mergefront.study.seeding import SPEC
from mergefront.study.selection import pair_signals
from mergefront.study.selection.catalogue import Catalogue, read_catalogue
from mergefront.study.selection.measured_merges import read_source, study_examples
from mergefront.study.selection.pair_signals import PairSignals
from mergefront.study.selection.select import Selection, read_probes, select, write_specs
from mergefront.study.storage.connection import load_study
from small_catalogue import write_catalogue, write_model, write_sibling
from small_study import write_spec

TIES = "ties(density=0.5, normalize=1)"


def _probes(folder: Path, n: int = 3) -> Path:
    lines = (QUESTIONS / "importance.jsonl").read_text().splitlines()[:n]
    path = folder / "probes.jsonl"
    path.write_text("".join(json.dumps({"prompt": json.loads(x)["prompt"]}) + "\n" for x in lines))
    return path


def _signals(catalogue: Catalogue, probes: Path) -> PairSignals:
    prompts = read_probes(probes)
    return pair_signals.pair_signals(catalogue.models, catalogue.ancestor, prompts, "float32")


def _examples(catalogue: Catalogue, probes: Path, out: Path) -> Path:
    """Write measured merges in which TIES is better the farther two models are apart."""
    signals = _signals(catalogue, probes)
    rng = np.random.default_rng(0)
    examples = []
    for left, right in permutations(catalogue.models, 2):
        features = merge_features(signals[left, right], signals[right, left], is_ordered=False)
        far = features["model.weight_distance"]
        for operator, sign in (("linear", -1.0), ("slerp", -1.0), (TIES, 1.0)):
            gain = 0.05 + sign * far + 0.002 * rng.normal()
            examples.append(Example(Merge((left, right), operator, features), gain, 0.002, "t"))
    write_examples(examples, out)
    return out


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a catalogue of five models, probes, examples and a study's spec."""
    folder = tmp_path_factory.mktemp("shop")
    study = write_spec(folder, study={"trials": 7}, importance={"kind": "none"})
    path = write_catalogue(folder, 5, study=study.name, max_models=3)
    _examples(read_catalogue(path), _probes(folder), folder / "examples.jsonl")
    return folder


@pytest.fixture(scope="module")
def selection(shop: Path) -> Selection:
    catalogue = read_catalogue(shop / "catalogue.yaml")
    examples = read_examples(shop / "examples.jsonl")
    return select(catalogue, read_probes(shop / "probes.jsonl"), examples)


def _select(shop: Path, *options: object) -> Any:
    line = ["--probes", shop / "probes.jsonl", "--train", shop / "examples.jsonl", *options]
    return invoke("select", shop / "catalogue.yaml", *line)


def test_choices_are_ranked_with_intervals(shop: Path) -> None:
    done = _select(shop, "--format", "json", "--top", "1000", "--out", shop / "specs")
    assert done.exit_code == 0, done.stderr
    content = json.loads(done.stdout)
    assert content["examples"] == 60
    assert content["refused"] == {}
    choices = content["choices"]
    # Ten pairs by three operators; three orders of ten triples by nine.
    assert len(choices) == 10 * 3 + 10 * 3 * 9
    known = [choice for choice in choices if choice["known"]]
    gains = [choice["gain"] for choice in known]
    assert gains == sorted(gains, reverse=True)
    for choice in known:
        low, high = choice["interval"]
        assert low < choice["gain"] < high
        assert choice["score"] is None
        assert Path(choice["spec"]).exists()
    pairs = [choice for choice in known if len(choice["models"]) == 2]
    assert pairs[0]["operators"] == [TIES]
    assert set(pairs[0]["models"]) == {"m0", "m4"}  # those farthest apart


def test_the_table_names_what_was_used_and_what_was_refused(shop: Path, tmp_path: Path) -> None:
    write_model(tmp_path / "poisoned", lambda name, tensor: tensor * float("nan"))
    content = yaml.safe_load((shop / "catalogue.yaml").read_text())
    content["models"] = {n: {"path": n, "score": 0.5} for n in content["models"]}
    content["models"]["bad"] = {"path": str(tmp_path / "poisoned"), "score": 0.9}
    (shop / "scored.yaml").write_text(yaml.safe_dump(content))
    line = ["--probes", shop / "probes.jsonl", "--train", shop / "examples.jsonl", "--top", 3]
    done = invoke("select", shop / "scored.yaml", *line)
    assert done.exit_code == 0, done.stderr
    assert "refused bad: " in done.stderr
    assert "Learned from 60 measured merges" in done.stderr
    assert "Used: " in done.stderr
    heads, _, *rows = [line.split() for line in done.stdout.splitlines() if line.strip()]
    assert heads[:2] == ["rank", "score"]
    assert len(rows) == 3
    assert float(rows[0][1]) > 0.5


def test_signals_are_computed_once(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("computed again")

    found = read_catalogue(shop / "catalogue.yaml")
    first = _signals(found, shop / "probes.jsonl")
    monkeypatch.setattr(pair_signals, "structural_signals", refuse)
    monkeypatch.setattr(pair_signals, "functional_signals", refuse)
    assert _signals(found, shop / "probes.jsonl") == first
    monkeypatch.setattr(pair_signals, "functional_signals", lambda *a: {})
    with pytest.raises(KeyError):  # other probes are another task
        _signals(found, _probes(shop / "m0", 2))


def test_a_new_model_is_compared_with_all(shop: Path, tmp_path: Path) -> None:
    found = read_catalogue(shop / "catalogue.yaml")
    write_sibling(tmp_path / "new", 0.4, seed=9)
    content = {**yaml.safe_load((shop / "catalogue.yaml").read_text())}
    content["models"] = {n: str(shop / n) for n in content["models"]} | {"new": "new"}
    (tmp_path / "catalogue.yaml").write_text(yaml.safe_dump(content))
    more = read_catalogue(tmp_path / "catalogue.yaml")
    before, after = (_signals(c, shop / "probes.jsonl") for c in (found, more))
    assert before.items() <= after.items()
    assert ("new", "m0") in after


def test_specs_are_ready_for_run(selection: Selection, tmp_path: Path) -> None:
    specs = write_specs(selection, tmp_path / "specs", 60)
    assert specs == sorted((tmp_path / "specs").glob("*.yaml"))
    assert len(specs) == 60
    parsed = {path: StudySpec.from_yaml(path) for path in specs}
    assert len({spec.study.name for spec in parsed.values()}) == 60
    path = next(p for p in specs if not p.with_suffix("").exists() and _operator(p) == "ties")
    assert invoke("run", path, "--dry-run").exit_code == 0
    done = invoke("run", path, "--trials", 4)
    assert done.exit_code == 0, done.stderr
    assert "linear" not in path.read_text()
    assert path.read_text().startswith("# m")


def test_a_spec_of_what_is_out_of_range_says_no_number(
    selection: Selection, tmp_path: Path
) -> None:
    one = selection.ranked[0]
    far = replace(one, prediction=replace(one.prediction, is_known=False))
    (path,) = write_specs(replace(selection, ranked=[far]), tmp_path, 1)
    title = path.read_text().splitlines()[0]
    assert title.endswith("unlike all merges learned from, so nothing is predicted")


def _operator(path: Path) -> str:
    return str(yaml.safe_load(path.read_text())["merge"]["operator"])


def test_chains_of_three_say_how_their_first_step_is_made(
    selection: Selection, tmp_path: Path
) -> None:
    ranked = [one for one in selection.ranked if len(one.chain.models) == 3]
    (path,) = write_specs(replace(selection, ranked=ranked), tmp_path, 1)
    commands = [x[2:] for x in path.read_text().splitlines() if x.startswith("# mergefront")]
    assert len(commands) == 1
    assert invoke(*commands[0].split()[1:]).exit_code == 0
    done = invoke("run", path, "--trials", 3)
    assert done.exit_code == 0, done.stderr


def test_specs_need_a_study_to_start_from(selection: Selection, tmp_path: Path) -> None:
    settings = selection.catalogue.settings.model_copy(update={"study": None})
    bare = replace(selection, catalogue=replace(selection.catalogue, settings=settings))
    with pytest.raises(SpecError, match="name a spec"):
        write_specs(bare, tmp_path / "out", 3)
    assert not (tmp_path / "out").exists()


def test_specs_find_the_files_of_the_spec_they_were_made_of(
    shop: Path, selection: Selection, tmp_path: Path
) -> None:
    template = yaml.safe_load((shop / "spec.yaml").read_text())
    template["importance"] = {"kind": "file", "path": "prior.json"}
    template["sampler"] = {"preset": "mergefront", "warm_start": ["earlier.yaml", "a-study"]}
    template["evaluation"]["chat"] = {"template": "plain.jinja"}
    template["evaluation"]["tasks"][0]["scorer"] = "points.py:score"
    own = tmp_path / "own"
    own.mkdir()
    for name in ("prior.json", "earlier.yaml", "plain.jinja", "points.py"):
        (own / name).touch()
    (own / "template.yaml").write_text(yaml.safe_dump(template))
    settings = selection.catalogue.settings.model_copy(update={"study": "template.yaml"})
    catalogue = replace(selection.catalogue, settings=settings, folder=own)
    (path,) = write_specs(replace(selection, catalogue=catalogue), tmp_path / "specs", 1)
    spec = StudySpec.from_yaml(path)
    assert spec.importance.path == str(own / "prior.json")
    assert spec.sampler.warm_start == [str(own / "earlier.yaml"), "a-study"]
    assert spec.evaluation.chat.template == str(own / "plain.jinja")
    assert spec.evaluation.tasks[0].scorer == f"{own}/points.py:score"


def test_specs_that_were_changed_are_not_overwritten(selection: Selection, tmp_path: Path) -> None:
    first, second = write_specs(selection, tmp_path, 2)
    assert write_specs(selection, tmp_path, 2) == [first, second]  # the same content is fine
    kept = second.read_text() + "# mine\n"
    second.write_text(kept)
    first.unlink()
    with pytest.raises(
        SpecError, match=r"02\.yaml exists and says something else; nothing was wr"
    ):
        write_specs(selection, tmp_path, 3)
    assert [*tmp_path.glob("*.yaml")] == [second]
    assert second.read_text() == kept


def test_nothing_is_pretended_without_outcomes(shop: Path) -> None:
    line = ["select", shop / "catalogue.yaml", "--probes", shop / "probes.jsonl"]
    done = invoke(*line)
    assert done.exit_code == 1
    assert "nothing to learn from" in done.stderr
    lines = (shop / "examples.jsonl").read_text().splitlines()
    (shop / "few.jsonl").write_text("\n".join(lines[:3]) + "\n")
    done = invoke(*line, "--train", shop / "few.jsonl")
    assert done.exit_code == 1
    assert "At least 6 measured merges of 4 models" in done.stderr
    assert "--train" in done.stderr


@pytest.mark.parametrize("text", ["", "{}", "[1]", '"a"', "{"])
def test_bad_probes_are_one_clear_line(shop: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "probes.jsonl").write_text(text)
    line = ["--probes", tmp_path / "probes.jsonl", "--train", shop / "examples.jsonl"]
    done = invoke("select", shop / "catalogue.yaml", *line)
    assert done.exit_code == 1
    assert "probe" in done.stderr.lower()
    assert len(done.stderr.strip().splitlines()) == 1


def test_it_learns_from_finished_studies(tmp_path: Path) -> None:
    """Gains of uniform merges near one half, over both parents, with what is known of the pair."""
    shutil.copytree(BASE, tmp_path / "base")
    write_sibling(tmp_path / "sibling", 0.9, seed=1)
    merges = {
        "pair": ({"experts": [str(tmp_path / "sibling")]}, {"operator": "slerp"}),
        "ancestor": (
            {"experts": [str(tmp_path / "sibling"), str(tmp_path / "base")]},
            {"operator": "ties", "density": 0.5},
        ),
    }
    for name, (models, merge) in merges.items():
        study = {"name": name, "trials": 8 if name == "pair" else 9}
        sampler = {"n_startup_trials": study["trials"]}
        path = write_spec(tmp_path, study=study, models=models, merge=merge, sampler=sampler)
        run(_inputs(path))
        (tmp_path / f"{name}.yaml").write_text(path.read_text())
    unfinished = write_spec(tmp_path, study={"name": "unfinished", "trials": 50})
    assert invoke("init", unfinished).exit_code == 0

    url = f"sqlite:///{tmp_path}/study.db"
    foreign = optuna.create_study(study_name="foreign", storage=url)  # not one of ours
    assert foreign.trials == []
    broken = optuna.create_study(study_name="broken", storage=url)
    broken.set_user_attr(SPEC, {"study": {"name": "broken"}})
    found, skipped = read_source(url)
    assert skipped.keys() == {"unfinished", "broken"}
    assert "a study needs `trials`" in skipped["broken"]
    assert "0 of 50 trials" in skipped["unfinished"]
    by_operator = {example.merge.operator: example for example in found}
    assert by_operator.keys() == {"slerp", "ties(density=0.5)"}
    pair = by_operator["slerp"]
    assert read_source(f"{url}#pair") == ([pair], {})
    with pytest.raises(StudyError, match="has no study 'pairs'; did you mean 'pair'"):
        read_source(f"{url}#pairs")
    assert study_examples(StudySpec.from_yaml(tmp_path / "pair.yaml")) == [pair]
    assert "model.task_cosine" not in pair.merge.features
    assert "model.task_cosine" in by_operator["ties(density=0.5)"].merge.features
    _check_gain(tmp_path / "pair.yaml", pair)


def test_a_study_that_its_tokens_end_is_finished(tmp_path: Path) -> None:
    path = write_spec(tmp_path, study={"trials": None, "budget": {"tokens": 6000}})
    assert invoke("init", path).exit_code == 0
    with pytest.raises(StudyError, match=r"^0 trials are measured; finish it with `mergefront"):
        study_examples(StudySpec.from_yaml(path))
    run(_inputs(path))
    (example,) = study_examples(StudySpec.from_yaml(path))
    assert example.merge.operator == "linear"


def test_a_study_over_operators_and_experts_has_an_example_for_each_choice(
    tmp_path: Path,
) -> None:
    sampler = {"n_startup_trials": 15}
    path = write_joint_spec(tmp_path, study={"trials": 15}, sampler=sampler)
    run(_inputs(path))
    trials = {t.user_attrs["label"]: t for t in load_study(StudySpec.from_yaml(path)).trials}
    shares: dict[str, list[str]] = {}  # experts that are merged at once share the weight
    for label in trials:
        match = re.fullmatch(r"uniform (\S+), (\w+\S* of ([\d+]+))", label)
        if match and 0.35 <= float(match[1]) / len(match[3].split("+")) <= 0.65:
            shares.setdefault(match[2], []).append(label)
    found = study_examples(StudySpec.from_yaml(path))
    assert len(found) == len(shares) >= 3
    operators = {example.merge.operator for example in found}
    assert operators <= {"linear", "slerp", "ties(density=0.5)"}
    arm, halves = next(iter(shares.items()))
    numbers = arm.rsplit(" ", 1)[1].split("+")
    parents = [*(["base"] if len(numbers) == 1 else []), *(f"expert {k}" for k in numbers)]
    same = [trials[label].values[0] for label in halves]
    gain = np.mean(same) - np.mean([trials[label].values[0] for label in parents])
    assert any(example.gain == pytest.approx(gain) for example in found)


@pytest.mark.parametrize(
    ("merge", "reason"),
    [
        ({"precision": {"choose": ["int8", "int4"]}}, "rounded to a precision"),
        ({"operator": "ties", "density": [0.2, 0.8]}, "density is not one number"),
    ],
)
def test_what_teaches_nothing_is_told_why(
    tmp_path: Path, merge: dict[str, Any], reason: str
) -> None:
    study = {"trials": 8}
    path = write_spec(tmp_path, study=study, merge=merge, sampler={"n_startup_trials": 8})
    run(_inputs(path))
    with pytest.raises(StudyError, match=reason):
        study_examples(StudySpec.from_yaml(path))


def _check_gain(path: Path, example: Example) -> None:
    trials = {t.user_attrs["label"]: t for t in load_study(StudySpec.from_yaml(path)).trials}
    parents = [trials["base"].values[0], trials["expert"].values[0]]
    halves = [trials[f"uniform {w}"].values[0] for w in ("0.43", "0.57")]
    assert example.gain == pytest.approx(np.mean(halves) - np.mean(parents))
    assert example.merge.features["parents.gap"] == pytest.approx(abs(parents[0] - parents[1]))
    assert 0 < example.standard_error < 0.2


def _inputs(path: Path) -> Any:
    from mergefront.study.spec.inputs import load_inputs

    return load_inputs(path)


def test_sources_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="must hold measured merges"):
        read_source(str(tmp_path / "no.jsonl"))
    with pytest.raises(SpecError, match="A spec must be readable"):
        read_source(str(tmp_path / "no.yaml"))
    with pytest.raises(StudyError):
        read_source(f"sqlite:///{tmp_path}/no.db")
