"""DataFrames as the matrix of numbers and codes that a program takes, and what it makes of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from fin_pyfunc.compiling.program.build import _transform
from fin_pyfunc.compiling.program.feature_columns import column_of
from fin_pyfunc.compiling.program.requirements import vouched
from fin_pyfunc.compiling.program.values import Builder, Column, Value
from fin_pyfunc.model.features import infer
from fin_pyfunc.model.program.columns import Select
from fin_pyfunc.model.program.program import Program, read, written

Array = np.ndarray[Any, Any]


def columns_of(train: pd.DataFrame, texts: Iterable[str] = ()) -> tuple[Column, ...]:
    """The columns of a table; the dictionary of each column of text has its own texts, and some more."""
    columns = []
    for feature in infer(train).features:
        if feature.kind != "string":
            columns.append(column_of(feature))
            continue
        known = sorted({*train[feature.name].dropna(), *texts})
        null = None if feature.none_is_null else np.nan
        columns.append(Column(tuple(known), null, feature.name, None, feature.nullable))
    return tuple(columns)


def matrix_of(rows: pd.DataFrame, columns: Iterable[Column]) -> Array:
    """Rows with a code for each text and category."""
    made = np.empty(rows.shape)
    for i, column in enumerate(columns):
        values = rows.iloc[:, i]
        if column.values is None:
            made[:, i] = values.to_numpy(dtype=np.float64, na_value=np.nan)
            continue
        codes = {value: float(code) for code, value in enumerate(column.values)}
        made[:, i] = [np.nan if pd.isna(value) else codes.get(value, len(codes)) for value in values]
    return made


def program_of(transformer: Any, columns: tuple[Column, ...]) -> Program:
    """The program of a fitted transformer, as it is read from a file."""
    builder = Builder(_transform)
    value = builder.transform(transformer, Value(0, columns))
    if not value.at:
        value = builder.add(Select(columns=np.arange(len(columns))), value)
    value = vouched(builder, value, np.array([column.nullable for column in columns]))
    return read(written(Program(n_features=len(columns), steps=builder.steps_to(value))), value.width)


def transformed(transformer: Any, rows: pd.DataFrame) -> Array | None:
    """What scikit-learn makes of rows; None where it refuses them."""
    try:
        made = transformer.transform(rows)
    except ValueError:
        return None
    return np.asarray(made.toarray() if sparse.issparse(made) else made, dtype=np.float64)


def assert_as_transformed(transformer: Any, train: pd.DataFrame, rows: pd.DataFrame, texts: Iterable[str] = ()) -> None:
    """Hold a program to its transformer, each row alone and all at once: to the last bit, NaN where one is refused."""
    columns = columns_of(train, texts)
    program, matrix = program_of(transformer, columns), matrix_of(rows, columns)
    found = program(matrix)
    for i in range(len(rows)):
        expected = transformed(transformer, rows.iloc[i : i + 1])
        alone = program(matrix[i : i + 1])
        np.testing.assert_array_equal(alone, found[i : i + 1], strict=True)
        if expected is None:
            assert np.isnan(alone).all()
        else:
            np.testing.assert_array_equal(alone, expected, strict=True)
    if (expected := transformed(transformer, rows)) is not None:
        np.testing.assert_array_equal(found, expected, strict=True)
