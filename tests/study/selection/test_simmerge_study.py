"""One study over operators, experts and layer weights: real checkpoints, merged and asked."""

from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from mergefront.examples.demo import BASE, QUESTIONS
from mergefront.objectives.checkpoints import Checkpoint
from mergefront.objectives.evaluation import Models, Sampling
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
from mergefront.objectives.similarity import merge_features, structural_signals
from mergefront.samplers import SIPSampler
from mergefront.samplers.simmerge import ArmFeatures, Merge, SimMergeSampler
from mergefront.study.selection.methods import Method, make_step
from small_catalogue import write_sibling
from small_study import read_json_lines

METHODS = {"linear": Method("linear"), "dare": Method("dare_linear", density=0.5)}
LEVELS = {"near": 0.3, "far": 1.0}


@pytest.fixture
def experts(tmp_path: Path) -> dict[str, Path]:
    return {name: write_sibling(tmp_path / name, level, 0) for name, level in LEVELS.items()}


def _merges(experts: dict[str, Path]) -> dict[tuple[str, str], Merge]:
    names = list(experts)
    models = [Checkpoint(BASE), *(Checkpoint(path) for path in experts.values())]
    signals = structural_signals(models)
    return {
        (operator, name): Merge(
            ("base", name),
            operator,
            merge_features(signals[0, place], signals[place, 0], method.is_ordered(False)),
        )
        for place, name in enumerate(names, start=1)
        for operator, method in METHODS.items()
    }


def test_operator_expert_and_layer_weights_in_one_study(experts: dict[str, Path]) -> None:
    merges = _merges(experts)
    features = ArmFeatures(list(merges.values()), list(METHODS), n_components=1)
    sampler = SimMergeSampler(
        {"operator": list(METHODS), "expert": list(experts)},
        lambda arm: features(merges[arm["operator"], arm["expert"]]).tolist(),
        weights=SIPSampler(n_startup_trials=4, seed=0),
        seed=0,
    )
    lines = read_json_lines(QUESTIONS / "search.jsonl")
    questions = [line for line in lines if line["kind"] == "chain"][:40]
    backends: dict[tuple[str, str], TransformersBackend] = {}

    def engine(arm: tuple[str, str]) -> TransformersBackend:
        if arm not in backends:
            step = make_step(BASE, experts[arm[1]], METHODS[arm[0]])
            settings = replace(step.settings, granularity="layer")
            backends[arm] = TransformersBackend()
            backends[arm].load(Models(step.base, step.experts, "float32", settings))
        return backends[arm]

    def objective(trial: optuna.Trial) -> float:
        operator = trial.suggest_categorical("operator", list(METHODS))
        backend = engine((operator, trial.suggest_categorical("expert", list(experts))))
        backend.apply({name: (trial.suggest_float(name, 0, 1),) for name in backend.plan.groups})
        answers = backend.generate([q["prompt"] for q in questions], Sampling(48))
        right = [a.text.endswith(q["answer"]) for a, q in zip(answers, questions, strict=True)]
        return sum(right) / len(right)

    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=24)
    assert study.best_params["expert"] == "far"
    assert study.best_value > 0.8
    arms = [(t.params["operator"], t.params["expert"]) for t in study.trials]
    assert len(set(arms)) >= 3
    assert sum(expert == "far" for _, expert in arms[-10:]) > 5
    assert len(study.best_params) == 2 + 8
