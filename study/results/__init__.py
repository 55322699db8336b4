"""What a study has found: front, validation, export, status, report.

`front_report` is the noise-corrected front beside the uniform merges, `validate` asks its models
fresh questions, `recommend` names what to take, measured or not, `export_trial` writes one as a
checkpoint. `report` (a room of its own) draws.
Nothing here changes a study's trials.
"""

from .front import FrontReport, front_report, pareto_front
from .recommendations import recommend
from .validation import Validation, validate

__all__ = ["FrontReport", "Validation", "front_report", "pareto_front", "recommend", "validate"]
