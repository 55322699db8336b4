"""Files that belong to a trial, where Optuna's dashboard finds them."""

import io
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import optuna
from optuna.artifacts import FileSystemArtifactStore
from optuna.artifacts._upload import ARTIFACTS_ATTR_PREFIX, ArtifactMeta
from optuna.artifacts.exceptions import ArtifactNotFound

from ...errors import StudyError
from ...objectives import ScoredQuestion
from ...objectives.evaluation import Answer

# What is shown of an answer.
_KEPT = ("text", "score", "n_tokens", "n_think_tokens", "finish_reason")
# Id of a question -> its text and its reference.
Asked = Mapping[str, tuple[str, str]]


def store_artifact(
    store: FileSystemArtifactStore, owner: str, filename: str, content: str
) -> dict[str, str]:
    """Write an artifact's bytes; return the system attribute by which Optuna finds it.

    Its identifier follows from owner and name: writing it again replaces it. The bytes come
    first, so no trial ever names an artifact that is not there.
    """
    artifact_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{owner}/{filename}"))
    mimetype = "application/jsonl" if filename.endswith(".jsonl") else "application/json"
    store.write(artifact_id, io.BytesIO(content.encode()))
    meta = ArtifactMeta(artifact_id, filename, mimetype, None)
    return {ARTIFACTS_ATTR_PREFIX + artifact_id: json.dumps(asdict(meta))}


def asked_of(questions: Iterable[ScoredQuestion]) -> Asked:
    """Return each question's text and reference by its id."""
    return {q.question.id: (q.question.prompt, q.question.answer) for q in questions}


def answer_table(answers: Iterable[Answer], asked: Asked | None = None) -> str:
    """Return answers as JSON lines, each beside its `question` and `reference`.

    Args:
        answers: Of one candidate.
        asked: From `asked_of`. Defaults to None: the lines name the questions' ids alone.
    """
    lines = []
    for answer in answers:
        content = asdict(answer)
        if not content["model_bytes"]:
            del content["model_bytes"]
        if asked and answer.question_id in asked:
            content["question"], content["reference"] = asked[answer.question_id]
        lines.append(json.dumps(content) + "\n")
    return "".join(lines)


def read_answers(
    study: optuna.Study, store: FileSystemArtifactStore, number: int
) -> list[dict[str, Any]]:
    """Return the lines of a trial's table of answers.

    Raises:
        StudyError: If there is no such trial, or its table is not on this machine.
    """
    trials = study.get_trials(deepcopy=False)
    if not 0 <= number < len(trials):
        raise StudyError(f"A trial's number is from 0 to {len(trials) - 1}, but got {number}.")
    for key, value in trials[number].system_attrs.items():
        if key.startswith(ARTIFACTS_ATTR_PREFIX):
            meta = json.loads(value)
            if meta["filename"].endswith(".answers.jsonl"):
                return _lines(store, meta["artifact_id"], number)
    raise StudyError(f"Trial {number} has no answers: it was not measured.")


def _lines(store: FileSystemArtifactStore, artifact_id: str, number: int) -> list[dict[str, Any]]:
    try:
        with store.open_reader(artifact_id) as reader:
            return [json.loads(line) for line in reader.read().decode().splitlines()]
    except ArtifactNotFound as error:
        raise StudyError(
            f"The answers of trial {number} are not on this machine. They lie in the folder "
            "`NAME.state/artifacts` of the worker that measured it."
        ) from error


def compared(tables: Mapping[int, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return one row for each question that any trial answered, with each trial's answers to it.

    Questions that the trials answered with different scores come first.

    Args:
        tables: From `read_answers`, by trial.
    """
    rows: dict[str, dict[str, Any]] = {}
    for number, table in tables.items():
        for line in table:
            row = rows.setdefault(line["question_id"], _row(line))
            answer = {key: line[key] for key in _KEPT if key in line}
            row["answers"].setdefault(str(number), []).append(answer)
    return sorted(rows.values(), key=agreed)


def _row(line: Mapping[str, Any]) -> dict[str, Any]:
    told = {key: line.get(key) for key in ("question", "reference")}
    return {"id": line["question_id"], **told, "answers": {}}


def agreed(row: Mapping[str, Any]) -> bool:
    """Whether all trials answered a question with the same scores."""
    return len({tuple(a["score"] for a in given) for given in row["answers"].values()}) == 1
