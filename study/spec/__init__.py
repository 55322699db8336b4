"""What a study is: the YAML file as checked models, and the files that it names.

`StudySpec.from_yaml` reads a spec; `StudyInputs.of` finds and checks its models and tasks before
anything is created. `presets` fills in the published methods' settings, `hashing` gives files
their fingerprints. Imports nothing of the other rooms.
"""

from .inputs import StudyInputs, load_inputs
from .mistakes import explain
from .study_spec import StudySpec

__all__ = ["StudyInputs", "StudySpec", "explain", "load_inputs"]
