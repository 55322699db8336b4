"""Searches of one spec side by side."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from command import invoke
from mergefront.errors import SpecError
from mergefront.objectives import MergeObjective
from mergefront.objectives.evaluation import Answer
from mergefront.study import StudySpec
from mergefront.study.cli.research.compare import _seeds
from mergefront.study.comparison.compare import Clock, recorded_seconds, search
from mergefront.study.comparison.scores import score
from mergefront.study.comparison.simulation import SPAN
from mergefront.study.comparison.variants import Variant
from mergefront.study.results.indicators import igd_plus, non_dominated, spacing
from small_study import write_spec


def test_igd_plus_counts_what_is_lacking_alone() -> None:
    best = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert igd_plus(best, best) == 0.0
    # (0.5, 0.5) lacks half of one objective and has too much of the other.
    assert igd_plus(np.array([[0.5, 0.5]]), best) == pytest.approx(0.5)
    assert igd_plus(np.array([[2.0, 2.0]]), best) == 0.0


def test_spacing_is_zero_for_even_points() -> None:
    even = np.array([[0.0, 2.0], [1.0, 1.0], [2.0, 0.0]])
    assert spacing(even) == 0.0
    uneven = np.array([[0.0, 2.0], [0.5, 1.5], [2.0, 0.0]])  # nearest at 1, 1 and 3
    assert spacing(uneven) == pytest.approx(math.sqrt(4 / 3))
    assert math.isnan(spacing(even[:2]))


def test_dominated_points_are_dropped_and_equal_ones_kept() -> None:
    points = np.array([[1.0, 1.0], [1.0, 1.0], [0.0, 2.0], [0.0, 1.0]])
    assert non_dominated(points).tolist() == [[1.0, 1.0], [1.0, 1.0], [0.0, 2.0]]


def test_recorded_times_are_those_of_answers_in_turns() -> None:
    answers = [Answer(f"q{i}", "t", 1.0, 3, "stop", "", 0, s) for i, s in enumerate((4, 1, 2, 2))]
    assert recorded_seconds(answers, 4) == 4
    assert recorded_seconds(answers, 2) == 5  # 4 | 1, 2, 2
    assert recorded_seconds(answers, 1) == 9


def test_variants_change_keys_under_names_of_their_own(tmp_path: Path) -> None:
    spec = StudySpec.from_yaml(write_spec(tmp_path, merge={"granularity": "layer"}))
    bambo = Variant.parse("bambo").spec(spec, 3)
    assert bambo.merge.granularity == "blocks"  # the preset wins over the spec
    assert (bambo.study.name, bambo.study.seed) == ("small.bambo.s3", 3)
    text = "ap-bmm:sampler.rerank=null:merge.bounds=[0, 0.9]"
    changed = Variant.parse(text).spec(spec, 0)
    assert changed.sampler.rerank is None
    assert changed.merge.bounds == (0.0, 0.9)
    assert changed.importance.kind == "both"
    assert changed.evaluation.cache == bambo.evaluation.cache
    assert Variant.parse("ties").seeds([0, 1, 2]) == [0]
    assert Variant.parse("dare").seeds([0, 1]) == [0, 1]
    assert Variant.parse("dare").spec(spec, 4).merge.seed == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ap-bmm:rerank=null", "must be PRESET or PRESET:SECTION.KEY=VALUE"),
        ("ap-bmm:sampler.rerank", "must be PRESET or PRESET:SECTION.KEY=VALUE"),
        ("apbmm", "sampler.preset"),
        ("random:sampler.bach=4", "did you mean 'batch'"),
    ],
)
def test_variants_that_make_no_sense_are_named(tmp_path: Path, text: str, message: str) -> None:
    spec = StudySpec.from_yaml(write_spec(tmp_path))
    with pytest.raises(SpecError, match=message):
        Variant.parse(text).spec(spec, 0)


def test_one_search_does_not_count_as_two(tmp_path: Path) -> None:
    path = write_spec(tmp_path, study={"trials": 5})
    result = invoke("compare", path, "--presets", "random,random", "--seeds", "1")
    assert result.exit_code != 0
    assert "--presets names 'random' twice" in result.output
    assert not (tmp_path / "study.db").exists()


def test_compare_prints_a_row_a_variant_and_resumes(tmp_path: Path) -> None:
    path = write_spec(tmp_path, study={"trials": 5}, sampler={"n_startup_trials": 3})
    arguments = ("compare", path, "--presets", "random,uniform", "--seeds", "0,1")
    first = invoke(*arguments, "--format", "json")
    records = json.loads(first.stdout)
    assert [(r["variant"], r["seed"]) for r in records] == [
        ("random", 0), ("random", 1), ("uniform", 0)
    ]  # fmt: skip
    for record in records:
        assert record["validated_hypervolume"] > 0
        assert record["igd_plus"] >= 0
        assert 0 < record["utilisation"] <= 1
    fewer = invoke(*arguments, "--trials", "4")  # not the first four: startup is another
    assert fewer.exit_code == 1
    assert "here 4, but 'small.random.s0' has 5 already. Add `--trials 5`" in fewer.stderr
    again = invoke(*arguments)
    table = again.stdout.splitlines()
    assert [row.split(" | ")[0] for row in table[2:]] == ["| random", "| uniform"]
    study = optuna.load_study(
        study_name="small.random.s1", storage=f"sqlite:///{tmp_path}/study.db"
    )
    assert len(study.trials) == 5  # nothing was repeated


def test_what_cannot_run_is_refused_before_anything_does(tmp_path: Path) -> None:
    path = write_spec(tmp_path)
    for arguments, message in (
        (("--presets", "random,ap-bmm", "--split", "test"), "has no split 'test'"),
        (("--variation", "0.5"), "add --simulate WORKERS"),
        (("--seeds", "one"), "--seeds must be how many"),
    ):
        result = invoke("compare", path, *arguments)
        assert result.exit_code == 1
        assert message in result.stderr
    second = "random,random:merge.operator=[linear, slerp]:merge.precision=int4"
    small = write_spec(tmp_path, models={"dtype": "bfloat16"})
    small.write_text(small.read_text().replace("metric: tokens", "metric: memory"))
    assert "`memory` must differ" in invoke("compare", small, "--presets", second).stderr
    racing = write_spec(tmp_path, evaluation={"racing": {"blocks": [0.2]}})
    result = invoke("compare", racing, "--presets", "random", "--simulate", "2")
    assert "Simulated workers measure whole candidates" in result.stderr
    assert not (tmp_path / "study.db").exists()


def test_earlier_studies_are_for_those_who_learn_from_them(tmp_path: Path) -> None:
    spec = StudySpec.from_yaml(write_spec(tmp_path, sampler={"warm_start": ["earlier"]}))
    for preset, known in (("mergefront", ["earlier"]), ("qnehvi", ["earlier"]), ("ap-bmm", [])):
        assert Variant.parse(preset).spec(spec, 0).sampler.warm_start == known


def test_variants_leave_out_what_is_not_theirs(tmp_path: Path) -> None:
    merge = {"granularity": "blocks", "blocks": [0, 2]}
    path = write_spec(tmp_path, evaluation={"baseline": 9}, merge=merge)
    spec = StudySpec.from_yaml(path)
    for preset in ("sip-bmm", "uniform", "bambo"):
        changed = Variant.parse(preset).spec(spec, 0)
        assert changed.evaluation.baseline is None
    assert Variant.parse("random").spec(spec, 0).evaluation.baseline == 9
    assert Variant.parse("uniform").spec(spec, 0).merge.blocks is None


def test_simulated_workers_rotate_questions(tmp_path: Path) -> None:
    path = write_spec(
        tmp_path,
        n_questions=32,
        study={"trials": 4},
        sampler={"n_startup_trials": 2},
        evaluation={"rotate": True},
    )
    spec = StudySpec.from_yaml(path)
    found = search(spec, Variant.parse("random"), 0, "validation", Clock(2))
    trials = optuna.load_study(study_name=found.study, storage=spec.study.storage).trials
    asked = [trial.user_attrs["answers"]["questions"] for trial in trials]
    assert [len(questions) for questions in asked] == [8] * 4
    assert set(asked[0]).isdisjoint(asked[1])  # dealt like cards


def test_a_simulated_search_shares_answers_and_goes_on_after_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_spec(
        tmp_path, n_questions=8, study={"trials": 8}, sampler={"n_startup_trials": 2}
    )
    spec = StudySpec.from_yaml(path)
    measure, calls = MergeObjective.measure, []

    def interrupted(self: MergeObjective, *arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return measure(self, *arguments, **options)

    monkeypatch.setattr(MergeObjective, "measure", interrupted)
    run = (spec, Variant.parse("random"), 0, "validation", Clock(3, 0.6))
    with pytest.raises(KeyboardInterrupt):
        search(*run)
    found = search(*run)
    trials = optuna.load_study(study_name=found.study, storage=spec.study.storage).trials
    assert len(trials) == 8
    ends = sorted(tuple(trial.user_attrs[SPAN]) for trial in trials)
    assert len({start for start, _ in ends}) >= 6  # three began at once
    assert found.use.utilisation == pytest.approx(1.0)
    other = search(spec, Variant.parse("random"), 0, "validation", Clock(3))
    recorded = optuna.load_study(study_name=other.study, storage=spec.study.storage).trials
    assert recorded[0].user_attrs["n_cached"] == 8
    assert all(start < end for start, end in (trial.user_attrs[SPAN] for trial in recorded))
    scores = score([found, other])
    assert all(s.igd_plus >= 0 and s.n_front > 0 for s in scores)


def test_variants_are_read_with_lists_and_refused_in_one_line(tmp_path: Path) -> None:
    spec = StudySpec.from_yaml(write_spec(tmp_path))
    first, second = Variant.parse_all("random:merge.bounds=[0, 1.5],ties")
    assert first.spec(spec, 0).merge.bounds == (0, 1.5)
    assert second.label == "ties"
    for text in ("random:merge.bounds=[0", "random:merge.bounds={"):
        with pytest.raises(SpecError, match="must be YAML"):
            Variant.parse_all(text)
    with pytest.raises(SpecError, match="is a list"):
        Variant.parse("random:objectives.x=1").spec(spec, 0)


def test_a_long_variant_has_a_name_that_files_may_have(tmp_path: Path) -> None:
    spec = StudySpec.from_yaml(write_spec(tmp_path))
    labels = [f"random:importance.kind={' ' * 300}none:merge.seed={k}" for k in range(2)]
    names = {Variant.parse(label).spec(spec, 0).study.name for label in labels}
    assert len(names) == 2
    assert all(len(name) < 120 for name in names)


@pytest.mark.parametrize(("text", "seeds"), [("3", [0, 1, 2]), ("1,1,2,1", [1, 2]), ("7,", [7])])
def test_a_seed_counts_once(text: str, seeds: list[int]) -> None:
    assert _seeds(text) == seeds
