"""Layer-wise merges: which variable moves which tensor, by which formula, into which sink."""

from .blocks import find_blocks
from .compatibility import check_mergeable, is_tied
from .engine import Inputs, Merger, Resident
from .hub import resolve_model
from .interchange import mergekit_yaml
from .layers import Part, locate, locate_all
from .lora import LoraCheckpoint, is_adapter
from .operators import OPERATORS, Operator
from .plan import EdgeRule, Granularity, MergePlan, MergeSettings, Weights
from .reader import Checkpoint
from .sinks import ModuleSink, Recipe, stream, write_checkpoint

__all__ = [
    "OPERATORS",
    "Checkpoint",
    "EdgeRule",
    "Granularity",
    "Inputs",
    "LoraCheckpoint",
    "MergePlan",
    "MergeSettings",
    "Merger",
    "ModuleSink",
    "Operator",
    "Part",
    "Recipe",
    "Resident",
    "Weights",
    "check_mergeable",
    "find_blocks",
    "is_adapter",
    "is_tied",
    "locate",
    "locate_all",
    "mergekit_yaml",
    "resolve_model",
    "stream",
    "write_checkpoint",
]
