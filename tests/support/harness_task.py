"""A generative task in lm-evaluation-harness's own format, over the demo's questions."""

from typing import Any

_LAST = {"function": "regex", "regex_pattern": "([0-9a-z]+)$", "group_select": -1}
_FIRST = {"function": "take_first"}

CHAINS: dict[str, Any] = {
    "task": "chains",
    "dataset_path": "json",
    "output_type": "generate_until",
    "test_split": "test",
    "doc_to_text": "{{prompt}}",
    "doc_to_target": "{{answer}}",
    "generation_kwargs": {"until": [";b"], "do_sample": False, "max_gen_toks": 48},
    "filter_list": [
        {"name": "last", "filter": [_LAST, _FIRST]},
        {"name": "raw", "filter": [_FIRST]},
    ],
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    "metadata": {"version": 1},
}
