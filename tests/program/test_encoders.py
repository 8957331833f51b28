"""Encoders: the program answers codes as scikit-learn answers the values."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, TargetEncoder

from tests.program.coded import assert_as_transformed
from tests.program.tables import TEXTS, tables

pytestmark = pytest.mark.filterwarnings("ignore")
_DTYPES = st.sampled_from([np.float64, np.float32, np.int64, np.int8, bool])
_FREQUENCY: dict[str, Any] = {
    "min_frequency": st.sampled_from([None, None, 2, 4, 0.4]),
    "max_categories": st.sampled_from([None, None, 1, 2, 3]),
}
#: since scikit-learn 1.6
_WARN = [option for option in ["warn"] if option in str(OneHotEncoder._parameter_constraints["handle_unknown"])]
one_hot = st.builds(
    OneHotEncoder,
    handle_unknown=st.sampled_from(["error", "ignore", "infrequent_if_exist", *_WARN]),
    drop=st.sampled_from([None, None, "first", "if_binary"]),
    sparse_output=st.booleans(), dtype=_DTYPES, **_FREQUENCY,
)  # fmt: skip
ordinal = st.builds(
    OrdinalEncoder,
    dtype=st.sampled_from([np.float64, np.float32]),
    encoded_missing_value=st.sampled_from([np.nan, -2, 99]), **_FREQUENCY,
) | st.builds(
    OrdinalEncoder,
    dtype=st.sampled_from([np.float64, np.int64]), handle_unknown=st.just("use_encoded_value"),
    unknown_value=st.sampled_from([-1, 1000]), encoded_missing_value=st.just(-2), **_FREQUENCY,
)  # fmt: skip


def fitted(encoder: Any, *data: Any) -> Any:
    """Fit it, unless scikit-learn itself cannot."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return encoder.fit(*data)
        except (
            AttributeError,
            TypeError,
            ValueError,
        ):  # scikit-learn has one where it would name what cannot be dropped
            assume(False)


@settings(max_examples=80)
@given(table=tables(), encoder=one_hot)
def test_one_hot_columns_are_the_encoders_own(table: tuple[pd.DataFrame, pd.DataFrame], encoder: OneHotEncoder) -> None:
    train, rows = table
    assert_as_transformed(fitted(encoder, train), train, rows, TEXTS)


@settings(max_examples=80)
@given(table=tables(), encoder=ordinal)
def test_ordinal_codes_are_the_encoders_own(table: tuple[pd.DataFrame, pd.DataFrame], encoder: OrdinalEncoder) -> None:
    train, rows = table
    assert_as_transformed(fitted(encoder, train), train, rows, TEXTS)


@settings(max_examples=60)
@given(table=tables(), classes=st.integers(2, 4), smooth=st.sampled_from(["auto", 0.0, 10.0]))
def test_target_means_are_the_encoders_own(
    table: tuple[pd.DataFrame, pd.DataFrame], classes: int, smooth: float | str
) -> None:
    train, rows = table
    y = np.arange(len(train)) % classes
    assert_as_transformed(fitted(TargetEncoder(smooth=smooth, cv=2), train, y), train, rows, TEXTS)


@settings(max_examples=80)
@given(data=st.data(), table=tables(most=3), encoder=one_hot | ordinal)
def test_categories_and_what_is_dropped_may_be_given_by_hand(
    data: st.DataObject, table: tuple[pd.DataFrame, pd.DataFrame], encoder: OneHotEncoder | OrdinalEncoder
) -> None:
    train, rows = table
    known = [[value for value in train[name].unique() if not pd.isna(value)] for name in train]
    assume(all(known))
    given_by_hand = [
        data.draw(st.permutations(values)) if isinstance(values[0], str) else sorted(values) for values in known
    ]
    encoder.set_params(categories=given_by_hand)
    if isinstance(encoder, OneHotEncoder) and data.draw(st.booleans()):
        encoder.set_params(drop=[data.draw(st.sampled_from(values)) for values in given_by_hand])
    assert_as_transformed(fitted(encoder, train), train, rows, TEXTS)
