"""`run --dry-run` passes no storage that the run would stop at, with the run's own line."""

from pathlib import Path
from typing import Literal

import optuna
import pytest
import sqlalchemy

from command import invoke
from mergefront.errors import StudyError
from mergefront.study import StudySpec
from mergefront.study.dry_run import plan_study
from mergefront.study.seeding import init_study
from mergefront.study.spec.inputs import load_inputs
from mergefront.study.storage.connection import NoStudyYetError, load_study, open_storage
from small_study import write_spec

Direction = Literal["maximize", "minimize"]


@pytest.mark.parametrize(
    "storage",
    [
        "mysql://host/db",
        "postgresql+unknown://host/db",
        "postgresql://127.0.0.1:1/db",
        "sqlite:///{folder}/no.db",
    ],
)
def test_a_storage_that_cannot_be_used_is_told(tmp_path: Path, storage: str) -> None:
    (tmp_path / "no.db").write_text("this is no database, but a text of some length\n" * 9)
    url = storage.format(folder=tmp_path)
    spec = StudySpec.from_yaml(write_spec(tmp_path, study={"storage": url}))
    with pytest.raises(StudyError) as planned:
        plan_study(spec)
    with pytest.raises(StudyError) as ran:
        init_study(load_inputs(write_spec(tmp_path, study={"storage": url})))
    assert str(planned.value) == str(ran.value)


def _study(path: Path, directions: list[Direction]) -> optuna.Study:
    spec = StudySpec.from_yaml(path)
    return optuna.create_study(
        study_name=spec.study.name,
        storage=open_storage(spec.study.storage),
        directions=directions,
    )


def test_a_study_of_another_tool_is_told(tmp_path: Path) -> None:
    path = write_spec(tmp_path)
    _study(path, ["minimize"])
    told = invoke("run", path, "--dry-run")
    assert (told.exit_code, "was not made by MergeFront" in told.stderr) == (1, True)


def test_a_study_whose_creation_was_cut_off_is_planned_as_a_new_one(tmp_path: Path) -> None:
    path = write_spec(tmp_path)
    spec = StudySpec.from_yaml(path)
    _study(path, spec.directions)
    with pytest.raises(NoStudyYetError, match="There is no study 'small'"):
        load_study(spec)
    assert dict(plan_study(spec))["price"].startswith("quoted after the first trials")


def test_tables_of_another_version_are_told(tmp_path: Path) -> None:
    path = write_spec(tmp_path)
    spec = StudySpec.from_yaml(path)
    init_study(load_inputs(path))
    engine = sqlalchemy.create_engine(spec.study.storage)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE alembic_version SET version_num = 'v0.9.0.a'"))
    with pytest.raises(StudyError, match="are of another version of Optuna"):
        plan_study(spec)
