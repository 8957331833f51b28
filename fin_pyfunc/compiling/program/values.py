"""What flows from step to step while a program is built."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fin_pyfunc.model.program.columns import Concat, Select
from fin_pyfunc.model.program.node import Node
from fin_pyfunc.model.program.program import Step


class Column(NamedTuple):
    """One column of a value.

    Parameters
    ----------
    values : tuple or None, default None
        What its codes stand for, where it holds codes; None for a column of numbers.
    null : object, default NaN
        What a missing value of it is to scikit-learn: NaN or None.
    name : str or None, default None
        The feature that it is, where it still is one.
    dtype : str, default "float64"
        What scikit-learn has there: functions of NumPy's make float16 of small integers and booleans.
    """

    values: tuple[Any, ...] | None = None
    null: Any = float("nan")
    name: str | None = None
    dtype: str = "float64"


NUMBER = Column()


class Value(NamedTuple):
    """A matrix that a program makes on the way.

    Parameters
    ----------
    at : int
        Its number in the program: 0 is the rows.
    columns : tuple of Column
    is_sparse : bool, default False
        Whether scikit-learn has a sparse matrix there, in which a 0 is not stored.
    is_rounded : bool, default False
        Whether a node on the way `rounds`: what jumps at a constant, such as a tree, may then be on its other side.
    """

    at: int
    columns: tuple[Column, ...]
    is_sparse: bool = False
    is_rounded: bool = False

    @property
    def width(self) -> int:
        """How many columns it has."""
        return len(self.columns)

    @property
    def has_codes(self) -> bool:
        """Whether a column holds codes rather than numbers."""
        return any(column.values is not None for column in self.columns)


class Builder:
    """A program in the making.

    Parameters
    ----------
    transform : callable
        Builds what one fitted transformer makes of a value: ``transform(builder, transformer, value) -> Value``; raises
        NotCompilable. A step that holds others (a ColumnTransformer) calls it for those.
    """

    def __init__(self, transform: Callable[[Builder, Any, Value], Value]) -> None:
        self.steps: list[Step] = []
        #: of `require`: number of a value, whether it may be missing, and the greatest number
        self.required: list[tuple[int, bool, float]] = []
        self._transform = transform

    def transform(self, transformer: Any, value: Value) -> Value:
        """Add a fitted transformer's steps; returns what they make of a value."""
        return self._transform(self, transformer, value)

    def require(self, value: Value, *, takes_missing: bool, greatest: float = math.inf) -> None:
        """Leave to the estimator the rows of which a value is infinite, greater than this, or missing."""
        self.required.append((value.at, takes_missing, greatest))

    def add(
        self, node: Node, *of: Value, columns: Sequence[Column] | None = None, is_sparse: bool | None = None
    ) -> Value:
        """Add a node.

        Parameters
        ----------
        node : Node
        *of : Value
            Its inputs.
        columns : sequence of Column, optional
            What it makes; default numbers, as many as the node says.
        is_sparse : bool, optional
            Default whether the first input is.
        """
        self.steps.append(Step(of=tuple(value.at for value in of), node=node))  # type: ignore[arg-type] # one of the union
        width = node.width(*(value.width for value in of))
        made = (NUMBER,) * width if columns is None else tuple(columns)
        is_rounded = node.rounds or any(value.is_rounded for value in of)
        return Value(len(self.steps), made, of[0].is_sparse if is_sparse is None else is_sparse, is_rounded)

    def select(self, value: Value, positions: Sequence[int]) -> Value:
        """Some columns of a value, in this order."""
        if list(positions) == list(range(value.width)):
            return value
        node = Select(columns=np.array(positions, dtype=np.int64))
        return self.add(node, value, columns=[value.columns[i] for i in positions])

    def concat(self, values: Sequence[Value], is_sparse: bool = False) -> Value:
        """Values side by side."""
        if len(values) == 1:
            return values[0]._replace(is_sparse=is_sparse)
        return self.add(
            Concat(), *values, columns=[column for value in values for column in value.columns], is_sparse=is_sparse
        )
