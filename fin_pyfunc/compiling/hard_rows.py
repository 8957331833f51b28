"""Rows at every constant that a compiled form compares with, and one step to either side of it.

A constant behind other operations, such as a scaler, is followed back to the features by the form itself: one feature
is moved until what is compared passes the constant, and the two float64 numbers are found between which it does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from fin_pyfunc.compiling.comparisons import Comparison
from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.trees import Array

#: Most constants that are tried out, of trees and of everything else; of more than that, so many are drawn.
TREE_CONSTANTS, CONSTANTS = 200, 1000
#: Most values, of all constants tried out at once, and of one call: what compares each number with a thousand others
#: (QuantileTransformer) is tried out at fewer of them.
_VALUES, _VALUES_AT_ONCE = 1_000_000, 4_000_000
_LEAST_CONSTANTS = 20
#: Whole numbers of one column that are tried out where a value is cut off to one.
_WHOLE_NUMBERS = 12
#: How far from 0 a feature is moved: its cubes are finite, too.
_FAR = 1e30
#: A value passes a constant without a jump where it is no further from it than this, relative to its size.
_NEAR = 1e-9


class HardRows(NamedTuple):
    """Rows that tell a form from its estimator, if anything does.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, n_features), float64
    below, above : ndarray of shape (n, n_features), float64
        Neighbours between which a value that is rounded passes a constant without a jump: nobody can say on which side
        of it the estimator is.
    """

    rows: Array
    below: Array
    above: Array


def hard_rows(
    run: Callable[[Array], Sequence[Array]], found: Sequence[Comparison], plain: Array, is_fixed: Array | None = None
) -> HardRows:
    """Make the rows for a form.

    Parameters
    ----------
    run : callable
        Rows to the value of each comparison, each of shape (n_rows, ...).
    found : sequence of Comparison
        The form's own.
    plain : ndarray of shape (n_rows, n_features), float64
        Rows of the sample; each hard row is one of them but for one feature.
    is_fixed : ndarray of shape (n_features,), bool, optional
        Features that are not moved: codes, between which there is nothing.

    Raises
    ------
    NotCompilable
        What is compared cannot be told row by row.
    """
    none = np.empty((0, plain.shape[1]))
    if not found:
        return HardRows(none, none, none)
    rng = np.random.default_rng(0)
    compared = _Compared(run, plain[:1])
    if not sum(compared.widths):  # no feature has an edge
        return HardRows(none, none, none)
    targets = _targets(compared, found, plain, rng)
    if not len(targets):
        return HardRows(none, none, none)
    targets = np.repeat(targets, 2, axis=0)  # of the step to the constant, and of the step from it on
    column, constant, is_rounded = targets[:, 0].astype(np.int64), targets[:, 1], targets[:, 2] != 0
    base = plain[rng.integers(len(plain), size=len(targets))]
    fixed = np.zeros(plain.shape[1], dtype=bool) if is_fixed is None else is_fixed
    feature, is_moved = _moved_by(compared, column, plain, fixed, rng)
    below, above, passes = _passed(compared, base, feature, column, constant)
    passes &= is_moved
    low, high = below[np.arange(len(base)), feature], above[np.arange(len(base)), feature]
    single_low, single_high = low.astype(np.float32), high.astype(np.float32)
    values = [
        low, high, np.nextafter(low, -np.inf), np.nextafter(high, np.inf), low - 1e-9, high + 1e-9, low - 1, high + 1,
        np.nextafter(single_low, np.float32(-np.inf)), np.nextafter(single_high, np.float32(np.inf)),
    ]  # fmt: skip
    rows = []
    for value in values:
        row = base.copy()
        row[np.arange(len(base)), feature] = value
        rows.append(row[passes])
    seen = [compared.at(side, column) for side in (below, above)]
    is_near = np.all([abs(value - constant) <= _NEAR * np.maximum(1, abs(constant)) for value in seen], axis=0)
    unknown = passes & is_near & is_rounded
    return HardRows(np.vstack(rows), below[unknown], above[unknown])


class _Compared:
    """What a form compares, with the values of each comparison side by side."""

    def __init__(self, run: Callable[[Array], Sequence[Array]], row: Array) -> None:
        self._run = run
        #: of each comparison, for one row
        self.shapes = [np.shape(value) for value in self._run(row)]
        self.widths = [int(np.prod(shape)) for shape in self.shapes]

    def __call__(self, rows: Array) -> Array:
        """Every value, of shape (n_rows, n_columns)."""
        values = [np.asarray(value, dtype=np.float64) for value in self._run(rows)]
        if [value.size for value in values] != [len(rows) * width for width in self.widths]:
            raise NotCompilable("it compares values that are not a row's own")
        return np.hstack([value.reshape(len(rows), -1) for value in values])

    def at(self, rows: Array, column: Array) -> Array:
        """One value a row, of shape (n_rows,)."""
        parts = [np.empty(0)]
        for start in range(0, len(rows), self.at_once):
            some = slice(start, start + self.at_once)
            values = self(rows[some])
            parts.append(values[np.arange(len(values)), column[some]])
        return np.concatenate(parts)

    @property
    def at_once(self) -> int:
        """Rows of one call."""
        return max(3, _VALUES_AT_ONCE // sum(self.widths))


def _targets(compared: _Compared, found: Sequence[Comparison], plain: Array, rng: np.random.Generator) -> Array:
    """One line a constant: the column that is compared with it, the constant, and whether the column is rounded."""
    seen = compared(plain[: compared.at_once])
    _check_by_row(compared, plain, seen)
    starts = np.cumsum([0, *compared.widths])
    trees: list[Array] = []
    others: list[Array] = []
    for each, shape, start, end in zip(found, compared.shapes, starts[:-1], starts[1:], strict=True):
        position = np.arange(end - start)
        if each.column is not None and each.constant is not None:
            column, constant = each.column, each.constant
        elif each.constant is not None:
            column, constant = (of.ravel() for of in np.broadcast_arrays(position.reshape(shape), each.constant))
        else:
            column, constant = _whole_numbers(seen[:, start:end], each.shift, rng)
        lines = np.column_stack([column + start, constant, np.full(len(constant), float(each.is_rounded))])
        (trees if each.is_tree else others).append(lines[np.isfinite(constant)])
    most = max(_LEAST_CONSTANTS, _VALUES // int(starts[-1]))
    drawn = [_at_most(lines, min(n, most), rng) for lines, n in ((others, CONSTANTS), (trees, TREE_CONSTANTS))]
    return np.vstack(drawn)


def _at_most(lines: list[Array], n: int, rng: np.random.Generator) -> Array:
    if not lines:
        return np.empty((0, 3))
    every = np.unique(np.vstack(lines), axis=0)
    return every if len(every) <= n else every[rng.choice(len(every), n, replace=False)]


def _check_by_row(compared: _Compared, plain: Array, seen: Array) -> None:
    few = seen[:3]
    alone = np.vstack([compared(plain[i : i + 1]) for i in range(len(few))])
    if alone.shape != few.shape or not np.allclose(alone, few, rtol=1e-6, atol=1e-9, equal_nan=True):
        raise NotCompilable("it compares values that are not a row's own")


def _whole_numbers(seen: Array, shift: float, rng: np.random.Generator) -> tuple[Array, Array]:
    column, constant = [], []
    for i, values in enumerate(seen.T):
        known = values[np.isfinite(values)]
        if len(known):
            near = np.unique(np.round(known)[:, None] + np.array([-1.0, 0.0, 1.0]))
            near = near if len(near) <= _WHOLE_NUMBERS else rng.choice(near, _WHOLE_NUMBERS, replace=False)
            constant.append(near + shift)
            column.append(np.full(len(near), i))
    if not column:
        return np.empty(0, dtype=np.int64), np.empty(0)
    return np.concatenate(column), np.concatenate(constant)


def _moved_by(
    compared: _Compared, column: Array, plain: Array, is_fixed: Array, rng: np.random.Generator
) -> tuple[Array, Array]:
    """For each column one of the features that it depends on, and whether there is one."""
    n = plain.shape[1]
    probes = np.repeat(plain[:1], 3 * n + 1, axis=0)
    for i in range(n):
        known = plain[np.isfinite(plain[:, i]), i]
        near = known.mean() + known.std() + 1 if len(known) else 1.0
        probes[3 * i : 3 * i + 3, i] = (-_FAR, _FAR, near)
    probes, step = np.nan_to_num(probes), compared.at_once
    values = np.vstack([compared(probes[i : i + step])[:, column] for i in range(0, len(probes), step)])
    moved = np.any([(values[k:-1:3] != values[-1]) for k in range(3)], axis=0)
    moved[is_fixed] = False
    chosen = (moved * rng.random(moved.shape)).argmax(axis=0)
    return chosen, moved.any(axis=0)


def _passed(
    compared: _Compared, base: Array, feature: Array, column: Array, constant: Array
) -> tuple[Array, Array, Array]:
    """Rows between which a column passes its constant, as one feature moves by one step of float64, and whether any do.

    Every other row is of the step from the constant on: a value may be at it for many steps.
    """
    at = np.arange(len(base))
    strict = at % 2 == 1

    def values(of: Array, which: Array) -> Array:
        rows = base[which]
        rows[np.arange(len(which)), feature[which]] = of
        return compared.at(rows, column[which])

    def beyond(of: Array, which: Array = at) -> Array:
        got = values(of, which)
        found: Array = np.where(strict[which], got > constant[which], got >= constant[which])
        return found

    own = base[at, feature]
    low, high = np.full(len(base), -_FAR), np.full(len(base), _FAR)
    start, at_low, at_high = beyond(own), beyond(low), beyond(high)
    # between an end and the row's own value where the two ends are on one side
    inner = (at_low == at_high) & (start != at_low)
    passes = (at_low != at_high) | inner
    lower, upper = _ordinal(low), _ordinal(np.where(inner, own, high))
    # at the constant itself, and where a straight line has it: what lies between is most often nothing, or a scaler
    one, two = values(own, at), values(own + 1, at)
    line = own + (constant - one) / np.where(two == one, 1, two - one)
    for guess in (constant, line):
        for step in (1, 1 << 12, 1 << 24):
            near = _ordinal(np.clip(np.nan_to_num(guess), -_FAR, _FAR))
            for ordinal in (near - step, near + step):
                inside = (ordinal > lower) & (ordinal < upper)
                is_below = beyond(_float(np.where(inside, ordinal, lower))) == at_low
                lower = np.where(inside & is_below, ordinal, lower)
                upper = np.where(inside & ~is_below, ordinal, upper)
    while len(which := np.flatnonzero(passes & (upper > lower + 1))):
        middle = (lower[which] >> 1) + (upper[which] >> 1) + (lower[which] & upper[which] & 1)
        is_below = beyond(_float(middle), which) == at_low[which]
        lower[which], upper[which] = np.where(is_below, middle, lower[which]), np.where(is_below, upper[which], middle)
    below, above = base.copy(), base.copy()
    below[at, feature], above[at, feature] = _float(lower), _float(upper)
    return below, above, passes


def _ordinal(value: Array) -> Array:
    """Whole numbers in the order of the floats, neighbours for neighbours."""
    bits = np.ascontiguousarray(value, dtype=np.float64).view(np.int64)
    return np.where(bits >= 0, bits, np.iinfo(np.int64).min - bits)


def _float(ordinal: Array) -> Array:
    bits = np.where(ordinal >= 0, ordinal, np.iinfo(np.int64).min - ordinal)
    return np.ascontiguousarray(bits).view(np.float64)
