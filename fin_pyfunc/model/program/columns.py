"""Choosing columns, and putting them side by side."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from fin_pyfunc.model.program.node import MAX_WIDTH, Array, Node, expect


class Select(Node, tag="select"):
    """Some columns of the input, in this order (of a ColumnTransformer, or a selector of features).

    Parameters
    ----------
    columns : ndarray of shape (n,), int64
    """

    columns: np.ndarray

    def width(self, *widths: int) -> int:
        expect(len(widths) == 1 and self.columns.dtype == np.int64 and self.columns.ndim == 1, "select")
        expect(len(self.columns) <= MAX_WIDTH, "select")
        expect(bool(((self.columns >= 0) & (self.columns < widths[0])).all()), "select")
        return len(self.columns)

    @cached_property
    def _chosen(self) -> Any:
        """A slice where the columns follow each other: no copy is made then."""
        first = int(self.columns[0]) if len(self.columns) else 0
        is_run = (self.columns == np.arange(first, first + len(self.columns))).all()
        return slice(first, first + len(self.columns)) if is_run else self.columns

    def __call__(self, *inputs: Array) -> Array:
        chosen: Array = inputs[0][:, self._chosen]
        return chosen


class Concat(Node, tag="concat"):
    """All inputs side by side (ColumnTransformer, FeatureUnion)."""

    def width(self, *widths: int) -> int:
        expect(0 < sum(widths) <= MAX_WIDTH, "concat")
        return sum(widths)

    def __call__(self, *inputs: Array) -> Array:
        return np.concatenate(inputs, axis=1)
