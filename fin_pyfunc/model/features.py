"""What a model takes: names, types and nulls of its features, fixed when it is logged.

Rows (mappings, as JSON carries them) or a DataFrame go in; out comes the table a backend scores, or one FeatureError
that names every feature of every row that was refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, cast

import msgspec
import numpy as np
import pandas as pd

from fin_pyfunc.model import errors
from fin_pyfunc.model.errors import FeatureError, Problem
from fin_pyfunc.model.feature import MISSING, NUMERIC, Feature, Refused
from fin_pyfunc.model.problems import Problems
from fin_pyfunc.model.rows import RowReader, reads
from fin_pyfunc.model.training_column import infer_feature

#: One row as a client sends it: by name, or in training order.
Row = Mapping[str, Any] | Sequence[Any]
#: What a backend scores: a float64 matrix (n_rows, n_features) where every value is a number or has a code, else a
#: DataFrame.
Table = np.ndarray[Any, np.dtype[np.float64]] | pd.DataFrame


class FeatureSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """The features of a model, in the order it was trained on.

    Parameters
    ----------
    features : list of Feature
        In training order.
    identifiers : list of str, default []
        Columns that are accepted and never scored, such as ``bar_id``.
    extra : {"ignore", "forbid"}, default "ignore"
        What becomes of a column that is neither a feature nor an identifier.
    naming : {"exact", "blanks", "positions"}, default "exact"
        How features are named in a row: by their names; by these with or without the underscores that LightGBM writes
        for blanks; or, for a model that knows no names, by position, in a list or as "0", "1", ….
    """

    features: list[Feature]
    identifiers: list[str] = []
    extra: Literal["ignore", "forbid"] = "ignore"
    naming: Literal["exact", "blanks", "positions"] = "exact"

    def __post_init__(self) -> None:
        if len(set(self.names)) < len(self.names) or not all(isinstance(name, str) for name in self.names):
            raise ValueError("a feature's name is there twice, or is no text")

    @cached_property
    def names(self) -> list[str]:
        """Feature names in training order."""
        return [feature.name for feature in self.features]

    @cached_property
    def is_numeric(self) -> bool:
        """Whether every value is a number, so that a table is always a matrix, and holds the values themselves."""
        return all(feature.kind in NUMERIC for feature in self.features)

    @cached_property
    def is_coded(self) -> bool:
        """Whether some features are text or categories, and a matrix holds codes of their values.

        A table is then a matrix, or a DataFrame where it holds a text without a code.
        """
        return not self.is_numeric and all(f.kind in NUMERIC or f.codes is not None for f in self.features)

    @cached_property
    def is_untyped(self) -> bool:
        """Whether a column may hold values of several types."""
        return any(feature.kind == "any" for feature in self.features)

    @cached_property
    def reader(self) -> RowReader | None:
        """What reads rows in one pass; None where a matrix does not hold every feature."""
        if not reads(self.features, self.identifiers):
            return None
        return RowReader(self.features, self.identifiers, self.extra == "forbid")

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.names) | frozenset(self.identifiers)

    def table(self, rows: Sequence[Row]) -> Table:
        """Check rows as a client sends them.

        Parameters
        ----------
        rows : sequence of mapping, or of sequence
            Feature name to number, text, boolean or None; key order does not matter. Of a model that knows no names,
            the values in training order.

        Returns
        -------
        ndarray of shape (n_rows, n_features), float64, or DataFrame
            A matrix where every value is a number or has a code, else a DataFrame of the training dtypes.

        Raises
        ------
        FeatureError
            Naming every bad feature of every bad row.
        """
        if self.reader is not None and (matrix := self.reader.convert(rows)) is not None:
            return matrix
        rows = self._keyed(rows)
        found = Problems()
        values = [self._row(i, row, found) for i, row in enumerate(rows)]
        found.raise_if_any(lambda i: self._unknown(rows[i]))
        if self.is_numeric:
            return np.array(values, dtype=np.float64).reshape(len(rows), len(self.features))
        columns = zip(*values, strict=True) if values else ([] for _ in self.features)
        return self._of_columns(dict(zip(self.names, map(list, columns), strict=True)))

    def check(self, frame: pd.DataFrame) -> Table:
        """Check a DataFrame; the counterpart of `table` for whole columns.

        Parameters
        ----------
        frame : DataFrame of shape (n_rows, any)
            Columns in any order.

        Returns
        -------
        ndarray of shape (n_rows, n_features), float64, or DataFrame

        Raises
        ------
        FeatureError
        """
        found = Problems()
        every_row = range(max(len(frame), 1))  # a table without rows may still be the wrong table
        frame = self._named(frame)
        if self.extra == "forbid":
            for name in frame.columns:
                if name not in self._known:
                    found.add_all(every_row, str(name), errors.UNKNOWN)
        columns: dict[str, Any] = {}
        for feature in self.features:
            if feature.name not in frame.columns:
                if feature.optional:
                    columns[feature.name] = [feature.read(MISSING)] * len(frame)
                else:
                    found.add_all(every_row, feature.name, errors.MISSING)
                continue
            column: Any = frame[feature.name]
            if isinstance(column, pd.DataFrame):
                found.add_all(every_row, feature.name, "there more than once")
                continue
            try:
                columns[feature.name] = feature.column(column)
            except Refused:
                values = feature.values(column)
                columns[feature.name] = [_read(feature, value, i, found) for i, value in enumerate(values)]
        found.raise_if_any(lambda _: self._unknown(frame.columns))
        return self._of_columns(columns, frame.index) if self.names else np.empty((len(frame), 0))

    def reads_as(self, other: FeatureSpec) -> bool:
        """Whether what the other makes a matrix of these make the same matrix of, as far as they take it at all."""
        ours, theirs = ([(f.name, f.kind, f.optional, f.codes) for f in spec.features] for spec in (self, other))
        is_matrix = self.is_numeric or self.is_coded
        return is_matrix and repr(ours) == repr(theirs) and all(f.known is None for f in self.features)

    def check_matrix(self, matrix: np.ndarray[Any, np.dtype[np.float64]]) -> None:
        """Check what features that `reads_as` likens to these have read.

        Parameters
        ----------
        matrix : ndarray of shape (n_rows, n_features), float64

        Raises
        ------
        FeatureError
            A null, or a number, that these do not take.
        """
        least, greatest, nullable = self._bounds
        taken = (matrix >= least) & (matrix <= greatest) | (np.isnan(matrix) & nullable)
        if not taken.all():
            found = Problems()
            for row, i in np.argwhere(~taken).tolist():
                found.add(row, self.names[i], "null, or beyond its training dtype")
            found.raise_if_any()

    def restore(self, table: Table) -> pd.DataFrame:
        """The table as the DataFrame the estimator was trained on: names, order and dtypes."""
        if self.is_coded:
            table = self.decode(table)
        if isinstance(table, pd.DataFrame):
            return table.set_axis(self._columns, axis=1) if self.has_numbers_for_names else table
        frame = pd.DataFrame(table, columns=self._columns, copy=False)
        return frame.astype(self._casts) if self._casts else frame

    def decode(self, table: Table) -> Table:
        """The table with values in place of codes: the DataFrame that it would be if no feature had codes.

        A code beyond its dictionary stands for a value that is not in it.
        """
        if isinstance(table, pd.DataFrame) or not self.is_coded:
            return table
        return self._frame({name: table[:, i] for i, name in enumerate(self.names)})

    def encode(self, table: Table) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The table as a matrix; a text without a code is as many as its feature has codes.

        Parameters
        ----------
        table : ndarray of shape (n_rows, n_features) or DataFrame
            As `table` and `check` give it.

        Raises
        ------
        ValueError, TypeError
            It is another table, and holds something else.
        """
        if isinstance(table, np.ndarray):
            return table
        columns = zip(self.features, table.items(), strict=True)
        return np.column_stack([feature.encode(column) for feature, (_, column) in columns])

    @cached_property
    def _bounds(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        limits = np.array([feature.limits for feature in self.features]).reshape(-1, 2)
        return limits[:, 0], limits[:, 1], np.array([feature.nullable for feature in self.features], dtype=bool)

    @cached_property
    def is_float64(self) -> bool:
        """Whether the estimator was trained on float64 columns alone."""
        return self.is_numeric and not self._casts

    @cached_property
    def has_numbers_for_names(self) -> bool:
        """Whether columns of the training data were named by integers."""
        return any(feature.number is not None for feature in self.features)

    @cached_property
    def _columns(self) -> pd.Index[Any]:
        return pd.Index([feature.name if feature.number is None else feature.number for feature in self.features])

    @cached_property
    def _casts(self) -> dict[Any, Any]:
        return {
            column: feature.pandas_dtype
            for column, feature in zip(self._columns, self.features, strict=True)
            if feature.dtype != "float64"
        }

    def _of_columns(self, columns: Mapping[str, Any], index: pd.Index[Any] | None = None) -> Table:
        """Checked columns as a table."""
        if self.is_numeric or self.is_coded:
            held = [feature.encode(columns[feature.name]) for feature in self.features]
            without = (f.dictionary is not None and (c == f.dictionary.unknown).any()
                       for f, c in zip(self.features, held, strict=True))  # fmt: skip
            if not any(without):
                return np.column_stack(held)
        return self._frame(columns, index)

    def _frame(self, columns: Mapping[str, Any], index: pd.Index[Any] | None = None) -> pd.DataFrame:
        if index is None:  # one for all: pandas would compare those of any two columns
            index = pd.RangeIndex(len(columns[self.names[0]]))
        return pd.DataFrame({f.name: f.restore(columns[f.name], index) for f in self.features}, index=index)

    def _keyed(self, rows: Sequence[Row]) -> Sequence[Mapping[str, Any]]:
        """Rows by the names that features have here.

        Raises
        ------
        FeatureError
            A row is a list where features have names, of another length than there are features, or named where they
            have none.
        """
        lists = [i for i, row in enumerate(rows) if not isinstance(row, Mapping)]
        if self.naming != "positions":
            if lists:
                hint = "a row is a list, and this model knows its features by name: send an object of name to value"
                raise FeatureError([], len(lists), lists, hint)
            named = cast(Sequence[Mapping[str, Any]], rows)
            return named if self.naming == "exact" else [self._with_blanks(i, row) for i, row in enumerate(named)]
        width = len(self.features)
        if odd := [i for i in lists if len(rows[i]) != width]:
            raise FeatureError([], len(odd), odd, f"a row has another number of values than {width}: {self.in_order}")
        keyed = [row if isinstance(row, Mapping) else dict(zip(self.names, row, strict=True)) for row in rows]
        if width == 1:  # one value cannot be mistaken for another
            keyed = [row if len(row) != 1 else {self.names[0]: value} for row in keyed for value in [*row.values()][:1]]
        found = Problems(self.in_order)
        for i, row in enumerate(keyed):
            if any(name not in row for name in self.names):
                unknown = [str(name) for name in row if name not in self.names]
                for name in unknown or [name for name in self.names if name not in row]:
                    found.add(i, name, "unknown to this model" if unknown else "missing")
        found.raise_if_any()
        return keyed

    def _named(self, frame: pd.DataFrame) -> pd.DataFrame:
        """A DataFrame with its columns named as features are here; raises FeatureError where they cannot be told."""
        if not all(isinstance(name, str) for name in frame.columns):
            frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
        if self.naming == "blanks":
            return frame.set_axis([self._spelled.get(rewritten(name), name) for name in frame.columns], axis=1)
        if self.naming == "positions":
            if len(self.names) == len(frame.columns) == 1:
                return frame.set_axis(self.names, axis=1)
            if not set(self.names) <= set(frame.columns):
                found = Problems(self.in_order)
                unknown = [name for name in frame.columns if name not in self.names]
                for name in unknown or [name for name in self.names if name not in frame.columns]:
                    found.add_all(range(max(len(frame), 1)), name, "unknown to this model" if unknown else "missing")
                found.raise_if_any()
        return frame

    def _with_blanks(self, i: int, row: Mapping[str, Any]) -> Mapping[str, Any]:
        keyed: dict[str, Any] = {}
        for key, value in row.items():
            name = self._spelled.get(rewritten(key), key)
            if name in keyed:
                raise FeatureError([Problem(i, name, "given more than once")])
            keyed[name] = value
        return keyed

    def feature_of(self, column: str) -> Feature | None:
        """The feature that a column of a table is."""
        return self._by_name.get(self._spelled.get(rewritten(column), column) if self.naming == "blanks" else column)

    @cached_property
    def _by_name(self) -> dict[str, Feature]:
        return {feature.name: feature for feature in self.features}

    @cached_property
    def _spelled(self) -> dict[str, str]:
        return {rewritten(name): name for name in self.names}

    @property
    def in_order(self) -> str:
        """What to do about rows of a model that knows no names."""
        return (
            f"this model knows no names of its features: send each row as a list of its {len(self.names)} values in "
            'training order (columns of a table as "0", "1", …), or log the model again with named columns'
        )

    def _unknown(self, names: Iterable[Any]) -> Iterator[Any]:
        """Names that are neither a feature nor an identifier."""
        return (name for name in names if name not in self._known)

    def _row(self, i: int, row: Mapping[str, Any], found: Problems) -> list[Any]:
        if self.extra == "forbid":
            for name in row:
                if name not in self._known:
                    found.add(i, str(name), errors.UNKNOWN)
        return [_read(feature, row.get(feature.name, MISSING), i, found) for feature in self.features]


def infer(
    X: pd.DataFrame, identifiers: Sequence[str] = (), extra: Literal["ignore", "forbid"] = "ignore"
) -> FeatureSpec:
    """Read the features of a model off a sample of its training data.

    Parameters
    ----------
    X : DataFrame of shape (n_rows, n_features + n_identifiers)
        Training rows. A feature may be null in a request only where it is null here.
    identifiers : sequence of str, default ()
        Columns to accept and never score; they need not be in `X`.
    extra : {"ignore", "forbid"}, default "ignore"

    Returns
    -------
    FeatureSpec

    Raises
    ------
    ValueError
        A column's type cannot be sent as JSON; the message says which and what to do.
    """
    features = [infer_feature(str(name), X[name]) for name in X.columns if name not in identifiers]
    return FeatureSpec(features=features, identifiers=list(identifiers), extra=extra)


def _read(feature: Feature, value: Any, i: int, found: Problems) -> Any:
    try:
        return feature.read(value)
    except Refused as refused:
        found.add(i, feature.name, str(refused))
        return None


def rewritten(name: str) -> str:
    """A name as LightGBM writes it."""
    return name.replace(" ", "_")
