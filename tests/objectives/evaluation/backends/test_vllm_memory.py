"""vLLM without vLLM: what is checked before anything is loaded."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from backend_suite import MODELS
from mergefront.errors import EvaluationError, MissingExtraError
from mergefront.objectives.checkpoints import Checkpoint
from mergefront.objectives.evaluation import Models
from mergefront.objectives.evaluation.backends import vllm_memory
from mergefront.objectives.evaluation.backends.vllm_memory import (
    EngineSettings,
    Layers,
    Need,
    check_memory,
    needed,
    with_length_of,
    with_room_for_parents,
)
from mergefront.objectives.evaluation.backends.vllm_swap import version
from mergefront.objectives.merging import MergeSettings

GIB = 1 << 30


def test_needs_are_those_of_the_demo_base() -> None:
    need = needed(MODELS, EngineSettings())
    config = Checkpoint(MODELS.base).config
    # float32: 4 bytes; keys and values of every layer and key-value head
    expected = 2 * 4 * config["num_hidden_layers"] * config["num_key_value_heads"]
    assert need.cache(1) == expected * config["head_dim"]
    assert need.tokens == 128
    assert need.cache() == 128 * need.cache(1)
    tensors = load_file(MODELS.base / "model.safetensors")
    assert need.weights == 4 * sum(tensor.numel() for tensor in tensors.values())


def test_tensor_parallelism_shares_weights_and_heads() -> None:
    one, two, four = (needed(MODELS, EngineSettings(n)) for n in (1, 2, 4))
    assert (two.weights, two.cache()) == (one.weights / 2, one.cache() / 2)
    # two key-value heads: with four GPUs every GPU holds a whole one
    assert (four.weights, four.cache()) == (one.weights / 4, two.cache())


def _base(folder: Path, **changes: Any) -> Models:
    """Return the demo with another configuration of its base."""
    base = folder / "base"
    shutil.copytree(MODELS.base, base)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | changes))
    return replace(MODELS, base=base)


def test_a_model_without_positions_has_no_length_of_its_own(tmp_path: Path) -> None:
    models = _base(tmp_path, model_type="bloom", n_layer=2, n_head=2)
    path = models.base / "config.json"
    config = json.loads(path.read_text())
    del config["max_position_embeddings"]
    path.write_text(json.dumps(config))
    assert needed(models, EngineSettings()).tokens == 2048
    assert with_length_of(EngineSettings(), models.base, models.base).max_model_len is None
    own = with_length_of(EngineSettings(), models.base, MODELS.base)
    assert own.max_model_len == 128


def test_latent_attention_keeps_one_compressed_vector_on_every_gpu(tmp_path: Path) -> None:
    latent = {"kv_lora_rank": 512, "qk_rope_head_dim": 64, "first_k_dense_replace": 1}
    models = _base(tmp_path, model_type="deepseek_v3", **latent)
    for n_gpus in (1, 2):
        need = needed(models, EngineSettings(n_gpus))
        assert need.cache(1) == 8 * (512 + 64) * 4  # layers, numbers, bytes


def test_windows_keep_no_more_than_they_see(tmp_path: Path) -> None:
    kinds = ["sliding_attention", "full_attention"] * 4
    models = _base(tmp_path, layer_types=kinds, sliding_window=64, use_sliding_window=True)
    need = needed(models, EngineSettings(max_model_len=100_000))
    per_layer = 2 * 4 * 2 * 32  # keys and values, bytes, heads, numbers a head
    assert need.cache() == 4 * per_layer * 100_000 + 4 * per_layer * (64 - 1 + 8192)
    assert need.longest(need.total) == 100_000


def test_every_layer_of_mistral_has_its_window(tmp_path: Path) -> None:
    models = _base(tmp_path, model_type="mistral", sliding_window=32, layer_types=None)
    need = needed(models, EngineSettings(max_model_len=100_000))
    assert need.cache() == needed(models, EngineSettings(max_model_len=8223)).cache()


def test_parents_stay_on_the_gpu_where_half_of_the_cache_is_left() -> None:
    # 10 GiB of weights in float32 on 80 GiB: three models and the cache
    models, asked = replace(MODELS, dtype="float32"), EngineSettings()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vllm_memory, "needed", lambda m, s: Need(10 * GIB, (Layers(1e6),), 1000))
        roomy = with_room_for_parents(models, asked, 80 * GIB)
        assert roomy.gpu_memory_utilization == pytest.approx((80 - 2 * 10 - 1) / 80)
        # 72 of 80 GiB given, 33.5 of them to weights and workspace: parents would leave no cache
        patch.setattr(vllm_memory, "needed", lambda m, s: Need(32 * GIB, (Layers(1e6),), 1000))
        assert with_room_for_parents(models, asked, 80 * GIB) == asked
        assert with_room_for_parents(models, asked, None) == asked
    slerp = replace(models, merge=MergeSettings(operator="slerp"))
    assert with_room_for_parents(slerp, asked, 80 * GIB) == asked


def test_an_experts_own_engine_is_no_longer_than_both_models(tmp_path: Path) -> None:
    short = _base(tmp_path, max_position_embeddings=64).base
    for asked, expected in ((None, 64), (100, 64), (32, 32)):
        settings = EngineSettings(max_model_len=asked)
        assert with_length_of(settings, MODELS.base, short).max_model_len == expected
    assert with_length_of(EngineSettings(), short, MODELS.base).max_model_len == 64


def test_what_fits_is_silent_and_cpus_are_vllms_business() -> None:
    check_memory(MODELS, EngineSettings(), 8 * GIB)
    check_memory(MODELS, EngineSettings(), None)


def test_what_does_not_fit_is_told_with_the_numbers_and_the_ways_out() -> None:
    per_token = needed(MODELS, EngineSettings()).cache(1)
    longest = int(6 * GIB / per_token)
    with pytest.raises(EvaluationError) as caught:
        check_memory(MODELS, EngineSettings(max_model_len=2 * longest), 8 * GIB)
    text = str(caught.value)
    assert "12.0 GiB of KV cache" in text
    assert "7.2 GiB are given (0.9 of 8.0)" in text
    assert "max_model_len to" in text
    suggested = int(text.split("max_model_len to ")[1].split(",")[0])
    check_memory(MODELS, EngineSettings(max_model_len=suggested), 8 * GIB)
    with pytest.raises(EvaluationError, match="bfloat16 or a larger GPU"):
        check_memory(MODELS, EngineSettings(), GIB)


def test_a_missing_or_untested_vllm_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "_version", lambda: None)
    with pytest.raises(MissingExtraError, match="install MergeFront with its extra `vllm`"):
        version.check_version()
    monkeypatch.setattr(version, "_version", lambda: "0.29.1")
    with pytest.raises(MissingExtraError, match=r"one of 0\.32, 0\.33, but 0\.29\.1"):
        version.check_version()
