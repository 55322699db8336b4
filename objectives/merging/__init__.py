"""Layer-wise merges: which variable moves which tensor, by which formula, into which sink.

`plan_of` maps a study's search variables to the base's tensors, `OPERATORS` holds the formulas,
`Merger` applies one to a tensor in chunks, and the sinks write: live tensors, checkpoint-named
tensors, files.
"""

from .blocks import find_blocks
from .derived import (
    check_loaded,
    check_operator_fits,
    check_precision,
    check_towers,
    engine_plan,
    plan_of,
)
from .files import write_checkpoint
from .interchange import MergekitModel, mergekit_yaml, parse_weights, weight_file
from .layers import Part, locate, locate_all
from .merger import Merger, ParentTensors, Resident, chunk_for
from .operators import OPERATORS, Operator
from .plan import MergePlan, Params, Weights
from .precision import Precision
from .recipe import Recipe
from .settings import Arm, EdgeRule, Granularity, MergeSettings, TowerRule
from .sinks import ModuleSink, stream

__all__ = [
    "OPERATORS",
    "Arm",
    "EdgeRule",
    "Granularity",
    "MergePlan",
    "MergeSettings",
    "MergekitModel",
    "Merger",
    "ModuleSink",
    "Operator",
    "Params",
    "ParentTensors",
    "Part",
    "Precision",
    "Recipe",
    "Resident",
    "TowerRule",
    "Weights",
    "check_loaded",
    "check_operator_fits",
    "check_precision",
    "check_towers",
    "chunk_for",
    "engine_plan",
    "find_blocks",
    "locate",
    "locate_all",
    "mergekit_yaml",
    "parse_weights",
    "plan_of",
    "stream",
    "weight_file",
    "write_checkpoint",
]
