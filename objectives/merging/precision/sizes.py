"""What models of other precisions take, as measured ones tell: without the models themselves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .formats import is_precision

# Bytes are whole numbers: a solution that is off by less is exact.
_EXACT = 0.25


def known_size(
    params: Mapping[str, Any], measured: Sequence[Mapping[str, Any]], sizes: Sequence[float]
) -> float | None:
    """Return what a candidate's weights take, in bytes; None if the measured ones do not tell.

    Every group of layers adds what its precision takes.

    Args:
        params: Of the candidate.
        measured: Parameters of `n` candidates of the same study.
        sizes: Of theirs, `n`.
    """
    if not measured:
        return None
    names = [name for name in params if is_precision(name)]
    columns = sorted({(name, str(row[name])) for row in [params, *measured] for name in names})
    table = np.array([_indicators(row, columns) for row in measured])
    values, wanted = np.array(sizes, dtype=np.float64), _indicators(params, columns)
    effects, *_ = np.linalg.lstsq(table, values - values.mean(), rcond=None)
    # Known if it is a combination of measured rows, which all fit.
    parts, *_ = np.linalg.lstsq(table.T, wanted, rcond=None)
    fits = np.abs(table @ effects + values.mean() - values).max() < _EXACT
    if not fits or np.abs(parts @ table - wanted).max() > 1e-6:
        return None
    return float(np.round(wanted @ effects + values.mean()))


def _indicators(
    params: Mapping[str, Any], columns: Sequence[tuple[str, str]]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return 1, and for each pair of name and choice whether the parameters have it."""
    chosen = [float(str(params[name]) == choice) for name, choice in columns]
    return np.array([1.0, *chosen])
