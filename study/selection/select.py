"""Which models to merge, by which operator and in which order: predicted, ranked, made specs."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from ...errors import SpecError
from ...objectives.similarity import Prompt, merge_features
from ...samplers.simmerge import Chain, Example, Merge, Prediction, Predictor, Ranked, rank_chains
from ..spec.base import map_files
from ..spec.study_spec import StudySpec
from ..warm_start import SPEC_FILES
from .catalogue import Catalogue
from .measured_merges import score_features
from .methods import Step, make_step
from .pair_signals import pair_signals

# In a search the weights are to matter: with this parameter those of one expert do not.
_CANCELS = "normalize"
# A parent whose chat template is taken, and no file.
_ROLE = re.compile(r"base|expert(@\d+)?")


@dataclass(frozen=True)
class Selection:
    """What was predicted of a catalogue.

    Args:
        catalogue: What was chosen from.
        predictor: That was fitted.
        n_examples: That it was fitted to.
        ranked: Chains, those within the examples' range first, then the best first.
    """

    catalogue: Catalogue
    predictor: Predictor
    n_examples: int
    ranked: list[Ranked]


def read_probes(path: Path) -> list[Prompt]:
    """Read unlabelled prompts: JSON lines with `prompt` and, if it is complete, `chat: false`.

    Raises:
        SpecError: If a line is none, or there is none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        contents = [json.loads(line) for line in lines if line.strip()]
        probes = [
            (str(content["prompt"]), bool(content.get("chat", True))) for content in contents
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SpecError(
            f"Probes must be JSON lines with a `prompt` each, but {path}: "
            f"{type(error).__name__} {error}."
        ) from error
    if not probes:
        raise SpecError(f"{path} holds no probe; give a few prompts of the task.")
    return probes


def select(
    catalogue: Catalogue, probes: Sequence[Prompt], examples: Sequence[Example]
) -> Selection:
    """Predict every chain of the catalogue and rank them.

    Raises:
        SpecError: If the examples are too few to learn from.
    """
    merges = _merges(catalogue, probes)
    available = set(next(iter(merges.values())).features)
    try:
        predictor = Predictor.fit(examples, available)
    except ValueError as error:
        raise SpecError(f"{error} Finish more studies, or give examples by `--train`.") from error
    predicted = zip(merges, predictor.predict(list(merges.values())), strict=True)
    predictions: dict[tuple[str, str, str], Prediction] = dict(predicted)
    ranked = rank_chains(
        list(catalogue.models),
        list(catalogue.methods),
        predictions,
        min(catalogue.settings.max_models, len(catalogue.models)),
        catalogue.scores or None,
    )
    return Selection(catalogue, predictor, len(examples), ranked)


def _merges(catalogue: Catalogue, probes: Sequence[Prompt]) -> dict[tuple[str, str, str], Merge]:
    signals = pair_signals(catalogue.models, catalogue.ancestor, probes, catalogue.settings.dtype)
    merges = {}
    for left, right in signals:
        scores = [catalogue.scores[name] for name in (left, right) if name in catalogue.scores]
        for label, method in catalogue.methods.items():
            is_ordered = method.is_ordered(catalogue.ancestor is not None)
            pair = signals[left, right], signals[right, left]
            features = merge_features(*pair, is_ordered)
            features |= score_features(scores) if scores else {}
            merges[left, right, label] = Merge((left, right), label, features)
    return merges


def write_specs(selection: Selection, out: Path, top: int) -> list[Path]:
    """Write a spec for each of the best chains; return their paths.

    A chain of more than two models needs its earlier steps as checkpoints: each has a spec and
    weights of its own, and the chain's spec says by which commands they are made.

    Raises:
        SpecError: If the catalogue names no `study`, it does not fit, or `out` has a file of the
            same name that says something else; then nothing is written.
    """
    if selection.catalogue.settings.study is None:
        raise SpecError(
            "Specs need tasks and objectives: name a spec that has them as `study` in the "
            "catalogue."
        )
    template = StudySpec.from_yaml(selection.catalogue.folder / selection.catalogue.settings.study)
    chosen = {
        out / f"choice-{i:02d}.yaml": ranked
        for i, ranked in enumerate(selection.ranked[:top], start=1)
    }
    texts: dict[Path, str] = {}
    for path, ranked in chosen.items():
        texts |= _texts(selection, ranked, template, path)
    _check_free(texts)
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(chosen)


def _check_free(texts: Mapping[Path, str]) -> None:
    """Refuse to write over files that say something else: they may have been changed by hand.

    Raises:
        SpecError: With the first of them.
    """
    for path, text in texts.items():
        if path.exists() and not (path.is_file() and path.read_bytes() == text.encode()):
            raise SpecError(
                f"{path} exists and says something else; nothing was written. Choose another "
                "`--out`, or move it away."
            )


def _texts(
    selection: Selection, ranked: Ranked, template: StudySpec, path: Path
) -> dict[Path, str]:
    """Return the files of a chain: the spec at `path`, and what its earlier steps need."""
    chain, catalogue = ranked.chain, selection.catalogue
    *earlier, last = _steps(catalogue, chain, path.with_suffix(""))
    commands, texts = [], {}
    for number, step in enumerate(earlier, start=1):
        folder = path.with_suffix("")
        spec, weights = folder / f"step-{number}.yaml", folder / f"step-{number}.json"
        content = _content(template, step, f"{path.stem}-step-{number}", catalogue)
        content["merge"] |= {"granularity": "uniform", "parameters": step.method.parameters}
        texts[spec] = yaml.safe_dump(content, sort_keys=False)
        texts[weights] = json.dumps({"uniform": list(step.weights)}) + "\n"
        made = folder / f"step-{number}"
        commands.append(f"mergefront merge {spec} --weights {weights} --out {made}")
    content = _content(template, last, path.stem, catalogue)
    StudySpec.parse(content, path.parent, str(path))
    head = [_title(ranked), *(["First:", *commands] if commands else [])]
    comment = "".join(f"# {line}\n" for line in head)
    texts[path] = comment + yaml.safe_dump(content, sort_keys=False)
    return texts


def _title(ranked: Ranked) -> str:
    what = f"{' + '.join(ranked.chain.models)} by {', '.join(ranked.chain.operators)}"
    if not ranked.prediction.is_known:
        return f"{what}: unlike all merges learned from, so nothing is predicted"
    low, high = ranked.prediction.interval()
    gain = f"{ranked.prediction.gain:+.3f} [{low:+.3f}, {high:+.3f}]"
    return f"{what}: gain {gain} predicted over their mean"


def _steps(catalogue: Catalogue, chain: Chain, folder: Path) -> list[Step]:
    ancestor = None if catalogue.ancestor is None else catalogue.ancestor.directory
    left = catalogue.models[chain.models[0]].directory
    steps = []
    for n, (model, label) in enumerate(zip(chain.models[1:], chain.operators, strict=True), 1):
        method, right = catalogue.methods[label], catalogue.models[model].directory
        steps.append(make_step(left, right, method, 1 / (n + 1), ancestor))
        left = (folder / f"step-{n}").absolute()
    return steps


def _content(template: StudySpec, step: Step, name: str, catalogue: Catalogue) -> dict[str, Any]:
    content = template.model_dump(mode="json", exclude_defaults=True)
    content["study"]["name"] = f"{template.study.name}-{name}"
    content["models"] = {
        "base": str(step.base),
        "experts": [str(path) for path in step.experts],
        "dtype": catalogue.settings.dtype,
    }
    searched = {k: v for k, v in step.method.parameters.items() if k != _CANCELS}
    method = {"operator": step.method.operator, "density": step.method.density}
    content["merge"] = {**content.get("merge", {}), **method, "parameters": searched}
    _root(content, template.folder)
    return content


def _root(content: dict[str, Any], folder: Path) -> None:
    """Make the files that a spec names absolute, in place: its own folder is another."""
    change = partial(_absolute, folder)
    for task in content["evaluation"]["tasks"]:
        map_files(task, change)
        file, mark, function = task.get("scorer", "").rpartition(":")
        if file.endswith(".py"):
            task["scorer"] = f"{change(file)}{mark}{function}"
    places = [
        (content.get("importance", {}), "path"),
        (content["evaluation"].get("chat", {}), "template"),
    ]
    for section, key in places:
        if section.get(key) and not _ROLE.fullmatch(section[key]):
            section[key] = change(section[key])
    sampler = content.get("sampler", {})
    if "warm_start" in sampler:  # names of studies stay as they are
        sampler["warm_start"] = [
            change(name) if name.endswith(SPEC_FILES) else name for name in sampler["warm_start"]
        ]


def _absolute(folder: Path, path: str) -> str:
    found = folder / Path(path).expanduser()
    return str(found.absolute()) if found.exists() else path
