"""Relative task-vector norms against a hand calculation."""

from pathlib import Path

from mergefront.examples.demo import BASE, EXPERT
from mergefront.objectives.checkpoints import Checkpoint
from mergefront.objectives.importance import rescale, task_vector_norms
from mergefront.objectives.merging import MergePlan, MergeSettings
from tiny_checkpoint import write_checkpoint


def test_tensors_of_a_variable_are_pooled(tmp_path: Path) -> None:
    base = write_checkpoint(
        tmp_path / "base",
        {"0.self_attn.q_proj": [3.0, 0.0], "0.mlp.up_proj": [0.0, 4.0], "1.mlp.up_proj": [2.0]},
    )
    one = write_checkpoint(
        tmp_path / "one",
        {"0.self_attn.q_proj": [3.0, 6.0], "0.mlp.up_proj": [8.0, 4.0], "1.mlp.up_proj": [2.0]},
    )
    plan = MergePlan(base.layout, MergeSettings())
    # Layer 0 moved by (0, 6, 8, 0) from (3, 0, 0, 4): 10 / 5. Layer 1 did not move.
    assert task_vector_norms(base, [one], plan) == {"layer_000": 2.0, "layer_001": 0.0}
    twice = MergePlan(base.layout, MergeSettings(n_experts=2))
    norms = task_vector_norms(base, [base, one], twice)
    assert norms == {"layer_000@1": 0, "layer_000@2": 2.0, "layer_001@1": 0, "layer_001@2": 0}


def test_the_demo_pair_moved_every_variable() -> None:
    base = Checkpoint(BASE)
    plan = MergePlan(base.layout, MergeSettings(embeddings="search", head="search"))
    norms = task_vector_norms(base, [Checkpoint(EXPERT)], plan)
    assert list(norms) == plan.parameter_names
    assert all(0 < norm < 1 for norm in norms.values())


def test_rescale_maps_to_the_unit_interval() -> None:
    assert rescale({"a": 2.0, "b": 6.0, "c": 3.0}) == {"a": 0.0, "b": 1.0, "c": 0.25}
    assert rescale({"a": 2.0, "b": 2.0}) == {"a": 0.5, "b": 0.5}
