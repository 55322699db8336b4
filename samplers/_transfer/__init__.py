"""What earlier studies tell a study."""

from .kept import hints_of, keep
from .source import Source

__all__ = ["Source", "hints_of", "keep"]
