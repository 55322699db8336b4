"""Predicted gains: on models left out, with errors that hold, and not at all far away."""

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from mergefront.samplers.simmerge import (
    REGRESSORS,
    Example,
    Merge,
    Predictor,
    leave_models_out,
    read_examples,
    write_examples,
)

OPERATORS = ("linear", "ties")


def _examples(n_models: int = 12, informative: bool = True, seed: int = 0) -> list[Example]:
    """Gains of all pairs: `linear` gains where the signal is high, `ties` where it is low."""
    rng = np.random.default_rng(seed)
    traits = rng.normal(size=n_models)
    examples = []
    for i, j in combinations(range(n_models), 2):
        signal = traits[i] * traits[j] if informative else rng.normal()
        features = {"signal": signal, "noise": rng.normal(), "constant": 1.0}
        effect = 0.1 * np.tanh(traits[i] * traits[j]) if informative else 0.0
        for operator, sign in (("linear", 1.0), ("ties", -1.0)):
            gain = 0.02 * sign + sign * effect + 0.01 * rng.normal()
            merge = Merge((f"m{i}", f"m{j}"), operator, features)
            examples.append(Example(merge, float(gain), 0.01, "task"))
    return examples


def _merge(signal: float, operator: str, models: tuple[str, str] = ("x", "y")) -> Merge:
    return Merge(models, operator, {"signal": signal, "noise": 0.0, "constant": 1.0})


@pytest.mark.parametrize("kind", REGRESSORS[1:])
def test_each_regressor_learns_which_operator_suits_a_pair(kind: str) -> None:
    predictor = Predictor.fit(_examples(), kinds=[kind])
    high = predictor.predict([_merge(1.0, operator) for operator in OPERATORS])
    low = predictor.predict([_merge(-1.0, operator) for operator in OPERATORS])
    assert high[0].gain > high[1].gain + 0.05
    assert low[1].gain > low[0].gain + 0.02
    assert predictor.quality[kind].rmse < 0.06


def test_signals_that_tell_something_are_used() -> None:
    predictor = Predictor.fit(_examples())
    assert predictor.kind != "operator-means"
    assert predictor.quality[predictor.kind].regret < predictor.quality["operator-means"].regret
    assert predictor.features == ["noise", "signal"]  # a constant tells nothing


def test_without_information_the_best_operator_is_the_best_fixed_one() -> None:
    predictor = Predictor.fit(_examples(informative=False))
    predicted = predictor.predict([_merge(0.3, operator) for operator in OPERATORS])
    assert predicted[0].gain > predicted[1].gain
    assert predicted[0].gain == pytest.approx(0.02, abs=0.01)


def test_intervals_hold_the_gains_of_models_left_out() -> None:
    examples = _examples(16)
    _, train, test = leave_models_out([e.merge.models for e in examples], 4, seed=1)[0]
    predictor = Predictor.fit([examples[i] for i in train], kinds=["ridge", "mlp-ensemble"])
    left_out = [examples[i] for i in test]
    predicted = predictor.predict([example.merge for example in left_out])
    inside = [
        low <= example.gain <= high
        for example, (low, high) in zip(left_out, (p.interval() for p in predicted), strict=True)
    ]
    assert 0.75 <= np.mean(inside) <= 1.0
    wide, narrow = predicted[0].interval(0.99), predicted[0].interval(0.5)
    assert wide[0] < narrow[0] < predicted[0].gain < narrow[1] < wide[1]


def test_it_abstains_far_from_all_examples_and_on_operators_it_has_not_seen() -> None:
    predictor = Predictor.fit(_examples(), kinds=["mlp-ensemble"])
    near, far, foreign = predictor.predict(
        [_merge(0.5, "ties"), _merge(80.0, "ties"), _merge(0.5, "dare")]
    )
    assert (near.is_known, far.is_known, foreign.is_known) == (True, False, False)
    assert predictor.predict([]) == []


def test_the_same_seed_gives_the_same_predictions() -> None:
    kinds = ["ridge", "mlp-ensemble"]
    first, second = (Predictor.fit(_examples(8), kinds=kinds, seed=3) for _ in range(2))
    assert first.predict([_merge(0.2, "ties")]) == second.predict([_merge(0.2, "ties")])


def test_features_can_be_limited_to_those_at_hand() -> None:
    predictor = Predictor.fit(_examples(), ["noise", "unknown"], ["ridge"])
    assert predictor.features == ["noise"]
    with pytest.raises(ValueError, match="must have the feature 'noise'"):
        predictor.predict([Merge(("x", "y"), "ties", {"signal": 1.0})])


def test_too_little_to_learn_from_is_refused() -> None:
    with pytest.raises(ValueError, match="6 measured merges of 4 models"):
        Predictor.fit(_examples(3))


def test_folds_never_share_a_model_between_training_and_test() -> None:
    pairs = list(combinations("abcdefg", 2))
    folds = leave_models_out(pairs, 3, seed=0)
    assert sorted(model for group, _, _ in folds for model in group) == list("abcdefg")
    for group, train, test in folds:
        assert sorted([*train, *test]) == list(range(len(pairs)))
        assert not any(set(pairs[i]) & set(group) for i in train)
        assert all(set(pairs[i]) & set(group) for i in test)


def test_examples_survive_a_file(tmp_path: Path) -> None:
    examples = _examples(4)
    write_examples(examples, tmp_path / "folder" / "examples.jsonl")
    assert read_examples(tmp_path / "folder" / "examples.jsonl") == examples
    good = (tmp_path / "folder" / "examples.jsonl").read_text().splitlines()[0]
    bad = ['{"merge": {}}', '{"gain": 1', re.sub(r'"gain": [^,]+', '"gain": NaN', good)]
    bad += ["3", '"a"', "null", "[]", '{"merge": 3}', re.sub(r'"features": {[^}]*}', "@", good)]
    bad += [re.sub(r'"models": \[[^\]]*\]', '"models": "ab"', good)]
    for line in [text.replace("@", '"features": [1]') for text in bad]:
        (tmp_path / "bad.jsonl").write_text(f"{good}\n{line}\n")
        with pytest.raises(ValueError, match="line 2 is no measured merge"):
            read_examples(tmp_path / "bad.jsonl")
