"""What users of scikit-learn reported of encoders at prediction: a served row is answered as scikit-learn answers it.

Numbers are those of https://github.com/scikit-learn/scikit-learn/issues.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder

from fin_pyfunc.compiling.program.feature_columns import column_of
from fin_pyfunc.model.encoders import with_codes, with_known_values
from fin_pyfunc.model.errors import FeatureError
from fin_pyfunc.model.features import infer
from tests.program.coded import program_of, transformed

pytestmark = pytest.mark.filterwarnings("ignore")


def frame(values: list[Any], dtype: Any = None) -> pd.DataFrame:
    return pd.DataFrame({"a": pd.Series(values, dtype=dtype)})


def by_hand(encoder: Any, train: pd.DataFrame, categories: list[Any]) -> Any:
    """An encoder whose categories were changed after it was fitted."""
    fitted = encoder.fit(train)
    fitted.categories_ = [np.array(categories, dtype=object)]
    return fitted


IGNORE: dict[str, Any] = {"handle_unknown": "ignore"}
UNKNOWN: dict[str, Any] = {"handle_unknown": "use_encoded_value", "unknown_value": -1}
MIXED = pd.DataFrame({"a": list("xxxxyyyyz"), "b": list("pppqqqrrr")})
CASES: dict[str, tuple[Any, pd.DataFrame, pd.DataFrame]] = {
    "12018: a missing text that was never seen": (
        OneHotEncoder(**IGNORE), frame(["a", "b", None]), frame(["a", "d", None, np.nan])),
    "15726: categories by hand, not in order": (
        OneHotEncoder(categories=[["mse", "mae"]]), frame(["mae", "mse"]), frame(["mae", "mse", "m"])),
    "19835: categories changed after fit": (
        by_hand(OneHotEncoder(**IGNORE), frame(["a", "b"]), ["long text", "b"]), frame(["long text", "b"]),
        frame(["b", "a", "long text", "long text and more"])),
    "34387: a missing value where none was seen counts as unknown": (
        OrdinalEncoder(**UNKNOWN, encoded_missing_value=np.nan), frame([0, 1, 2.5]), frame([np.nan, 0, 7])),
    "34387: and one that was seen does not": (
        OrdinalEncoder(**UNKNOWN, encoded_missing_value=-5), frame([0, 1, np.nan]), frame([np.nan, 0, 7])),
    "25704: a missing value encoded as one code more": (
        OrdinalEncoder(encoded_missing_value=2), frame(["a", "b", np.nan]), frame(["a", "b", np.nan])),
    "1197 of sklearn-onnx: unknown encoded as NaN": (
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan), frame(["a", "b"]), frame(["c", "b"])),
    "34822: one column has infrequent values, another has not": (
        OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=3), MIXED,
        pd.DataFrame({"a": ["z", "new", "x"], "b": ["new", "q", "new"]})),
    "18072: unknown is as the dropped one": (
        OneHotEncoder(drop="first", **IGNORE), frame(["a", "b", "c"]), frame(["a", "b", "zzz"])),
    "27349: pandas' string with NaN": (
        make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder()), frame(["A", "B", np.nan], "str"),
        frame(["B", np.nan], "str")),
    "30321: None is missing where the imputer says so": (
        make_pipeline(SimpleImputer(missing_values=None, strategy="most_frequent"), OrdinalEncoder()),
        frame(["b", "b", "a", None], object), frame([None, "a"], object)),
    "None is a category where nothing says so": (
        OneHotEncoder(), frame(["b", "a", None], object), frame([None, "a"], object)),
    "22655: pd.NA stands for both": (
        make_pipeline(SimpleImputer(missing_values=pd.NA, strategy="constant", fill_value="none"), OneHotEncoder()),
        frame(["b", "a", None], object), frame([None, "none", "a"], object)),
    "an empty text is missing where the imputer says so": (
        make_pipeline(
            SimpleImputer(missing_values="", strategy="constant", fill_value="gone"), OneHotEncoder(**IGNORE)),
        frame(["", "a", "gone"]), frame(["", "a", "gone", " "])),
    "texts that look like numbers and nulls": (
        OneHotEncoder(**IGNORE), frame(["1", "1.0", "01", "nan", "None", "True"]),
        frame(["1", "1.0", "1.00", "nan", "NaN", "None", "true", "True"])),
    "texts that look alike": (
        OrdinalEncoder(**UNKNOWN), frame(["caf\u00e9", "a", "A", "a\u200b"]),
        frame(["cafe\u0301", "caf\u00e9", "a\x00", "a ", "a", "\u0430", "A"])),
    "1 for a category of 1.0": (OneHotEncoder(), frame([1.0, 2.5, 0.0]), frame([1, 0, -0.0])),
    "whole numbers, some missing, are floats": (
        OneHotEncoder(**IGNORE), frame([1, 2, None]), frame([1, 2, np.nan, 3])),
    "floats by hand for a column of whole numbers": (
        OneHotEncoder(categories=[[1.0, 2.0, 3.0]], **IGNORE), frame([1, 2, 2]), frame([3, 1, 4])),
    "true is a category": (OneHotEncoder(drop="if_binary"), frame([True, False]), frame([False, True])),
    "numbers beyond what float32 holds": (
        OrdinalEncoder(**UNKNOWN), frame([2**53 - 1, 2**53 - 3, 16777217]), frame([2**53 - 1, 16777216, 16777217])),
    "neighbours of a float": (
        OneHotEncoder(**IGNORE), frame([0.1, 0.3]), frame([0.1, np.nextafter(0.1, 1), 0.1 + 0.2, 0.3])),
    "categories of pandas in an order of their own": (
        OrdinalEncoder(), frame(["lo", "hi"], pd.CategoricalDtype(["lo", "hi", "never"])),
        frame(["hi", "lo"], pd.CategoricalDtype(["lo", "hi", "never"]))),
    "a category that no training row had": (
        OneHotEncoder(), frame(["lo", "hi"], pd.CategoricalDtype(["lo", "hi", "never"])),
        frame(["hi", "never"], pd.CategoricalDtype(["lo", "hi", "never"]))),
    "14223: columns in another order, and a remainder": (
        ColumnTransformer([("one", OneHotEncoder(), ["b"])], remainder=OrdinalEncoder(**UNKNOWN)).fit(MIXED),
        MIXED[["b", "a"]], MIXED[["b", "a"]]),
    "14251: a column that is dropped is no feature": (
        ColumnTransformer([("one", OneHotEncoder(), ["b"])]).fit(MIXED), MIXED[["b"]], MIXED[["b"]]),
    "no column at all for a step": (
        ColumnTransformer([("none", StandardScaler(), []), ("one", OneHotEncoder(), [0])], remainder="drop"),
        MIXED, MIXED),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_reported_case_is_answered_as_by_scikit_learn(case: str) -> None:
    transformer, train, rows = CASES[case]
    fitted = transformer if hasattr(transformer, "n_features_in_") else transformer.fit(train)
    spec = with_codes(with_known_values(infer(train), fitted), fitted)
    program = program_of(fitted, tuple(column_of(feature) for feature in spec.features))
    n_answered = 0
    for i in range(len(rows)):
        try:
            table = spec.check(rows.iloc[i : i + 1])
        except FeatureError:
            continue  # the features keep it from the program and from scikit-learn alike
        matrix = table if isinstance(table, np.ndarray) else spec.encode(table)
        expected = transformed(fitted, spec.restore(matrix))
        found = program(matrix)
        if expected is None:
            assert np.isnan(found).all()
        else:
            np.testing.assert_array_equal(found, expected, strict=True)
            n_answered += 1
            if (own := transformed(fitted, rows.iloc[i : i + 1])) is not None:
                np.testing.assert_array_equal(own, expected)
    assert n_answered


def test_target_means_of_an_unknown_and_a_missing_text() -> None:
    train = frame(["a", "b", None, "b"] * 5, object)
    fitted = TargetEncoder(smooth=1.0).fit(train, [0, 1, 1, 0] * 5)
    spec = with_codes(infer(train), fitted)
    program = program_of(fitted, tuple(column_of(feature) for feature in spec.features))
    rows = frame(["a", "new", None], object)
    matrix = np.vstack([np.atleast_2d(spec.encode(rows.iloc[i : i + 1])) for i in range(len(rows))])
    np.testing.assert_array_equal(program(matrix), fitted.transform(rows))
