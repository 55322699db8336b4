"""The committed table of measured merges: whole, and worth choosing from."""

from itertools import combinations
from pathlib import Path
from statistics import fmean, stdev

import pytest
from evaluate import FIXED, ORACLE, best_fixed, pick, score, splits, two_way
from measure import triples
from signals import own_task
from table import OPERATORS, Table

from mergefront.examples.demo.catalogue import names, skill_of
from mergefront.samplers.simmerge import Predictor

FOLDER = Path(__file__).parents[2] / "benchmarks" / "simmerge" / "data"


@pytest.fixture(scope="module")
def table() -> Table:
    return Table(FOLDER)


def test_every_pair_and_operator_is_measured_once(table: Table) -> None:
    assert {frozenset(pair) for pair in table.pairs} == set(
        map(frozenset, combinations(names(), 2))
    )
    for pair in table.pairs:
        for operator in OPERATORS:
            assert 0 <= score(table, pair, operator) <= 1
    assert table.triples.keys() == {tuple(sorted(triple)) for triple in triples()}
    assert {len(chains) for chains in table.triples.values()} == {27}


def test_splits_leave_out_every_model_of_two_skills(table: Table) -> None:
    found = splits(table)
    assert len(found) == 8
    for split in found:
        assert len(split.train) + len(split.test) == len(table.pairs)
        assert not {skill_of(n) for pair in split.train for n in pair} & split.held


def test_no_operator_is_the_best_everywhere(table: Table) -> None:
    best = [max(OPERATORS, key=lambda o: score(table, pair, o)) for pair in table.pairs]
    assert min(best.count("linear") + best.count("slerp"), best.count("ties")) >= 0.2 * len(best)


def test_the_predictor_beats_the_best_fixed_operator_on_models_left_out(table: Table) -> None:
    shares = []
    for split in splits(table):
        predictor = Predictor.fit(table.examples(split.train), kinds=["ridge"])
        fixed = best_fixed(table, split.train)
        chosen = [pick(table, predictor, pair, fixed, False) for pair in split.test]
        got = fmean(score(table, p, o) for p, o in zip(split.test, chosen, strict=True))
        base = fmean(score(table, pair, fixed) for pair in split.test)
        oracle = fmean(max(score(table, p, o) for o in OPERATORS) for p in split.test)
        shares.append((got - base) / (oracle - base))
    assert fmean(shares) > 2 * stdev(shares) / len(shares) ** 0.5


def test_no_selector_is_better_than_the_oracle(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = splits(table)[0]
    import evaluate

    ridge = [("predictor", Predictor.fit(table.examples(split.train), kinds=["ridge"]), False)]
    monkeypatch.setattr(evaluate, "predictors", lambda table, split: ridge)
    means = two_way(table, split)
    assert max(means.values()) == means[ORACLE]
    assert means[FIXED] <= means["best fixed operator, known afterwards"]


def test_a_merges_features_know_nothing_of_its_outcome(table: Table) -> None:
    pair = table.pairs[0]
    merges = [table.merge(pair, operator, own_task(pair)) for operator in OPERATORS]
    assert merges[0].features == merges[1].features == merges[2].features
    assert not any("score" in name or "parents" in name for name in merges[0].features)
