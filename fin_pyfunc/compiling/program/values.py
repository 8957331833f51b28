"""What flows from step to step while a program is built."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.model.program.columns import Concat, Select
from fin_pyfunc.model.program.node import Node
from fin_pyfunc.model.program.program import Step


class Column(NamedTuple):
    """One column of a value.

    Parameters
    ----------
    values : tuple or None, default None
        What scikit-learn has there for each code, where the column holds codes; None for a column of numbers. A code
        beyond them stands for any other value, NaN for `null`.
    null : object, default NaN
        What scikit-learn has there for a missing value: NaN, None, or what an imputer put there.
    name : str or None, default None
        The feature that it is, where it still is one.
    possible : frozenset of float or None, default None
        The codes or numbers that may come, NaN aside; None for any.
    nullable : bool, default True
        Whether NaN may come.
    dtype : str, default "float64"
        What scikit-learn has there: functions of NumPy's make float16 of small integers and booleans. Of codes nothing
        is said.
    """

    values: tuple[Any, ...] | None = None
    null: Any = float("nan")
    name: str | None = None
    possible: frozenset[float] | None = None
    nullable: bool = True
    dtype: str = "float64"

    @property
    def can_be_other(self) -> bool:
        """Whether a value may come that has no code."""
        return self.values is not None and (self.possible is None or len(self.values) in self.possible)


NUMBER = Column()
#: What NumPy computes in less than float64 with, alone or together with small whole numbers.
_NARROW, _SMALL = frozenset({"float16", "float32"}), frozenset({"bool", "int8", "int16", "uint8", "uint16"})


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

    @property
    def is_narrow(self) -> bool:
        """Whether scikit-learn computes in less than float64 with it."""
        dtypes = {column.dtype for column in self.columns if column.values is None}
        return bool(dtypes & _NARROW) and dtypes <= _NARROW | _SMALL


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

    def transform(self, transformer: Any, value: Value, name: str | None = None) -> Value:
        """Add a fitted transformer's steps; returns what they make of a value.

        Raises
        ------
        NotCompilable
            The clause names the step, where it has a name.
        """
        try:
            return self._transform(self, transformer, value)
        except NotCompilable as e:
            if name is None or str(e).startswith("the step "):
                raise
            kind = type(transformer).__name__
            raise NotCompilable(f"the step {name!r} ({kind}) {str(e).removeprefix(kind).lstrip()}") from e

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

    def steps_to(self, value: Value) -> list[Step]:
        """The steps that a value takes, which is then the last one; others were added to look at, and are left out."""
        used = {value.at}
        for at in range(value.at, 0, -1):
            if at in used:
                used.update(self.steps[at - 1].of)
        new = {at: i for i, at in enumerate(sorted(used | {0}))}
        kept = [self.steps[at - 1] for at in new if at]
        return [Step(of=tuple(new[at] for at in step.of), node=step.node) for step in kept]

    def select(self, value: Value, positions: Sequence[int]) -> Value:
        """Some columns of a value, in this order."""
        if list(positions) == list(range(value.width)):
            return value
        node = Select(columns=np.array(positions, dtype=np.int64))
        return self.add(node, value, columns=[value.columns[i] for i in positions])

    def replace(self, value: Value, positions: Sequence[int], made: Value) -> Value:
        """A value with the columns of another in place of those at some positions, in ascending order."""
        if len(positions) == value.width:
            return made
        others = sorted(set(range(value.width)) - set(positions))
        both = self.concat([self.select(value, others), made], is_sparse=value.is_sparse)
        return self.select(both, np.argsort([*others, *positions]).tolist())

    def concat(self, values: Sequence[Value], is_sparse: bool = False) -> Value:
        """Values side by side."""
        if len(values) == 1:
            return values[0]._replace(is_sparse=is_sparse)
        return self.add(
            Concat(), *values, columns=[column for value in values for column in value.columns], is_sparse=is_sparse
        )
