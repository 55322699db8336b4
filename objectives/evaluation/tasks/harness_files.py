"""Where tasks of lm-evaluation-harness come from: its list, files, groups, tags and their data."""

import functools
import random
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from lm_eval.tasks import TaskManager

from ....errors import SpecError
from .task import Split


@dataclass(frozen=True)
class HarnessSource:
    """A task of the harness, and what of it a study chooses.

    Args:
        name: Names the task in tables and errors.
        task: Registered name in the harness, or path of a task's YAML file.
        fractions: Share of its test (else validation) questions in each split.
        dataset: Where its data lie: a directory, or one file a data split of the task, instead of
            the hub. Defaults to None: the hub, or what the hub's cache holds.
        metric: The one that is the score. Defaults to None: the task's first.
        filter: Of the task. Defaults to None: the last, usually the most lenient.
        n_fewshot: Defaults to None: the task's.
        chat: Whether the base's chat template is applied.
        max_new_tokens: Defaults to None: the task's, or else the study's.
        stop: Texts that end an answer. Defaults to None: the task's.
        reasoning: Whether metrics see the reasoning before `</think>` or what follows alone.
        cluster: The field of its data that questions which belong together share. Defaults to
            None: none do.
    """

    name: str
    task: str
    fractions: Mapping[Split, float]
    dataset: str | Mapping[str, str] | None = None
    metric: str | None = None
    filter: str | None = None
    n_fewshot: int | None = None
    chat: bool = True
    max_new_tokens: int | None = None
    stop: tuple[str, ...] | None = None
    reasoning: bool = False
    cluster: str | None = None


@contextmanager
def seeded() -> Iterator[None]:
    """Seed as the harness does: some tasks shuffle, and every worker must ask the same."""
    state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(0)
    np.random.seed(1234)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1234)
            yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)


def open_tasks(source: HarnessSource) -> list[Any]:
    """Load a task of the harness, or all tasks of a group or a tag.

    Raises:
        SpecError: If there is none of that name, its data are not at hand, or it has no scores.
    """
    manager, name, path = _found(source)
    try:
        with tempfile.TemporaryDirectory() as folder:
            spec = name if path is None else str(_changed(source, path, Path(folder)))
            tasks = list(manager.load(spec)["tasks"].values())
    except Exception as error:  # whatever a task's file or a data set's loader raises
        raise SpecError(
            f"Task {source.name!r} (lm-eval's {source.task!r}) could not be loaded: "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''} If its "
            "data are missing, give `dataset` a local path to each of its splits, or load it once "
            "where the hub can be reached; otherwise correct its file."
        ) from error
    if path is None and source.dataset is not None:
        raise SpecError(
            f"`dataset` is that of one task, but lm-eval's {source.task!r} is a group; remove it."
        )
    for task in tasks if path is None and source.n_fewshot is not None else ():
        task.set_config("num_fewshot", source.n_fewshot)
    for task in tasks:
        _check_kind(task)
    return tasks


def _check_kind(task: Any) -> None:
    """Refuse what runs what a model wrote.

    Raises:
        SpecError: With the reason.
    """
    if getattr(task, "UNSAFE_CODE", False):
        raise SpecError(
            f"lm-eval's {task.task_name!r} runs code that a model wrote within the worker, which "
            "MergeFront never does. Give its questions as a file, with `scorer: unit_tests`, "
            "which runs such code in a process without network."
        )


def _found(source: HarnessSource) -> tuple[TaskManager, str, Path | None]:
    """Return who loads a task, by which name, and the file of a single task; None for many.

    Raises:
        SpecError: If the harness has nothing of this name, or the file is no YAML.
    """
    task = source.task
    path = Path(task)
    if not path.is_file():
        entry = _manager().task_index.get(task)
        if entry is None:
            raise SpecError(
                f"Task {source.name!r} must be one task of lm-eval, but {task!r} is not, nor a "
                "group or tag, nor the path of a file. `lm-eval ls tasks` lists them."
            )
        single = entry.yaml_path is not None and entry.kind.name == "TASK"
        return _manager(), task, Path(entry.yaml_path) if single else None
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Plain)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(
            f"The file of task {source.name!r} must be YAML, but {task} is not: "
            f"{' '.join(str(error).split())}"
        ) from error
    if isinstance(content, dict) and "group" in content:
        return _beside(path, content), content["group"], None
    # A file of one task needs no list of all tasks.
    return TaskManager(include_defaults=False), task, path


def _beside(path: Path, group: Mapping[str, Any]) -> TaskManager:
    """Return who loads a group: from files beside it, and from the harness's list if need be."""
    folder = str(path.parent.resolve())
    local = TaskManager(include_path=folder, include_defaults=False)
    members = group.get("task") or []
    names = [m.get("task") if isinstance(m, dict) else m for m in members]
    known = all(isinstance(name, str) and name in local.task_index for name in names)
    return local if known else TaskManager(include_path=folder)


class _Plain(yaml.SafeLoader):
    """Reads a task's file without calling or importing anything that it names."""


_Plain.add_multi_constructor("!", lambda loader, suffix, node: None)


@functools.cache
def _manager() -> TaskManager:
    """Return the harness's list of its tasks, which takes seconds to make."""
    return TaskManager()


def _changed(source: HarnessSource, path: Path, folder: Path) -> Path:
    """Return the task's file, or one that includes it and changes it."""
    changes = _data(source.dataset)
    if source.n_fewshot is not None:
        changes["num_fewshot"] = source.n_fewshot
    if not changes:
        return path
    changed = folder / f"{path.stem}.yaml"
    changed.write_text(yaml.safe_dump({"include": str(path.resolve()), **changes}))
    return changed


def _data(dataset: str | Mapping[str, str] | None) -> dict[str, Any]:
    """Return the configuration that replaces the hub by local files."""
    if dataset is None:
        return {}
    if isinstance(dataset, str):
        return {"dataset_path": dataset, "dataset_name": None}
    kinds = {Path(path).suffix.removeprefix(".") for path in dataset.values()}
    kind = "parquet" if kinds == {"parquet"} else "csv" if kinds == {"csv"} else "json"
    files = dict(dataset)
    return {"dataset_path": kind, "dataset_name": None, "dataset_kwargs": {"data_files": files}}
