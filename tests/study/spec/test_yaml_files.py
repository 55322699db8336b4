"""Spec files that are no YAML, or would lose a key, or never end: one line each."""

from pathlib import Path
from typing import Any

import pytest

from mergefront.errors import SpecError
from mergefront.study.spec.study_spec import StudySpec
from small_study import write_spec

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("étude: 1\n".encode("latin1"), "line 1 of .* has byte 0xe9"),
        (b"study: {}\nmodels: {}\nstudy: {}\n", "'study' is there twice, again in line 3"),
        (b"study:\n  name: a\n  name: b\n", "'name' is there twice"),
        (LAUGHS.encode(), "more than 100000 nodes"),
        (b"a: &a [*a]\n", "holds itself"),
        (b"[" * 5000, "nested too deep"),
        (b"study: {name: 2024-13-45}\n", "must be valid YAML"),
        (b"\x00", "must be valid YAML"),
        (b"- a\n", "must be a YAML mapping"),
        (b'study: {name: "\\ud800"}\n', "can be written, but .* surrogates not allowed"),
        (b"study: {2024-01-01: 1}\n", "names and texts that can be written"),
    ],
)
def test_what_is_no_spec_is_one_line(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "spec.yaml").write_bytes(data)
    with pytest.raises(SpecError, match=message) as caught:
        StudySpec.from_yaml(tmp_path / "spec.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_spec_is_read_as_editors_write_it(tmp_path: Path, encoding: str) -> None:
    path = write_spec(tmp_path)
    expected = StudySpec.from_yaml(path)
    path.write_text("# étude\n" + path.read_text(), encoding=encoding)
    assert StudySpec.from_yaml(path) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"study": {"name": "x" * 300}}, "at most 120 characters"),
        ({"merge": {"bounds": [0, float("inf")]}}, "finite"),
        ({"study": {"grace_seconds": float("nan")}}, "finite"),
    ],
)
def test_names_and_numbers_have_limits(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        StudySpec.from_yaml(write_spec(tmp_path, **changes))


@pytest.mark.parametrize("reference", ["~nobody-here/model", "x/" * 3000, "a\0b"])
def test_a_path_that_cannot_be_looked_up_is_one_line(tmp_path: Path, reference: str) -> None:
    from mergefront.objectives.checkpoints import resolve_model

    with pytest.raises(SpecError, match="Correct the path") as caught:
        resolve_model(reference, tmp_path)
    assert "\n" not in str(caught.value)
