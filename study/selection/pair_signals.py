"""Similarity signals of a catalogue's pairs, computed once for as long as files stay the same."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...objectives.checkpoints import Checkpoint
from ...objectives.similarity import (
    FunctionalSettings,
    Pair,
    Prompt,
    Signals,
    functional_signals,
    structural_signals,
)
from ..spec.hashing import cache_folder, cached_hash, write_cache

# To be raised when a signal's meaning changes.
_VERSION = 2

# Ordered pair of names -> what is known about it.
PairSignals = Mapping[tuple[str, str], Signals]
_Compute = Callable[[list[Checkpoint]], dict[Pair, Signals]]


def pair_signals(
    models: Mapping[str, Checkpoint],
    ancestor: Checkpoint | None,
    prompts: Sequence[Prompt],
    dtype: str,
) -> PairSignals:
    """Return structural and functional signals of every ordered pair.

    What is missing in the cache is computed in one pass over the models that it concerns: each
    one's files are read once, and it is loaded once.

    Args:
        models: Name -> checkpoint, mergeable with each other.
        ancestor: Of all of them; its tokenizer renders the prompts, else the first model's.
        prompts: Probes: unlabelled questions of the task; without any, structural signals alone.
        dtype: That models are loaded in.
    """
    origin = None if ancestor is None else cached_hash(ancestor)
    structural = _cached(
        models,
        {"kind": "structural", "ancestor": origin},
        lambda missing: structural_signals(missing, ancestor),
    )
    if not prompts:
        return structural
    base = ancestor or next(iter(models.values()))
    settings = FunctionalSettings(dtype)
    key = {
        "kind": "functional",
        "tokenizer": base.tokenizer_hash(),
        "prompts": list(prompts),
        **asdict(settings),
    }
    functional = _cached(
        models,
        key,
        lambda missing: functional_signals(
            [model.directory for model in missing], prompts, base.directory, settings
        ),
    )
    return {pair: structural[pair] | functional[pair] for pair in structural}


def _cached(
    models: Mapping[str, Checkpoint], key: Mapping[str, Any], compute: _Compute
) -> dict[tuple[str, str], Signals]:
    hashes = {name: cached_hash(model) for name, model in models.items()}
    files = {
        (a, b): _file({**key, "models": [hashes[a], hashes[b]]})
        for a in models
        for b in models
        if a != b
    }
    found = {pair: _read(file) for pair, file in files.items()}
    concerned = [name for name in models if any(s is None for p, s in found.items() if name in p)]
    if concerned:
        computed = compute([models[name] for name in concerned])
        for (i, j), signals in computed.items():
            pair = concerned[i], concerned[j]
            found[pair] = signals
            write_cache(files[pair], signals.to_json())
    return {pair: signals for pair, signals in found.items() if signals is not None}


def _file(key: Mapping[str, Any]) -> Path:
    text = json.dumps({"version": _VERSION, **key}, sort_keys=True)
    return cache_folder() / "signals" / f"{hashlib.sha256(text.encode()).hexdigest()}.json"


def _read(file: Path) -> Signals | None:
    try:
        return Signals.from_json(json.loads(file.read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a cache that cannot be read costs time, nothing else
