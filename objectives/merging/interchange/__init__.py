"""Files that say how a model is merged: mergekit's configurations, and our files of weights."""

from .mergekit_config import MergekitModel, mergekit_yaml
from .weight_files import parse_weights, weight_file

__all__ = ["MergekitModel", "mergekit_yaml", "parse_weights", "weight_file"]
