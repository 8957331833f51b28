"""Imputers: the program fills in what scikit-learn fills in, for numbers, text and both at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from fin_pyfunc.compiling.errors import NotCompilable
from tests.program.coded import assert_as_transformed, columns_of, program_of
from tests.program.tables import TEXTS, WORDS, tables
from tests.program.test_encoders import fitted

pytestmark = pytest.mark.filterwarnings("ignore")
_OPTIONS: dict[str, Any] = {"add_indicator": st.booleans(), "keep_empty_features": st.booleans()}
of_numbers = st.one_of(
    st.builds(
        SimpleImputer, strategy=st.sampled_from(["mean", "median", "most_frequent", "constant"]),
        missing_values=st.sampled_from([np.nan, np.nan, 1, -1.0, 0]), **_OPTIONS,
    ),
    st.builds(SimpleImputer, strategy=st.just("constant"), fill_value=st.sampled_from([1.5, -1, 0]), **_OPTIONS),
    st.builds(MissingIndicator, features=st.sampled_from(["missing-only", "all"]), error_on_new=st.booleans()),
)  # fmt: skip
of_text = st.builds(
    SimpleImputer,
    strategy=st.sampled_from(["most_frequent", "constant"]),
    fill_value=st.sampled_from([None, "missing", "a"]),
    missing_values=st.sampled_from([np.nan, np.nan, None, pd.NA, "", "NA", "nan"]),
    **_OPTIONS,
)
encoders = st.sampled_from(
    [OneHotEncoder(handle_unknown="ignore"), OneHotEncoder(),
     OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), OrdinalEncoder()]
)  # fmt: skip
TABLE = tuple[pd.DataFrame, pd.DataFrame]


@settings(max_examples=80)
@given(table=tables(("float", "int", "nullable int")), imputer=of_numbers)
def test_numbers_are_filled_in(table: TABLE, imputer: Any) -> None:
    train, rows = table
    made = fitted(imputer, train)
    try:
        assert_as_transformed(made, train, rows)
    except NotCompilable as e:
        assert "makes no columns" in str(e)  # noqa: PT017 - it is the only reason that there is


@settings(max_examples=80)
@given(table=tables(WORDS), imputer=of_text, encoder=encoders)
def test_text_is_filled_in_before_it_is_encoded(table: TABLE, imputer: Any, encoder: Any) -> None:
    train, rows = table
    assert_as_transformed(fitted(make_pipeline(imputer, encoder), train), train, rows, TEXTS)


@settings(max_examples=80)
@given(table=tables(), imputer=of_text, encoder=encoders)
def test_numbers_and_text_go_through_one_imputer(table: TABLE, imputer: Any, encoder: Any) -> None:
    train, rows = table
    made = fitted(make_pipeline(imputer, encoder), train)
    try:
        assert_as_transformed(made, train, rows, TEXTS)
    except NotCompilable as e:
        assert "fills numbers with something else" in str(e)  # noqa: PT017


def test_the_indicator_alone_is_left_of_a_column_without_any_text() -> None:
    rows = pd.DataFrame({"a": ["p", "q", "x"]})
    for train in (["x", "x", "x"], ["x", "p", "x"]):
        imputer = SimpleImputer(missing_values="x", strategy="most_frequent", add_indicator=True)
        made = make_pipeline(imputer, OneHotEncoder(handle_unknown="ignore")).fit(pd.DataFrame({"a": train}))
        assert_as_transformed(made, pd.DataFrame({"a": train}), rows, (*TEXTS, "x", "p", "q"))


def test_a_fill_value_that_no_dictionary_has_is_refused() -> None:
    train = pd.DataFrame({"a": ["x", "y", None]})
    made = make_pipeline(SimpleImputer(strategy="constant", fill_value="gone"), OneHotEncoder()).fit(train)
    with pytest.raises(NotCompilable, match="dictionary lacks"):
        program_of(made, columns_of(train))  # a request with the text "gone" itself would be taken for an unknown one
    assert_as_transformed(made, train, train, ["gone"])
