"""No mistake in a spec, no command to copy and no exported spec shows a storage's password."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from mergefront.errors import SpecError
from mergefront.study import StudySpec
from mergefront.study.cli.next_steps import AFTER_RUN, say_next

SECRET = "TOPSECRET"
URL = f"postgresql://alice:{SECRET}@host/db"
CONTENT: dict[str, Any] = {
    "study": {"name": "s", "storage": "sqlite:///s.db", "trials": 8},
    "models": {"base": "b", "experts": ["e"]},
    "objectives": [{"metric": "accuracy"}],
    "evaluation": {
        "tasks": [{"name": "t", "scorer": "exact_match", "files": {"search": "q.jsonl"}}]
    },
}


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("study", {"storage": f"postgres:/alice:{SECRET}@db/x"}),
        ("study", {"storage": f"alice:{SECRET}@db/x"}),
        ("study", {"storage": [URL]}),
        ("study", {"storage": {"host": "h", "password": SECRET}}),
        ("study", {"storage": f"db?user=u&password={SECRET}"}),
        ("study", {"name": "s", URL: 3}),
        ("study", URL),
        ("study", [{"storage": URL}]),
        ("sampler", {"warm_start": f"{URL}#a"}),
        ("sampler", {"preset": URL}),
        ("models", URL),
    ],
)
def test_a_mistake_is_told_without_the_password(section: str, value: Any) -> None:
    content = deepcopy(CONTENT) | {section: value}
    with pytest.raises(SpecError, match=section) as caught:
        StudySpec.parse(content, Path())
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f'study:\n  storage: "postgresql://alice:TOP"{SECRET}@h/db"\n', "in line 2"),
        (f"study: {{storage: {URL}\n", "in line 2"),
        (f"{URL}\n", "must be a YAML mapping"),
    ],
)
def test_a_file_that_is_no_spec_is_told_without_its_lines(
    tmp_path: Path, text: str, told: str
) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(SpecError, match=told) as caught:
        StudySpec.from_yaml(tmp_path / "s.yaml")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("storage", "is_shown"),
    [
        ("sqlite:///runs/a@b.db", True),
        ("postgresql://alice@host/db", True),
        (URL, False),
        (f"postgresql:///db?host=h&user=u&password={SECRET}", False),
    ],
)
def test_commands_to_copy_have_a_storage_without_a_password(
    storage: str, is_shown: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    say_next(Path("s.yaml"), storage, AFTER_RUN)
    told = capsys.readouterr().err
    assert ("--storage" in told, SECRET in told) == (is_shown, False)
