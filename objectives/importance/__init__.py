"""How much each search variable is expected to matter."""

from .activation import activation_distances
from .combine import combine, rescale, robust, smooth
from .effects import layer_effects
from .parameter import task_vector_norms

__all__ = [
    "activation_distances",
    "combine",
    "layer_effects",
    "rescale",
    "robust",
    "smooth",
    "task_vector_norms",
]
