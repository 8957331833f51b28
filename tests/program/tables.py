"""Tables of columns of every kind that encoders take, made up for hypothesis."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from hypothesis import strategies as st

#: Texts that are easily taken for something else.
TEXTS = ("a", "b", "ä€", "", " a", "nan", "None", "1", "1.0", "True", "missing", "NA", "x" * 500, "missing_value")
_NUMBERS = (0.0, -0.0, 1.0, 1.5, -7.25, 1e300, 2.0**53)
_TRAINING_ROWS = 12


class Kind:
    """How a column is drawn.

    Parameters
    ----------
    values : tuple
        Of the training rows.
    others : tuple
        That a request may have besides.
    dtype : object
        pandas dtype.
    nulls : tuple
        What may stand for a missing value.
    """

    def __init__(self, values: tuple[Any, ...], others: tuple[Any, ...], dtype: Any, nulls: tuple[Any, ...]) -> None:
        self.values, self.others, self.dtype, self.nulls = values, others, dtype, nulls


KINDS = {
    "object": Kind(TEXTS, ("unknown", "A"), object, (np.nan, None)),
    "str": Kind(TEXTS, ("unknown", "A"), "str", (np.nan,)),
    "category": Kind(("b", "a", "1"), (), pd.CategoricalDtype(["b", "a", "1", "never"]), (np.nan,)),
    "whole category": Kind((2, 1), (), pd.CategoricalDtype([2, 1, 7]), (np.nan,)),
    "category of numbers": Kind((0.5, 1.0), (), pd.CategoricalDtype([1.0, 0.5]), (np.nan,)),
    "int": Kind((0, 1, 2, -3), (5, 2**40), "int64", ()),
    "small int": Kind((0, 1, 2), (5,), "int8", ()),
    "float": Kind(_NUMBERS, (3.0, 1e-300), "float64", (np.nan,)),
    "bool": Kind((True, False), (), "bool", ()),
    "nullable int": Kind((0, 1, 2), (5,), "Int64", (pd.NA,)),
}  # fmt: skip
WORDS = ("object", "str", "category")


@st.composite
def tables(draw: st.DrawFn, kinds: tuple[str, ...] = tuple(KINDS), most: int = 4) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training rows, and rows of requests with values that were not among them."""
    chosen = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=most))
    train, rows = {}, {}
    n = draw(st.integers(1, 8))
    for i, name in enumerate(chosen):
        kind = KINDS[name]
        values = draw(st.lists(st.sampled_from(kind.values), min_size=1, max_size=5))
        null = [draw(st.sampled_from(kind.nulls))] if kind.nulls and draw(st.booleans()) else []
        known = [*values, *null]
        column = [*known, *draw(st.lists(st.sampled_from(known), min_size=_TRAINING_ROWS, max_size=_TRAINING_ROWS))]
        train[f"{i} {name}"] = pd.Series(column[:_TRAINING_ROWS], dtype=kind.dtype)
        asked = st.sampled_from([*known, *kind.values, *kind.others])
        rows[f"{i} {name}"] = pd.Series(draw(st.lists(asked, min_size=n, max_size=n)), dtype=kind.dtype)
    return pd.DataFrame(train), pd.DataFrame(rows)
