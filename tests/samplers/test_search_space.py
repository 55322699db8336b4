"""The unit cube, and the order of uniform levels."""

from typing import Any

import optuna
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from optuna._transform import _SearchSpaceTransform
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import create_trial

from mergefront.samplers import signs, uniform_levels
from mergefront.samplers._trials.measurements import finite_trials, standard_errors
from mergefront.samplers._trials.search_space import UnitCube, neighbours

SPACE = {
    "c": CategoricalDistribution(("a", "b", "z")),
    "f": FloatDistribution(-1.0, 3.0),
    "i": IntDistribution(1, 9, step=2),
    "l": FloatDistribution(1e-3, 1.0, log=True),
}


@given(
    f=st.floats(-1, 3),
    i=st.sampled_from([1, 3, 5, 7, 9]),
    exponent=st.floats(-3, 0),
    c=st.sampled_from(["a", "b", "z"]),
)
def test_parameters_survive_the_round_trip(f: float, i: int, exponent: float, c: str) -> None:
    cube = UnitCube(SPACE)
    params = {"c": c, "f": f, "i": i, "l": 10**exponent}
    point = cube.encode([params])[0]
    assert cube.dim == 6  # three choices and three numbers
    assert bool(((point >= 0) & (point <= 1)).all())
    decoded = cube.decode(point.numpy())
    assert decoded["c"] == c
    assert decoded["i"] == i
    assert decoded["f"] == pytest.approx(f, abs=1e-9)
    assert decoded["l"] == pytest.approx(10**exponent)
    assert type(decoded["f"]) is float


def test_plain_weights_are_encoded_at_once_as_one_by_one() -> None:
    plain: dict[str, Any] = {"a": FloatDistribution(0.0, 1.5), "b": FloatDistribution(-0.3, 1.0)}
    rows = [{"a": 0.1 * i, "b": 1.7 - 0.1 * i, "other": "x"} for i in range(20)]
    told = _SearchSpaceTransform(plain, transform_0_1=True)
    expected = [told.transform({k: row[k] for k in plain}).tolist() for row in rows]
    assert UnitCube(plain).encode(rows).tolist() == expected
    assert UnitCube(plain).encode([]).shape == (0, 2)


def test_places_of_plain_weights() -> None:
    cube = UnitCube({"a": FloatDistribution(0.0, 1.0), "b": FloatDistribution(0.0, 1.0)})
    assert cube.holds({"a": 0.2, "b": 7.0})
    assert cube.holds({"a": 1, "b": True})
    for odd in (float("nan"), float("inf"), None, "left"):
        assert not cube.holds({"a": 0.2, "b": odd})
    assert not cube.holds({"a": 0.2})


def test_both_bounds_decode_exactly() -> None:
    cube = UnitCube({"w": FloatDistribution(0.0, 1.0)})
    assert cube.decode(torch.ones(1).numpy()) == {"w": 1.0}
    assert cube.decode(torch.zeros(1).numpy()) == {"w": 0.0}
    assert cube.decode(torch.full((1,), 7.0).numpy()) == {"w": 1.0}


def test_columns_name_their_parameters() -> None:
    cube = UnitCube(SPACE)
    assert cube.column_names == ["c", "c", "c", "f", "i", "l"]
    assert cube.categorical_columns == [0, 1, 2]


@pytest.mark.parametrize(
    ("n", "levels"),
    [(0, []), (1, [0.0]), (2, [0.0, 1.0]), (3, [0, 1, 0.5]), (5, [0, 1, 0.5, 0.25, 0.75])],
)
def test_uniform_levels_start_with_the_parents(n: int, levels: list[float]) -> None:
    assert uniform_levels(n) == levels


def test_uniform_levels_are_an_even_grid() -> None:
    assert sorted(uniform_levels(8)) == [i / 7 for i in range(8)]


def test_minimized_objectives_change_sign() -> None:
    flips = signs([StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE])
    assert flips.tolist() == [-1.0, 1.0]


def _trial(values: list[float], errors: Any) -> optuna.trial.FrozenTrial:
    attributes = {} if errors is None else {"standard_errors": errors}
    return create_trial(values=values, user_attrs=attributes)


COMPLETE = [_trial([1.0, 2.0], [0.1, 0.2]), _trial([1.0, 2.0], [0.3, 0.4])]
NAN, INF = float("nan"), float("inf")


def test_known_errors_are_taken_as_they_are() -> None:
    known = standard_errors(COMPLETE)
    assert known is not None
    assert known.tolist() == [[0.1, 0.2], [0.3, 0.4]]


@pytest.mark.parametrize(
    ("told", "used"),
    [
        (None, [0.3, 0.4]),
        ([0.1], [0.3, 0.4]),
        ([0.1, NAN], [0.1, 0.4]),
        ([INF, 0.2], [0.3, 0.2]),
        ([10**400, 0.2], [0.3, 0.2]),
        ([None, 0.5], [0.3, 0.5]),
        (["a", 0.5], [0.3, 0.5]),
        ([[0.1], 0.5], [0.3, 0.5]),
        ([True, 0.5], [0.3, 0.5]),
        ([-0.1, 0.5], [0.3, 0.5]),
        (0.5, [0.3, 0.4]),
        ("ab", [0.3, 0.4]),
        ({"a": 0.5, "b": 0.5}, [0.3, 0.4]),
    ],
)
def test_what_is_no_error_is_replaced_by_the_largest_known(told: Any, used: list[float]) -> None:
    with pytest.warns(UserWarning, match="1 of 3 trials"):
        errors = standard_errors([*COMPLETE, _trial([1.0, 2.0], told)])
    assert errors is not None
    assert errors.tolist()[2] == used
    assert errors.tolist()[:2] == [[0.1, 0.2], [0.3, 0.4]]


def test_objectives_are_decided_one_by_one() -> None:
    with pytest.warns(UserWarning, match="2 of 2 trials"):
        errors = standard_errors([_trial([1.0, 2.0], [None, 0.2])] * 2)
    assert errors is not None
    assert errors[:, 0].isnan().all()
    assert errors[:, 1].tolist() == [0.2, 0.2]
    assert standard_errors([_trial([1.0, 2.0], None)] * 2) is None


def test_infinite_values_are_left_out() -> None:
    trials = [_trial([1.0, float("inf")], None), _trial([1.0, 2.0], None)]
    assert finite_trials(trials) == trials[1:]


def test_jumps_join_neighbouring_layers_of_each_kind() -> None:
    weight = FloatDistribution(0.0, 1.0)
    names = ["embeddings", "layer_0.attn", "layer_0.mlp", "layer_10.attn", "layer_10.mlp"]
    cube = UnitCube(dict.fromkeys([*names, "layer_2.attn", "layer_2.mlp"], weight))
    # By number, not by name: 0, 2, 10.
    assert cube.jumps.T.tolist() == [[1, 5], [5, 3], [2, 6], [6, 4]]


@pytest.mark.parametrize("name", ["layer_{:03d}@{}", "layer_{:03d}.head_{:02d}"])
def test_experts_and_heads_of_a_layer_are_no_neighbours_in_depth(name: str) -> None:
    names = [name.format(layer, other) for layer in range(3) for other in range(4)]
    pairs = {(names[a], names[b]) for a, b in neighbours(names).T.tolist()}
    expected = {
        (name.format(layer, other), name.format(layer + 1, other))
        for layer in range(2)
        for other in range(4)
    }
    assert pairs == expected


def test_two_parameters_and_choices_are_no_profile() -> None:
    weight = FloatDistribution(0.0, 1.0)
    assert UnitCube({"x0": weight, "x1": weight}).jumps.shape == (2, 0)
    choices = {f"x{i}": CategoricalDistribution(("a", "b")) for i in range(3)}
    assert UnitCube(choices).jumps.shape == (2, 0)


def test_the_number_of_an_expert_alone_is_no_depth() -> None:
    names = [f"{part}@{k}" for part in ("uniform", "embeddings", "head") for k in (1, 2, 3)]
    assert neighbours(names).shape == (2, 0)
