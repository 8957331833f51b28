"""What encoders and imputers know of text is found wherever they are in an estimator, and what is not known is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import BaggingClassifier, HistGradientBoostingClassifier, VotingClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV, TunedThresholdClassifierCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder

from fin_pyfunc.model.backends.native import NativeBackend
from fin_pyfunc.model.encoders import MAX_TEXT, with_codes, with_known_values
from fin_pyfunc.model.features import FeatureSpec, infer

RNG = np.random.default_rng(0)
N = 60
FRAME = pd.DataFrame(
    {
        "bid": RNG.normal(size=N),
        "venue": RNG.choice(["EBS", "LMAX", "Cboe"], N),
        "broker": pd.Series(RNG.choice(["a", "b", None], N), dtype=object),
        "region": pd.Categorical(RNG.choice(["EU", "US"], N), categories=["US", "EU", "JP"]),
        "note": RNG.choice(["some text", "other text"], N),
        "time": pd.Timestamp("2026-01-05") + pd.to_timedelta(np.arange(N), "h"),
    }
)
Y = RNG.integers(0, 2, N)
VENUES, BROKERS = {"EBS", "LMAX", "Cboe"}, {"a", "b"}


def one_hot(**options: Any) -> OneHotEncoder:
    return OneHotEncoder(**{"handle_unknown": "ignore", **options})


def columns(*of: tuple[Any, Any], **options: Any) -> ColumnTransformer:
    return ColumnTransformer([(str(i), step, chosen) for i, (step, chosen) in enumerate(of)], **options)


def model(*of: tuple[Any, Any], **options: Any) -> Pipeline:
    return make_pipeline(columns(*of, **options), LogisticRegression())


def codes(estimator: Any, frame: pd.DataFrame = FRAME) -> dict[str, Any] | None:
    """Codes by feature as sets; None where there are none at all."""
    estimator.fit(frame, Y)
    spec = infer(frame)
    coded = with_codes(with_known_values(spec, estimator), estimator)
    if not coded.is_coded:
        assert all(feature.codes is None for feature in coded.features)
        return None
    return {feature.name: set(feature.codes) for feature in coded.features if feature.codes}


PLAIN = {"venue": VENUES, "region": {"US", "EU", "JP"}}


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        (model((one_hot(), ["venue"])), PLAIN),
        (model((one_hot(handle_unknown="error"), ["venue"]), ("drop", ["note"])), PLAIN),
        (model((one_hot(), slice(1, 2)), (StandardScaler(), [0])), PLAIN),
        (model((one_hot(), [False, True, False, False, False, False])), PLAIN),
        (model((one_hot(min_frequency=0.4), ["venue", "broker"])), {**PLAIN, "broker": BROKERS}),
        (model((one_hot(categories=[["EBS", "SIX"]]), ["venue"])), {**PLAIN, "venue": {"EBS", "SIX"}}),
        (model((OrdinalEncoder(), ["venue"]), (TargetEncoder(random_state=0), ["broker"])),
         {**PLAIN, "broker": BROKERS}),
        (model((make_pipeline(SimpleImputer(strategy="constant", fill_value="none", missing_values=None), one_hot()),
                ["broker", "venue"])), {**PLAIN, "broker": {*BROKERS, "none"}, "venue": {*VENUES, "none"}}),
        (model((make_pipeline(SimpleImputer(strategy="most_frequent", missing_values="EBS", add_indicator=True),
                              one_hot()), ["venue"])), PLAIN),
        (model((make_pipeline(SimpleImputer(strategy="most_frequent", missing_values="gone"), one_hot()), ["venue"])),
         {**PLAIN, "venue": {*VENUES, "gone"}}),
        (make_pipeline(columns(("passthrough", ["broker", "venue"])), columns((one_hot(), [0])), LogisticRegression()),
         {"broker": BROKERS, "region": PLAIN["region"]}),
        (make_pipeline(columns((SimpleImputer(strategy="constant", fill_value="a", missing_values=None),
                                ["broker", "venue"]), (StandardScaler(), ["bid"])),
                       columns((OrdinalEncoder(), [1]), ("passthrough", [2])), LogisticRegression()),
         {"broker": {"a"}, "venue": {*VENUES, "a"}, "region": PLAIN["region"]}),
        (model((FeatureUnion([("hot", one_hot()), ("is", MissingIndicator(missing_values=None)), ("no", "drop")]),
                ["broker"])), {"broker": BROKERS, "region": PLAIN["region"]}),
        (model((make_pipeline(FunctionTransformer(), "passthrough", one_hot()), ["venue"])), PLAIN),
        (model((one_hot(), ["venue"]), (CountVectorizer(), [])), PLAIN),
        (GridSearchCV(model((one_hot(), ["venue"])), {"logisticregression__C": [1.0]}, cv=2), PLAIN),
        (CalibratedClassifierCV(model((one_hot(), ["venue"])), cv=2), PLAIN),
        (TunedThresholdClassifierCV(model((one_hot(), ["venue"])), cv=2), PLAIN),
        (FixedThresholdClassifier(model((one_hot(), ["venue"]))), PLAIN),
        (OneVsRestClassifier(model((one_hot(), ["venue"]))), PLAIN),
        (VotingClassifier([("a", model((one_hot(), ["venue"]))), ("b", model((one_hot(), ["broker"])))]),
         {**PLAIN, "broker": BROKERS}),
    ],
)  # fmt: skip
def test_a_texts_codes_are_what_steps_compare_it_with(estimator: Any, expected: dict[str, set[str]]) -> None:
    assert codes(estimator) == expected


def test_an_estimator_that_is_frozen_is_looked_into() -> None:
    inner = model((one_hot(), ["venue"])).fit(FRAME, Y)
    assert codes(FrozenEstimator(inner)) == PLAIN


class Length(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    def fit(self, X: Any, y: Any = None) -> Length:
        return self

    def transform(self, X: Any) -> Any:
        return np.array([[sum(len(str(value)) for value in row)] for row in np.asarray(X)])


@pytest.mark.parametrize(
    "estimator",
    [
        model((CountVectorizer(), "venue")),
        model((FunctionTransformer(lambda X: X == "EBS"), ["venue"])),
        model((Length(), ["venue"])),
        model((make_pipeline(SimpleImputer(strategy="most_frequent"), Length()), ["venue"])),
        model((one_hot(), ["venue"]), (Length(), ["venue"])),
        model((one_hot(), ["time"])),
        make_pipeline(columns(("passthrough", ["venue"]), (Length(), ["venue"])), Length(), LogisticRegression()),
        make_pipeline(FeatureUnion([("a", columns(("passthrough", ["venue"]))),
                                    ("b", columns((one_hot(sparse_output=False), ["venue"])))]),
                      Length(), LogisticRegression()),
        BaggingClassifier(make_pipeline(columns((one_hot(), [0])), LogisticRegression()), 2),
    ],
)  # fmt: skip
def test_a_text_that_is_looked_at_in_another_way_leaves_the_model_to_dataframes(estimator: Any) -> None:
    frame = FRAME[["venue", "region", "time"]]
    if isinstance(estimator, BaggingClassifier):
        frame = frame[["venue"]]
    assert codes(estimator, frame) is None


def test_categories_of_fixed_width_text_leave_the_model_to_dataframes() -> None:
    """NumPy takes a text for equal to the same one with NULs at its end."""
    estimator = make_pipeline(one_hot(), LogisticRegression()).fit(FRAME[["venue"]].to_numpy().astype("U4"), Y)
    assert with_codes(infer(FRAME[["venue"]]), estimator) == infer(FRAME[["venue"]])


def test_categories_need_no_encoder_to_have_codes_and_numbers_have_none() -> None:
    assert codes(HistGradientBoostingClassifier(max_iter=2), FRAME[["bid", "region"]]) == {"region": {"US", "EU", "JP"}}
    assert codes(HistGradientBoostingClassifier(max_iter=2), FRAME[["bid"]]) is None


def test_more_text_than_a_manifest_holds_has_no_codes() -> None:
    many = pd.DataFrame({"venue": [f"{i:0{MAX_TEXT // N}d}" for i in range(N)]})
    assert codes(model((one_hot(), ["venue"])), many) is None


def test_a_strangers_estimator_has_no_codes() -> None:
    class Odd:
        steps = property(lambda self: 1 / 0)

    assert with_codes(infer(FRAME), Odd()) == infer(FRAME)


TEXTS = st.text(max_size=3) | st.sampled_from(["EBS", "ebs", "EBS ", "EBS\x00", "LMAX", "none", "1", "nan", "None"])


@given(st.lists(st.tuples(TEXTS, TEXTS | st.none()), min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_two_texts_without_a_code_are_the_same_to_the_estimator(rows: list[tuple[str, str | None]]) -> None:
    """So a matrix, in which they are one code, says all that it takes to answer."""
    estimator, spec = _fitted()
    frame = pd.DataFrame(rows, columns=["venue", "broker"], dtype=object)
    table = spec.check(frame)
    native = NativeBackend(estimator, spec)
    own, of_codes = native.score(table), native.score(spec.encode(table))
    np.testing.assert_array_equal(own.probabilities, of_codes.probabilities)  # type: ignore[arg-type]


def _fitted() -> tuple[Any, FeatureSpec]:
    if not _FITTED:
        imputer = SimpleImputer(strategy="constant", fill_value="none", missing_values=None)
        estimator = model(
            (one_hot(max_categories=2), ["venue"]), (make_pipeline(imputer, TargetEncoder(random_state=0)), ["broker"])
        )
        frame = FRAME[["venue", "broker"]].astype(object)
        estimator.fit(frame, Y)
        _FITTED.append((estimator, with_codes(infer(frame), estimator)))
    return _FITTED[0]


_FITTED: list[Any] = []
