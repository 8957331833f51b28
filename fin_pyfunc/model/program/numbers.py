"""One operation for every number of a matrix: limits, thresholds, NumPy's functions by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from fin_pyfunc.model.program.node import Array, Edge, Node, expect

#: Functions of one number that a file may name, by the package that has them.
FUNCTIONS = {
    "numpy": frozenset({
        "absolute", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctanh", "cbrt", "ceil", "cos", "cosh",
        "deg2rad", "degrees", "exp", "exp2", "expm1", "fabs", "floor", "log", "log10", "log1p", "log2", "negative",
        "positive", "rad2deg", "radians", "reciprocal", "rint", "sign", "sin", "sinh", "sqrt", "square", "tan", "tanh",
        "trunc",
    }),
    "scipy.special": frozenset({
        "cbrt", "erf", "erfc", "exp10", "exp2", "expit", "expm1", "gammaln", "log1p", "log_expit", "logit", "ndtr",
        "ndtri", "psi",
    }),
}  # fmt: skip
_WHOLE = np.arange(-8.0, 9.0)
#: Where a function jumps, or ends; whole numbers near 0 stand for all of them.
_EDGES: dict[str, Array] = {
    "ceil": _WHOLE, "floor": _WHOLE, "rint": _WHOLE + 0.5, "trunc": _WHOLE,
    "log1p": np.array([-1.0]), "arccosh": np.array([1.0]), "logit": np.array([0.0, 1.0]),
    "ndtri": np.array([0.0, 1.0]), **dict.fromkeys(("arccos", "arcsin", "arctanh"), np.array([-1.0, 1.0])),
    **dict.fromkeys(("log", "log10", "log2", "reciprocal", "sign", "sqrt"), np.zeros(1)),
}  # fmt: skip


class Clip(Node, tag="clip"):
    """Numbers no less than one limit and no greater than another (MinMaxScaler, MaxAbsScaler).

    Parameters
    ----------
    least, greatest : float
    """

    least: float
    greatest: float

    def width(self, *widths: int) -> int:
        expect(len(widths) == 1 and self.least <= self.greatest, "clip")
        return widths[0]

    def __call__(self, *inputs: Array) -> Array:
        return np.clip(inputs[0], self.least, self.greatest)


class Threshold(Node, tag="threshold"):
    """1 where a number is greater than the threshold, else 0 (Binarizer).

    Parameters
    ----------
    threshold : float
    """

    threshold: float

    def width(self, *widths: int) -> int:
        expect(len(widths) == 1 and self.threshold == self.threshold, "threshold")
        self._n = widths[0]
        return widths[0]

    def __call__(self, *inputs: Array) -> Array:
        return (inputs[0] > self.threshold).astype(np.float64)

    def edges(self) -> Sequence[Edge]:
        return [every_column(self._n, np.array([self.threshold]))]


class Function(Node, tag="function"):
    """A function of NumPy's or scipy.special's, by its name (FunctionTransformer).

    Parameters
    ----------
    package, name : str
        Of `FUNCTIONS`.
    """

    package: str
    name: str

    def width(self, *widths: int) -> int:
        expect(len(widths) == 1 and self.name in FUNCTIONS.get(self.package, ()), "function")
        expect(isinstance(self._function, np.ufunc), "function")
        self._n = widths[0]
        return widths[0]

    @cached_property
    def _function(self) -> Any:
        if self.package == "numpy":
            return getattr(np, self.name)
        from scipy import special

        return getattr(special, self.name, None)

    def __call__(self, *inputs: Array) -> Array:
        with np.errstate(all="ignore"):
            made: Array = self._function(inputs[0])
        return made

    def edges(self) -> Sequence[Edge]:
        return [every_column(self._n, _EDGES[self.name])] if self.name in _EDGES else []


class Normalize(Node, tag="normalize"):
    """Each row divided by its norm; a row of norm 0 stays (`normalize` of sklearn/preprocessing/_data.py).

    Parameters
    ----------
    norm : {"l1", "l2", "max"}
    is_sparse : bool, default False
        Whether scikit-learn has a sparse matrix there, whose norms it takes for 0 only where they are.
    """

    rounds: ClassVar[bool] = True

    norm: str
    is_sparse: bool = False

    def width(self, *widths: int) -> int:
        expect(len(widths) == 1 and widths[0] > 0 and self.norm in _NORMS, "normalize")
        return widths[0]

    def __call__(self, *inputs: Array) -> Array:
        X = inputs[0]
        norms = _NORMS[self.norm](X)
        # `_handle_zeros_in_scale` of the same file takes for 0 what is this close to it
        is_zero = norms == 0 if self.is_sparse else norms < 10 * np.finfo(np.float64).eps
        return X / np.where(is_zero, 1.0, norms)[:, None]


_NORMS: dict[str, Callable[[Array], Array]] = {
    "l1": lambda X: np.abs(X).sum(axis=1),
    "l2": lambda X: np.sqrt(np.einsum("ij,ij->i", X, X)),
    "max": lambda X: np.abs(X).max(axis=1),
}


def every_column(n: int, constants: Array) -> Edge:
    """The edge of a node that compares each of n columns with the same constants."""
    return Edge(np.repeat(np.arange(n), len(constants)), np.tile(constants, n))
