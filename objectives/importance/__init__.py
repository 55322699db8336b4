"""How much each search variable is expected to matter."""

from .combine import rescale
from .parameter import relative_norms

__all__ = ["relative_norms", "rescale"]
