"""Splines of SplineTransformer as arrays in a file, and made again of them.

SciPy's own object holds a function, another one in each of its versions, and its compiled code trusts that knots and
coefficients fit together.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fin_pyfunc.model.soundness.trees import forged

#: What stands for a spline in a file, as SciPy names it.
_FIELDS = frozenset({"t", "c", "k", "extrapolate"})


def spline_arrays(spline: Any) -> dict[str, Any]:
    """A `scipy.interpolate.BSpline` as its knots, coefficients and degree."""
    return {
        "t": np.asarray(spline.t),
        "c": np.asarray(spline.c),
        "k": int(spline.k),
        "extrapolate": bool(spline.extrapolate),
    }


def restore_splines(transformer: Any) -> None:
    """Make the splines of a SplineTransformer that was read from a file.

    Parameters
    ----------
    transformer : SplineTransformer
        Of its `bsplines_`, each that `spline_arrays` made is exchanged for a spline.

    Raises
    ------
    ArtifactError
        Knots and coefficients do not fit together.
    """
    from scipy.interpolate import BSpline

    transformer.bsplines_ = [of if type(of) is BSpline else _spline(of) for of in transformer.bsplines_]


def _spline(arrays: Any) -> Any:
    from scipy.interpolate import BSpline

    if type(arrays) is not dict or arrays.keys() != _FIELDS:
        raise forged("a spline that is no table of knots and coefficients")
    knots, coefficients, degree = arrays["t"], arrays["c"], arrays["k"]
    if type(degree) is not int or degree < 0 or type(arrays["extrapolate"]) is not bool:
        raise forged("a spline without a degree")
    for array, n_dims in ((knots, 1), (coefficients, 2)):
        if type(array) is not np.ndarray or array.ndim != n_dims or array.dtype != np.float64:
            raise forged("a spline whose knots or coefficients are no numbers")
    n_bases = len(knots) - degree - 1
    if n_bases <= degree or len(coefficients) < n_bases:
        raise forged("a spline of uneven length")
    if not np.isfinite(knots).all() or (np.diff(knots) < 0).any():
        raise forged("a spline whose knots are not in order")
    # as SplineTransformer makes them: the constructor refuses a column that was constant in training
    knots, coefficients = np.ascontiguousarray(knots), np.ascontiguousarray(coefficients)
    return BSpline.construct_fast(knots, coefficients, degree, arrays["extrapolate"])
