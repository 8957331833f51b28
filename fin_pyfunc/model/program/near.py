"""Numbers that are rounded on the way, beside constants at which an answer jumps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fin_pyfunc.model.program.node import Array


def near_an_edge(X: Array, constants: Sequence[Array], margin: float) -> Array:
    """Rows with a number so close to a constant that another rounding of it may lie on the other side.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n), float64
    constants : sequence of ndarray, length n
        Of each column, in ascending order.
    margin : float
        Relative to the number, or absolute where that is less than 1.

    Returns
    -------
    ndarray of shape (n_rows,), bool
    """
    near = np.zeros(len(X), dtype=bool)
    for column, known in zip(X.T, constants, strict=True):
        if len(known):
            by = margin * np.maximum(1.0, np.abs(column))
            near |= np.searchsorted(known, column - by) != np.searchsorted(known, column + by, "right")
    return near
