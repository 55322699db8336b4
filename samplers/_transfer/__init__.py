"""What earlier studies tell a study."""

from .kept import check, has_sources, hints_of, keep, kept
from .source import Source

__all__ = ["Source", "check", "has_sources", "hints_of", "keep", "kept"]
