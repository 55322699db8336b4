"""Trial in, values with errors out."""

from dataclasses import replace

import optuna
import pytest

from mergefront.errors import EvaluationError
from mergefront.examples.demo import BASE, EXPERT, QUESTIONS
from mergefront.objectives import MergeObjective, questions_of
from mergefront.objectives.evaluation import METRICS, Models, Sampling, TaskSource, load_task
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend


@pytest.fixture(scope="module")
def objective() -> MergeObjective:
    backend = TransformersBackend(batch_size=160, device="cpu")
    backend.load(Models(BASE, (EXPERT,), "float32"))
    task = load_task(TaskSource("demo", {"search": QUESTIONS / "importance.jsonl"}))
    metrics = [METRICS["accuracy"], METRICS["tokens"]]
    questions = questions_of([task], "search")
    return MergeObjective(backend, backend.plan, questions, metrics, Sampling(48))


def test_works_as_an_objective_of_a_plain_optuna_study(objective: MergeObjective) -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.enqueue_trial(dict.fromkeys(objective.plan.parameter_names, 0.0))
    study.optimize(objective, n_trials=1)
    (trial,) = study.trials
    assert list(trial.params) == [f"layer_{i:03d}" for i in range(8)]
    attributes = trial.user_attrs
    assert attributes["n_questions"] == 160
    assert len(attributes["standard_errors"]) == 2
    assert attributes["generated_tokens"] == pytest.approx(160 * trial.values[1])
    assert sum(attributes["finish_reasons"].values()) == 160
    assert attributes["merge_seconds"] > 0
    assert attributes["evaluate_seconds"] > 0


def test_the_parents_measure_what_the_model_card_says(objective: MergeObjective) -> None:
    base = objective.measure(objective.plan.uniform(0.0))
    expert = objective.measure(objective.plan.uniform(1.0))
    assert base.values[0] == pytest.approx(0.613, abs=4 * base.standard_errors[0])
    assert expert.values[0] == pytest.approx(0.858, abs=4 * expert.standard_errors[0])
    assert base.values[1] < 3 < 20 < expert.values[1]


def test_a_value_that_is_not_finite_is_an_error_not_a_measurement(
    objective: MergeObjective,
) -> None:
    broken = replace(METRICS["accuracy"], per_answer=lambda answer: float("nan"))
    copied = MergeObjective(
        objective.backend, objective.plan, objective.questions, [broken], objective.sampling
    )
    with pytest.raises(EvaluationError, match="accuracy is nan"):
        copied.measure(objective.plan.uniform(0.5))


def test_ids_name_their_task(objective: MergeObjective) -> None:
    assert objective.questions[0].question.id == "demo/importance-0000"
