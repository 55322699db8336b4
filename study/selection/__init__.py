"""Which models to merge, by which operator, in which order (SimMerge).

`read_catalogue` reads the models, `select` ranks what to do with them by cheap signals
(`pair_signals`) and by what finished studies measured (`measured_merges`).
"""

from .catalogue import Catalogue, read_catalogue
from .select import Selection, select

__all__ = ["Catalogue", "Selection", "read_catalogue", "select"]
