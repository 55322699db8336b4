"""Kinds of architectures: what a swapped engine is, it must be as a fresh one.

The reference for a mixture is a fresh engine on the checkpoint that an export writes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import vllm_on_cpu  # noqa: F401 - sets the environment, or skips
from backend_suite import LONG, PROMPTS, SwapSuite
from mergefront.errors import EngineError
from mergefront.objectives.checkpoints import Checkpoint, is_tied
from mergefront.objectives.evaluation import Models
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
from mergefront.objectives.evaluation.backends.vllm_backend import VllmBackend
from mergefront.objectives.evaluation.backends.vllm_memory import EngineSettings
from mergefront.objectives.evaluation.backends.vllm_swap import Engine, layers
from mergefront.objectives.evaluation.backends.vllm_swap.canary import ask
from mergefront.objectives.merging import MergePlan, Recipe, write_checkpoint
from tiny_models import KINDS, store, write_pair

# vLLM's own kernels differ from transformers' there; the fresh engine is the reference.
OTHER_KERNELS = ("latent attention",)


def _plan(models: Models) -> MergePlan:
    checkpoint = Checkpoint(models.base)
    return MergePlan(checkpoint.layout, models.merge, is_tied(checkpoint))


def _mixture(plan: MergePlan) -> dict[str, tuple[float, ...]]:
    names = plan.parameter_names
    return plan.group_weights({name: (i + 1) / (len(names) + 1) for i, name in enumerate(names)})


def _is_its_export(backend: VllmBackend, models: Models, out: Path) -> None:
    """Compare a mixture in the running engine with a fresh engine on its checkpoint."""
    plan = _plan(models)
    groups = _mixture(plan)
    experts = [Checkpoint(path) for path in models.experts]
    recipe = Recipe(Checkpoint(models.base), experts, plan, getattr(torch, models.dtype))
    write_checkpoint(recipe, groups, out)
    backend.apply(groups)
    assert backend._engine is not None
    swapped = ask(backend._engine, backend._chat)
    backend.close()
    fresh = Engine(out, models.dtype, backend.settings)
    assert ask(fresh, backend._chat) == swapped
    fresh.close()


@pytest.fixture(scope="module", params=KINDS)
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Models:
    # Where a CPU has AMX, vLLM's latent attention takes 16 bits alone.
    short = request.param in OTHER_KERNELS and torch.cpu._is_amx_tile_supported()
    dtype = "bfloat16" if short else "float32"
    return write_pair(tmp_path_factory.mktemp("pair"), request.param, dtype)


def _is_latent(models: Models) -> bool:
    return "kv_lora_rank" in Checkpoint(models.base).config


@pytest.fixture(scope="module")
def backend(models: Models) -> Iterator[VllmBackend]:
    backend = VllmBackend()
    try:
        backend.load(models)  # refuses if a parent swapped in is not the parent
    except EngineError as error:
        # vLLM 0.32 packs latent attention for AMX and cannot load into what it has packed; on
        # CPUs without AVX-512 its answers are other ones in each batch.
        packed = models.dtype == "bfloat16" and "cannot load other weights" in str(error)
        if packed or (_is_latent(models) and "whatever is answered with it" in str(error)):
            pytest.skip(f"refused, as it should be: {error}")
        raise
    yield backend
    backend.close()


class TestKinds(SwapSuite):
    """The shared suite over all kinds, and what is theirs."""

    @pytest.fixture
    def plan(self, models: Models) -> MergePlan:
        return _plan(models)

    def test_a_mixture_answers_as_in_transformers(
        self, backend: VllmBackend, models: Models, request: pytest.FixtureRequest
    ) -> None:
        if any(kind in request.node.name for kind in OTHER_KERNELS):
            pytest.skip("vLLM's own kernels round otherwise; its fresh engine is the reference")
        reference = TransformersBackend(device="cpu")
        reference.load(models)
        groups = _mixture(_plan(models))
        ours, theirs = (_answers(engine, groups) for engine in (backend, reference))
        assert ours == theirs

    def test_a_mixture_answers_as_a_fresh_engine_on_its_export(
        self, backend: VllmBackend, models: Models, tmp_path: Path
    ) -> None:
        """The last one: it ends the backend's engine."""
        _is_its_export(backend, models, tmp_path / "export")


def _answers(backend: Any, groups: Any) -> Any:
    backend.apply(groups)
    return backend.generate(PROMPTS, LONG)


def test_tensors_stored_in_float32_are_merged_in_float32(tmp_path: Path) -> None:
    models = write_pair(tmp_path, "experts with a router bias", "bfloat16")
    for directory in (models.base, *models.experts):
        store(directory, lambda name, t: t.float() + 1e-4 if "correction_bias" in name else t)
    backend = VllmBackend()
    backend.load(models)
    _is_its_export(backend, models, tmp_path / "export")


def test_an_expert_with_another_rotary_base_is_refused(tmp_path: Path) -> None:
    """Its weights under the base's configuration are another model than its own."""
    models = write_pair(tmp_path, "dense")
    config = (models.experts[0] / "config.json").read_text()
    (models.experts[0] / "config.json").write_text(config.replace("10000.0", "500.0"))
    with pytest.raises(EngineError, match=r"weights of .*b the engine is not what a fresh one is"):
        VllmBackend().load(models)


def test_experts_that_stay_unpacked_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What vLLM's own reloading does on CPUs: every answer is garbage, and nothing says so."""
    models = write_pair(tmp_path, "experts")
    worker = "mergefront.objectives.evaluation.backends.vllm_worker"
    monkeypatch.setattr(f"{worker}.forget_packing", lambda model: None)
    backend = VllmBackend()
    with pytest.raises(EngineError, match=r"differ.*evaluation\.backend to transformers"):
        backend.load(models)
    assert backend._engine is None


def test_weights_that_are_not_written_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = write_pair(tmp_path, "dense")
    worker = "mergefront.objectives.evaluation.backends.vllm_worker"

    def partly(recipe: Any, groups: Any, **others: Any) -> Any:
        from mergefront.objectives.merging import stream

        base = dict(stream(recipe, {name: (0.0,) for name in groups}))
        for name, tensor in stream(recipe, groups, **others):
            yield name, base[name] if "layers.1.mlp.down_proj" in name else tensor

    monkeypatch.setattr(f"{worker}.stream", partly)
    with pytest.raises(EngineError, match=r"weights of .*b the engine is not what a fresh one is"):
        VllmBackend().load(models)


def test_fused_experts_are_what_is_packed(tmp_path: Path) -> None:
    models = write_pair(tmp_path, "experts")
    engine = Engine(models.base, "float32", EngineSettings())
    core = engine.llm.llm_engine.engine_core.engine_core
    model = core.model_executor.driver_worker.worker.model_runner.get_model()
    assert "packed" in layers.plain_reason(model)
    engine.close()
