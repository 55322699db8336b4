"""Files that belong to a trial, where Optuna's dashboard finds them."""

import io
import json
import uuid
from collections.abc import Iterable
from dataclasses import asdict

from optuna.artifacts import FileSystemArtifactStore
from optuna.artifacts._upload import ARTIFACTS_ATTR_PREFIX, ArtifactMeta

from ...objectives.evaluation import Answer


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


def answer_table(answers: Iterable[Answer]) -> str:
    """Return answers as JSON lines."""
    return "".join(json.dumps(asdict(answer)) + "\n" for answer in answers)
