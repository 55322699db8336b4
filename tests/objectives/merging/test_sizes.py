"""What models of other precisions take, from those that were measured."""

from itertools import product

import pytest

from mergefront.objectives.merging.precision import known_size

SIZES = ({"int8": 7_000_000_001, "int4": 3_600_000_000}, {"int8": 55_555, "int4": 30_001})
ROWS = [
    {"precision_0": a, "precision_1": b, "layer_000": 0.3} for a, b in product(SIZES[0], SIZES[1])
]


def _size(row: dict[str, object]) -> float:
    return sum(of[str(row[f"precision_{k}"])] for k, of in enumerate(SIZES))


@pytest.mark.parametrize("wanted", ROWS)
def test_groups_add_up(wanted: dict[str, object]) -> None:
    others = [row for row in ROWS if row != wanted]
    found = known_size({**wanted, "layer_000": 0.9}, others, [_size(row) for row in others])
    assert found == _size(wanted)


def test_what_the_measured_ones_do_not_tell_is_unknown() -> None:
    alike = [row for row in ROWS if row["precision_0"] == row["precision_1"]]
    sizes = [_size(row) for row in alike]
    assert known_size(alike[0], alike, sizes) == sizes[0]
    assert known_size(ROWS[1], alike, sizes) is None
    assert (
        known_size({**ROWS[0], "precision_0": "fp8"}, ROWS, [_size(row) for row in ROWS]) is None
    )
    assert known_size(ROWS[0], [], []) is None


def test_sizes_that_do_not_follow_from_precisions_are_not_guessed() -> None:
    assert known_size(ROWS[0], ROWS, [1.0, 2.0, 3.0, 9.0]) is None


def test_without_a_choice_all_are_alike() -> None:
    assert known_size({"layer_000": 0.1}, [{"layer_000": 0.5}] * 2, [9.0, 9.0]) == 9.0
