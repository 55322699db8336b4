"""SimMerge: which models, which operator, in which order, before the budget is spent."""

from .arms import ArmFeatures
from .bandit import LinUCB, NeuralLinear
from .chains import Chain, Ranked, rank_chains
from .examples import Example, Merge, read_examples, write_examples
from .predictor import Prediction, Predictor, Quality, leave_models_out
from .regressors import REGRESSORS
from .sampler import BanditSettings, SimMergeSampler, add_choices, suggest_choice

__all__ = [
    "REGRESSORS",
    "ArmFeatures",
    "BanditSettings",
    "Chain",
    "Example",
    "LinUCB",
    "Merge",
    "NeuralLinear",
    "Prediction",
    "Predictor",
    "Quality",
    "Ranked",
    "SimMergeSampler",
    "add_choices",
    "leave_models_out",
    "rank_chains",
    "read_examples",
    "suggest_choice",
    "write_examples",
]
