"""The argument under which a model takes its cache, in old and new versions of transformers."""

import inspect
import warnings

from transformers import AutoModelForCausalLM

from mergefront.examples.demo import BASE
from mergefront.objectives.evaluation.backends.continuous_batching import Rows, cache_argument


class _Old:
    def forward(self, input_ids: object, past_key_values: object = None) -> None: ...


class _New:
    def forward(self, input_ids: object, cache: object = None, **others: object) -> None: ...


def test_the_name_is_the_models_own() -> None:
    assert [cache_argument(model()) for model in (_Old, _New)] == ["past_key_values", "cache"]


def test_this_version_answers_without_a_warning() -> None:
    model = AutoModelForCausalLM.from_pretrained(BASE)
    assert cache_argument(model) in inspect.signature(model.forward).parameters
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Rows(model, 2).answer([[1, 2, 3], [4, 5]], 3, lambda ids: False, lambda answering: None)
