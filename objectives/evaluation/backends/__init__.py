"""Backends: load the parents, swap weights in place, generate.

`Backend` is the protocol. `TransformersBackend` answers in continuous batches, `VllmBackend`
merges inside vLLM's workers (`vllm_worker` runs there). `chat` renders prompts and reads stops,
`reasoning` tells reasoning from the final answer.
"""

from .backend import Backend, ChatSettings, Completion, Finished, Models, Sampling, final_answer
from .reasoning import Reasoning

__all__ = [
    "Backend",
    "ChatSettings",
    "Completion",
    "Finished",
    "Models",
    "Reasoning",
    "Sampling",
    "final_answer",
]
