"""One operation of a program, and how its arrays are written to a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
import numpy as np

from fin_pyfunc.model.soundness.trees import forged

Array = np.ndarray[Any, Any]
#: Types of arrays that a file may hold, little-endian.
_DTYPES = frozenset({"<f8", "<i8", "|b1"})
#: Most columns that an operation may make: a row of them takes a megabyte.
MAX_WIDTH = 1 << 17


class Edge(msgspec.Struct, frozen=True):
    """Where a node's answer jumps: one column of one of its inputs passes a constant.

    Parameters
    ----------
    column : ndarray of shape (n,), int64
        Columns of the input.
    constant : ndarray of shape (n,), float64
    of : int, default 0
        Which input.
    is_tree : bool, default False
        Whether these are thresholds of trees, of which there may be very many.
    """

    column: np.ndarray
    constant: np.ndarray
    of: int = 0
    is_tree: bool = False


class Node(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, dict=True, eq=False):
    """An operation on float64 matrices of as many rows; a subclass is one kind, named by its tag in a file.

    A node may answer NaN for a row that it cannot vouch for; every node hands that on, so that the row is asked of the
    estimator itself.
    """

    #: Whether what it makes may differ from scikit-learn's in the last bits, such as a product of matrices.
    rounds: ClassVar[bool] = False

    def width(self, *widths: int) -> int:
        """Check the node against the numbers of columns that its inputs have.

        Returns
        -------
        int
            How many columns it makes.

        Raises
        ------
        ArtifactError
            Its numbers do not fit together, or the inputs; what has passed never reads outside of an array.
        """
        raise NotImplementedError

    def __call__(self, *inputs: Array) -> Array:
        """The node's own columns, of shape (n_rows, width), of inputs of shape (n_rows, their width).

        An input is never changed: another node may read it, too.
        """
        raise NotImplementedError

    def edges(self) -> Sequence[Edge]:
        """Every constant that the node compares a column of an input with."""
        return ()


def expect(is_so: bool, what: str) -> None:
    """Raise the error of a forged file unless the condition holds."""
    if not is_so:
        raise forged(f"a step ({what}) whose numbers do not fit together")


def to_builtins(value: Any) -> Any:
    """An array as msgspec writes it: [type, shape, bytes]."""
    if isinstance(value, np.ndarray):
        plain = np.ascontiguousarray(value)
        return [plain.dtype.newbyteorder("<").str, list(plain.shape), plain.tobytes()]
    raise NotImplementedError(f"{type(value).__name__} is not written to a program")


def from_builtins(kind: type, value: Any) -> Any:
    """The array of what `to_builtins` made; raises ValueError where it is none."""
    if kind is not np.ndarray:
        raise NotImplementedError(f"{kind.__name__} is not read from a program")
    dtype, shape, content = value
    if dtype not in _DTYPES or not all(type(n) is int and 0 <= n < 1 << 40 for n in shape) or len(shape) > 2:
        raise ValueError("no array of a program")
    return np.frombuffer(content, dtype=dtype).reshape(shape)
