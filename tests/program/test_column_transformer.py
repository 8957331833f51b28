"""ColumnTransformers of any columns: the program is the transformer, to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder

from fin_pyfunc.compiling.errors import NotCompilable
from tests.program.coded import assert_as_transformed, columns_of, program_of
from tests.program.tables import TEXTS, tables
from tests.program.test_encoders import fitted

pytestmark = pytest.mark.filterwarnings("ignore")
TABLE = tuple[pd.DataFrame, pd.DataFrame]
_UNKNOWN: dict[str, Any] = {"handle_unknown": "use_encoded_value", "unknown_value": -1}


def _of_words() -> list[Any]:
    filled = SimpleImputer(strategy="constant", fill_value="missing")
    return [
        "drop", OneHotEncoder(handle_unknown="ignore"), OneHotEncoder(sparse_output=False, drop="if_binary"),
        OrdinalEncoder(**_UNKNOWN), make_pipeline(filled, OneHotEncoder(min_frequency=2, handle_unknown="ignore")),
        TargetEncoder(cv=2), make_pipeline(OrdinalEncoder(**_UNKNOWN), StandardScaler()),
        FeatureUnion([("one", OneHotEncoder(handle_unknown="ignore")), ("two", OrdinalEncoder(**_UNKNOWN))]),
    ]  # fmt: skip


def _of_numbers() -> list[Any]:
    return [
        "drop", "passthrough", StandardScaler(), make_pipeline(SimpleImputer(), StandardScaler()),
        SimpleImputer(strategy="median", add_indicator=True), OneHotEncoder(handle_unknown="ignore"),
        make_pipeline(SimpleImputer(), ColumnTransformer([("inner", StandardScaler(), [0])], remainder="passthrough")),
    ]  # fmt: skip


@st.composite
def transformers(draw: st.DrawFn, train: pd.DataFrame) -> ColumnTransformer:
    """A ColumnTransformer of a table's columns, in any order and some of them twice."""
    parts: list[Any] = []
    for are_numbers, steps in ((True, _of_numbers()), (False, _of_words())):
        names = [c for c in train if pd.api.types.is_numeric_dtype(train[c].dtype) == are_numbers]
        for _ in range(draw(st.integers(0, 2)) if names else 0):
            chosen = draw(st.lists(st.sampled_from(names), unique=True))
            columns: Any = chosen
            how = draw(st.sampled_from(["names", "positions", "mask", "negative", "callable"]))
            positions = [train.columns.get_loc(name) for name in chosen]
            if how == "positions":
                columns = positions
            elif how == "mask":
                columns = [name in chosen for name in train]
            elif how == "negative":
                columns = [position - train.shape[1] for position in positions]
            elif how == "callable":
                dtype: Any = {"include": "number"} if are_numbers else {"exclude": "number"}
                columns = make_column_selector(**{f"dtype_{key}": value for key, value in dtype.items()})
            parts.append((f"part {len(parts)}", draw(st.sampled_from(steps)), columns))
    whole = all(pd.api.types.is_numeric_dtype(train[c].dtype) for c in train)
    weights = {name: draw(st.sampled_from([1, 0.3, 2.0])) for name, _, _ in parts}
    return ColumnTransformer(
        parts,
        remainder=draw(st.sampled_from(_of_numbers() if whole else ["drop", OneHotEncoder(handle_unknown="ignore")])),
        sparse_threshold=draw(st.sampled_from([0.0, 0.3, 1.0])),
        transformer_weights=draw(st.none() | st.just(weights)),
    )


@settings(max_examples=120)
@given(data=st.data(), table=tables(most=6))
def test_any_column_transformer_is_its_program(data: st.DataObject, table: TABLE) -> None:
    train, rows = table
    made = fitted(data.draw(transformers(train)), train, np.arange(len(train)) % 2)
    try:
        assert_as_transformed(made, train, rows, TEXTS)
    except NotCompilable as e:
        assert any(of in str(e) for of in ("makes no columns", "has a weight"))  # noqa: PT017


def _table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    numbers = pd.DataFrame(rng.normal(size=(40, 3)), columns=list("abc"))
    return numbers.assign(word=rng.choice(["new", "old"], 40), city=rng.choice(["p", "q", "r"], 40))


def test_columns_are_taken_by_name_where_the_features_are_in_another_order() -> None:
    train = _table()
    made = ColumnTransformer([("num", StandardScaler(), [0, 1]), ("one", OneHotEncoder(), ["city"])]).fit(train)
    assert_as_transformed(made, train[["city", "b", "word", "a", "c"]], train[["city", "b", "word", "a", "c"]])


@pytest.mark.parametrize("verbose", [True, False])
def test_a_second_column_transformer_takes_the_columns_of_a_data_frame(verbose: bool) -> None:
    train = _table()
    first = ColumnTransformer(
        [("one", OneHotEncoder(sparse_output=False), ["word"]), ("num", StandardScaler(), ["c", "a"])],
        remainder="passthrough", verbose_feature_names_out=verbose,
    ).set_output(transform="pandas")  # fmt: skip
    names = ("remainder__city", "num__a") if verbose else ("city", "a")
    second = ColumnTransformer(
        [("city", OneHotEncoder(), [names[0]]), ("a", StandardScaler(), [names[1]])], remainder="passthrough"
    )
    assert_as_transformed(make_pipeline(first, second).fit(train), train, train)


def test_text_that_passes_through_is_encoded_by_a_later_step() -> None:
    train = _table()
    first = ColumnTransformer([("num", StandardScaler(), ["b"]), ("text", "passthrough", ["word", "city"])])
    second = ColumnTransformer([("one", OneHotEncoder(), [2, 1])], remainder="passthrough")
    assert_as_transformed(make_pipeline(first, second).fit(train), train, train)


@pytest.mark.parametrize(
    ("transformer", "clause"),
    [
        (ColumnTransformer([("count", CountVectorizer(), "word")]), r"\(CountVectorizer\) is not compiled"),
        (make_pipeline(ColumnTransformer([("pass", "passthrough", ["word"])]), StandardScaler()), "text or categories"),
        (
            make_pipeline(OneHotEncoder(dtype=np.float32, sparse_output=False), StandardScaler()),
            r"the step 'standardscaler' \(StandardScaler\) computes in float32",
        ),
    ],
)  # fmt: skip
def test_what_is_not_compiled_is_named(transformer: Any, clause: str) -> None:
    train = _table()[["word", "city"]].assign(word="1") if "text" in clause else _table()[["word", "city"]]
    with pytest.raises(NotCompilable, match=clause):
        program_of(transformer.fit(train), columns_of(train))
