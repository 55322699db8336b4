"""A first spec from a few names: what `mergefront new` and `run BASE EXPERT` write."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ...errors import SpecError
from .base import read_mapping
from .study_spec import StudySpec

_DTYPES = ("float32", "bfloat16", "float16")
# Of a real study; parents and uniform merges included.
DEFAULT_TRIALS = 60
DEFAULT_MAX_NEW_TOKENS = 1024


@dataclass(frozen=True)
class Draft:
    """What a first spec is made of.

    Args:
        base: Path or hub id of the model at weight 0.
        experts: Paths or hub ids of the models at weight 1.
        tasks: Question files (`.jsonl`) or names of lm-evaluation-harness tasks.
        name: Of the study. Defaults to "": the models' names.
        trials: Measured trials at the end.
        max_new_tokens: Longest answer, in tokens.
    """

    base: str
    experts: Sequence[str]
    tasks: Sequence[str]
    name: str = ""
    trials: int = DEFAULT_TRIALS
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS

    @property
    def study(self) -> str:
        """Name of the study: lower-case letters, digits, `.`, `_` and `-`."""
        joined = self.name or "-".join(_last(model) for model in (self.base, *self.experts))
        return re.sub(r"[^\w.-]+", "-", joined).strip("-") or "study"

    def text(self) -> str:
        """Return the YAML of the spec, with a comment at each decision.

        Raises:
            SpecError: If a task is neither a file nor could be a task's name.
        """
        tasks = "\n".join(f"    - {_task(task)}" for task in self.tasks)
        experts = ", ".join(map(json.dumps, self.experts))
        url = f"sqlite:///runs/{self.study}/study.db"
        return f"""\
# Written by mergefront. All keys: docs/spec.md of MergeFront.
study:
  name: {json.dumps(self.study)}
  storage: {json.dumps(url)}  # relative to the working directory
  trials: {self.trials}  # measured models at the end, parents and uniform merges included
models:
  base: {json.dumps(self.base)}  # weight 0
  experts: [{experts}]  # weight 1
  dtype: {_dtype(self.base)}
merge: {{operator: linear, granularity: layer}}  # one weight per layer
objectives:
  - {{metric: accuracy}}  # higher is better
  - {{metric: tokens}}  # mean length of the answers; lower is better
evaluation:
  max_new_tokens: {self.max_new_tokens}  # longer answers are cut
  batch_size: auto  # answers at the same time: as many as memory allows
  splits: {{search: 0.6, validation: 0.4}}  # the search sees only its own share of the questions
  tasks:
{tasks}
"""

    @property
    def path(self) -> Path:
        """Of the spec, in the working directory."""
        return Path(f"{self.study}.yaml")

    def spec(self, path: Path) -> StudySpec:
        """Return the spec; it is the file's, if that says the same but for the number of trials.

        Raises:
            SpecError: If the spec is not valid, or the file says something else.
        """
        content = yaml.safe_load(self.text())
        spec = StudySpec.parse(content, path.parent, str(path))
        if not path.exists():
            return spec
        if _without_trials(read_mapping(path, "spec")) != _without_trials(content):
            raise SpecError(
                f"{path} exists and says something else; nothing was overwritten. Use it "
                f"(`mergefront run {path}`), or choose another `--name`."
            )
        return StudySpec.from_yaml(path)

    def write(self, path: Path) -> bool:
        """Write the spec, or leave the file that says the same but for the number of trials.

        Returns:
            Whether the file was written.

        Raises:
            SpecError: If the spec is not valid, or the file says something else.
        """
        self.spec(path)
        if path.exists():
            return False
        path.write_text(self.text(), encoding="utf-8")
        return True


def _without_trials(content: dict[str, object]) -> dict[str, object]:
    study = content.get("study")
    kept = {k: v for k, v in study.items() if k != "trials"} if isinstance(study, dict) else study
    return {**content, "study": kept}


def _last(reference: str) -> str:
    return Path(reference.rstrip("/")).name.lower()


def _task(task: str) -> str:
    if task.endswith(".jsonl"):
        name = re.sub(r"\s+", "-", Path(task).stem)
        return (
            f"{{name: {json.dumps(name)}, path: {json.dumps(task)}}}  # prompt and answer per line"
        )
    if not re.fullmatch(r"[\w.-]+", task):
        raise SpecError(
            f"--task must be a question file (FILE.jsonl) or a task of lm-evaluation-harness "
            f"(such as gsm8k), but got {task!r}."
        )
    return f"{{name: {json.dumps(task)}, lm_eval: {json.dumps(task)}}}"


def longest_answer(base: str) -> int:
    """Return a first limit of an answer's length in tokens.

    Half of the positions of a model on this machine, so that prompts fit, but no more than
    `DEFAULT_MAX_NEW_TOKENS`.
    """
    positions = _config(base).get("max_position_embeddings")
    if not isinstance(positions, int) or positions < 2:
        return DEFAULT_MAX_NEW_TOKENS
    return min(DEFAULT_MAX_NEW_TOKENS, positions // 2)


def _dtype(base: str) -> str:
    """Return the data type of a model on this machine; bfloat16 for others."""
    config = _config(base)
    found = config.get("dtype") or config.get("torch_dtype")
    return found if found in _DTYPES else "bfloat16"


def _config(base: str) -> dict[str, Any]:
    """Return the configuration of a model on this machine; nothing of others."""
    try:
        config = json.loads((Path(base) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}
