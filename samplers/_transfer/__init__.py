"""What earlier studies tell a study."""

from .kept import has_sources, hints_of, keep, kept
from .source import Source

__all__ = ["Source", "has_sources", "hints_of", "keep", "kept"]
