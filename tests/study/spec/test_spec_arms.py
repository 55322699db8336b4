"""Operators and experts to choose from: what a spec says, and what it is refused for."""

from pathlib import Path
from typing import Any

import pytest

from mergefront.errors import SpecError
from mergefront.study import StudySpec
from mergefront.study.first_trials import spread_arms
from mergefront.study.spec.merge.arms import arms_of

CONTENT: dict[str, Any] = {
    "study": {"name": "a", "storage": "sqlite:///a.db", "trials": 20},
    "models": {"base": "b", "experts": ["e", "f", "g"]},
    "objectives": [{"metric": "accuracy"}],
    "evaluation": {"tasks": [{"name": "t", "path": "q.jsonl"}]},
}


def _spec(**changes: dict[str, Any]) -> StudySpec:
    content = {key: {**CONTENT[key], **changes.pop(key, {})} for key in ("study", "models")}
    evaluation = {**CONTENT["evaluation"], **changes.pop("evaluation", {})}
    whole = {**CONTENT, **content, "evaluation": evaluation, **changes}
    return StudySpec.parse(whole, Path())


def _labels(spec: StudySpec) -> list[str]:
    return [f"{arm.label} {arm.experts_label}" for arm in spec.arms]


def test_one_operator_and_all_experts_are_no_choice() -> None:
    assert _spec().arms == ()
    assert _spec(merge={"operator": ["ties"], "density": 0.5}).arms == ()
    listed = _spec(merge={"operator": [{"name": "ties", "density": 0.5}]})
    assert listed == _spec(merge={"operator": "ties", "density": 0.5})


def test_operators_are_paired_with_the_experts_that_they_take() -> None:
    spec = _spec(
        models={"choose": {"max": 2}},
        merge={"operator": ["slerp", {"name": "ties", "density": 0.5}]},
    )
    one = ["slerp 1", "slerp 2", "slerp 3"]
    two = [f"ties(density=0.5) {experts}" for experts in ("1", "2", "3", "1+2", "1+3", "2+3")]
    assert _labels(spec) == [*one, *two]


def test_orders_are_searched_where_they_matter() -> None:
    spec = _spec(
        models={"choose": {"min": 2, "max": 2}, "experts": ["e", "f"]},
        merge={"operator": ["slerp", "linear"], "order": "search"},
    )
    assert _labels(spec) == ["slerp 1>2", "slerp 2>1", "linear 1+2"]
    assert _spec(merge={"operator": "slerp", "order": "given"}).arms == ()
    assert len(_spec(merge={"operator": "slerp", "order": "search"}).arms) == 6


def test_density_belongs_to_operators_that_leave_something_out() -> None:
    spec = _spec(merge={"operator": ["linear", "ties"], "density": [0.3, 0.9]})
    assert [arm.density for arm in spec.arms] == [1.0, (0.3, 0.9)]


def test_a_spec_with_choices_survives_being_written_and_read() -> None:
    spec = _spec(
        models={"choose": {"max": 2}},
        merge={"operator": ["linear", {"name": "ties", "density": 0.5}]},
    )
    assert spec.with_overrides(trials=20) == spec


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"merge": {"operator": ["linear", "slrp"]}}, "merge.operator.1: .*did you mean 'slerp'"),
        ({"merge": {"operator": ["linear", {"nme": "ties"}]}}, "did you mean 'name'"),
        ({"merge": {"operator": ["linear", "linear"]}}, "'linear' is there twice"),
        ({"merge": {"operator": []}}, "the list is empty"),
        ({"merge": {"operator": ["linear", 3]}}, "of names, or of .name: .* but 3 is in it"),
        ({"merge": {"operator": [{"density": 0.5}]}}, "of names, or of .name: .* is in it"),
        ({"merge": {"operator": 5}}, "a name or a list of them, but got 5"),
        (
            {"merge": {"operator": {"name": "ties", "density": 0.5}}},
            r"write operator: \[{name: ties, density: 0.5}\]",
        ),
        ({"models": {"choose": 2}}, "models.choose must be a mapping with the keys min, max"),
        (
            {"merge": {"operator": ["linear", {"name": "linear", "parameters": {"scale": 1}}]}},
            "^spec: Operator 'linear' takes the parameters .* but got 'scale'",
        ),
        (
            {"merge": {"operator": ["linear", {"name": "ties", "density": [0.3, 0.9]}]}},
            "one number, but got .*; write it beside the list, as merge.density",
        ),
        (
            {
                "merge": {
                    "operator": ["ties", {"name": "ties", "parameters": {"lambda": 1.0}}, "sce"]
                }
            },
            "'ties' is there twice",
        ),
        ({"merge": {"operator": "linear", "order": "given"}}, "`order` is for operators"),
        (
            {"merge": {"operator": "slerp", "order": "given"}, "models": {"experts": ["e"]}},
            "`order` is for operators",
        ),
        (
            {"merge": {"operator": ["linear", "slerp"]}},
            "'slerp' merges at most 1 expert.s., but got 3",
        ),
        ({"merge": {"operator": ["linear", "karcher"], "density": 0.5}}, "none is listed"),
        (
            {"merge": {"operator": ["linear", {"name": "ties", "density": 0.5}], "density": 0.4}},
            "none of those listed needs it",
        ),
        (
            {"merge": {"operator": ["linear", {"name": "karcher", "density": 0.5}]}},
            "density applies to sparsifying",
        ),
        (
            {"merge": {"operator": [{"name": "ties", "density": 0.5}], "density": 0.4}},
            "density is given twice",
        ),
        (
            {"merge": {"operator": ["linear", "ties"], "parameters": {"lambda": 2}}},
            "belong to one",
        ),
        ({"models": {"choose": {"min": 3}}}, "one way to merge, linear of experts 1.2.3"),
        ({"models": {"choose": {"min": 3, "max": 2}}}, "got min 3 and max 2"),
        ({"models": {"choose": {"max": 4}}}, "at most 3 experts"),
        ({"merge": {"operator": ["linear", "ties"], "order": "search"}}, "there is none"),
        (
            {"merge": {"operator": ["linear", "ties", "dare_ties"]}},
            "dare_ties gives the merges of ties; remove one of them, or give it a density",
        ),
        (
            {"merge": {"operator": ["linear", "ties"]}, "models": {"experts": ["e"]}},
            "ties gives the merges of linear",
        ),
        (
            {"merge": {"operator": ["linear", "ties"]}, "sampler": {"preset": "sip-bmm"}},
            "the preset is sip-bmm",
        ),
        (
            {"merge": {"operator": ["linear", "ties"]}, "sampler": {"startup": "sobol"}},
            "begins with uniform merges",
        ),
        (
            {"models": {"experts": [f"e{k}" for k in range(8)], "choose": {}}},
            "at most 100 pairs .* but there are 255",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused_in_one_line(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        _spec(**changes)
    assert "\n" not in str(caught.value)


def test_a_merge_has_one_arm() -> None:
    """At density 1 one expert elects itself whole: TIES is then the linear merge."""
    spec = _spec(
        models={"choose": {"max": 2}, "experts": ["e", "f"]},
        merge={"operator": ["linear", "ties", {"name": "della", "density": 0.5}]},
    )
    assert _labels(spec) == [
        *("linear 1", "linear 2", "linear 1+2"),
        "ties 1+2",
        *("della(density=0.5) 1", "della(density=0.5) 2", "della(density=0.5) 1+2"),
    ]
    _, left_out = arms_of(spec.models, spec.merge)
    assert left_out == ["ties of 1 expert (the merge of linear)"]


def test_first_arms_have_all_operators_and_all_experts_early() -> None:
    arms = _spec(
        models={"choose": {"max": 2}, "experts": ["e", "f"]},
        merge={"operator": ["linear", {"name": "ties", "density": 0.5}, "karcher"]},
    ).arms
    first = [arms[place] for place in spread_arms(arms, 3)]
    assert {arm.operator for arm in first} == {"linear", "ties", "karcher"}
    assert {arm.experts for arm in first} == {(1,), (2,), (1, 2)}
    assert sorted(spread_arms(arms, 9)) == list(range(9))
