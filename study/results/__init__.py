"""What a study has found: front, validation, export, status, report.

`front_report` is the noise-corrected front beside the uniform merges, `validate` asks its models
fresh questions, `export_trial` writes one as a checkpoint. `report` (a room of its own) draws.
Nothing here changes a study's trials.
"""

from .front import FrontReport, front_report, pareto_front
from .validation import Validation, validate

__all__ = ["FrontReport", "Validation", "front_report", "pareto_front", "validate"]
