"""Layer-wise merges: which variable moves which tensor, by which formula, into which sink.

`MergePlan` maps search variables to tensors, `OPERATORS` holds the formulas, `Merger` applies one
to a tensor in chunks, and the sinks write: live parameters, checkpoint-named tensors, files.
"""

from .blocks import find_blocks
from .layers import Part, locate, locate_all
from .mergekit_config import mergekit_yaml
from .merger import Merger, ParentTensors, Resident, chunk_for
from .operators import OPERATORS, Operator
from .plan import EdgeRule, Granularity, MergePlan, MergeSettings, Weights
from .sinks import ModuleSink, Recipe, stream, write_checkpoint

__all__ = [
    "OPERATORS",
    "EdgeRule",
    "Granularity",
    "MergePlan",
    "MergeSettings",
    "Merger",
    "ModuleSink",
    "Operator",
    "ParentTensors",
    "Part",
    "Recipe",
    "Resident",
    "Weights",
    "chunk_for",
    "find_blocks",
    "locate",
    "locate_all",
    "mergekit_yaml",
    "stream",
    "write_checkpoint",
]
