"""vLLM without vLLM: what is checked before anything is loaded."""

import pytest
from safetensors.torch import load_file

from backend_suite import MODELS
from mergefront.errors import EvaluationError, MissingExtraError
from mergefront.objectives.checkpoints import Checkpoint
from mergefront.objectives.evaluation.backends import vllm_backend
from mergefront.objectives.evaluation.backends.vllm_memory import (
    EngineSettings,
    check_memory,
    needed,
)

GIB = 1 << 30


def test_needs_are_those_of_the_demo_base() -> None:
    need = needed(MODELS, EngineSettings())
    config = Checkpoint(MODELS.base).config
    # float32: 4 bytes; keys and values of every layer and key-value head
    expected = 2 * 4 * config["num_hidden_layers"] * config["num_key_value_heads"]
    assert need.per_token == expected * config["head_dim"]
    assert need.tokens == 128
    tensors = load_file(MODELS.base / "model.safetensors")
    assert need.weights == 4 * sum(tensor.numel() for tensor in tensors.values())


def test_tensor_parallelism_shares_weights_and_cache() -> None:
    one, two = needed(MODELS, EngineSettings()), needed(MODELS, EngineSettings(2))
    assert (two.weights, two.per_token) == (one.weights / 2, one.per_token / 2)


def test_what_fits_is_silent_and_cpus_are_vllms_business() -> None:
    check_memory(MODELS, EngineSettings(), 8 * GIB)
    check_memory(MODELS, EngineSettings(), None)


def test_what_does_not_fit_is_told_with_the_numbers_and_the_ways_out() -> None:
    per_token = needed(MODELS, EngineSettings()).per_token
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
    monkeypatch.setattr(vllm_backend, "_version", lambda: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mergefront\[vllm\]'"):
        vllm_backend.check_version()
    monkeypatch.setattr(vllm_backend, "_version", lambda: "0.29.1")
    with pytest.raises(MissingExtraError, match=r"one of 0\.32, 0\.33, but 0\.29\.1"):
        vllm_backend.check_version()
