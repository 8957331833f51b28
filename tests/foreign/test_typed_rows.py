"""Columns as people have them in models that MLflow logged: times, numbers for names, categories, blanks in names."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler

from fin_pyfunc.model.errors import ArtifactError, FeatureError
from tests.foreign.conftest import Open

cloudpickle.register_pickle_by_value(sys.modules[__name__])
RANDOM = np.random.default_rng(1)
N = 160
FRAME = pd.DataFrame(
    {
        "bid price": RANDOM.normal(size=N),
        "venue": pd.Categorical(RANDOM.choice(["EBS", "LMAX", "Cboe"], N)),
        "bucket": pd.Categorical(RANDOM.integers(0, 4, N)),
        "n": RANDOM.integers(0, 9, N),
    }
)
Y = (FRAME["bid price"] + (FRAME["venue"] == "EBS") > 0.3).astype(int)
TIMES = pd.DataFrame({"t": pd.date_range("2026-01-05", periods=N, freq="97min"), "x": FRAME["bid price"]})
LIBRARY = {"pip_requirements": ["scikit-learn"]}
PICKLED = {"serialization_format": "cloudpickle", **LIBRARY}


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON has them."""
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [{str(k): v.isoformat() if isinstance(v, pd.Timestamp) else v for k, v in row.items()} for row in rows]


def assert_alike(model: Any, frame: pd.DataFrame, expected: Any) -> None:
    """A batch, each row of it alone, and a DataFrame are answered alike, whatever the order of keys."""
    rows = records(frame)
    together = model.decide(rows).scores.probabilities
    np.testing.assert_allclose(together, expected, rtol=0, atol=1e-7)
    for i, row in enumerate(rows):
        np.testing.assert_allclose(
            model.decide([dict(reversed(row.items()))]).scores.probabilities[0], together[i], rtol=0, atol=1e-12
        )
    np.testing.assert_allclose(model.decide_frame(frame).scores.probabilities, together, rtol=0, atol=1e-12)


# --- times ---


def hours(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"hour": frame["t"].dt.hour, "x": frame["x"]})


def timed() -> Any:
    return make_pipeline(FunctionTransformer(hours), LogisticRegression()).fit(TIMES, Y)


def test_times_are_text_in_iso_8601(opened: Open, tmp_path: Path) -> None:
    estimator = timed()
    mlflow.sklearn.save_model(estimator, tmp_path / "m", signature=infer_signature(TIMES), **PICKLED)
    model = opened(tmp_path / "m").model
    assert_alike(model, TIMES.head(9), estimator.predict_proba(TIMES.head(9)))
    for text in ("2026-01-05", "2026-01-05 09:30", "2026-01-05T09:30:00.123456789"):
        assert model.decide([{"t": text, "x": 0.5}]).scores.probabilities is not None
    refused = {
        1767605400: "must be a date and time in ISO 8601, as text, not a number",
        "1767605400": "must be a date and time in ISO 8601, such as",
        "2026-02-30": "that there is",
        "2026-01-05T09:30:00+01:00": "must have no time zone",
        "5/1/2026": "must be a date and time in ISO 8601, such as",
        True: "not a number",
    }
    for value, said in refused.items():
        with pytest.raises(FeatureError, match=f"feature 't' .*{said}"):
            model.decide([{"t": value, "x": 0.5}])


# --- numbers for names ---


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
def test_numbers_for_names_are_text(opened: Open, tmp_path: Path, signed: bool) -> None:
    frame = pd.DataFrame(RANDOM.normal(size=(N, 3)))
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, Y)
    mlflow.sklearn.save_model(
        estimator, tmp_path / "m", signature=infer_signature(frame) if signed else None, **PICKLED
    )  # fmt: skip
    model = opened(tmp_path / "m").model
    assert_alike(model, frame.head(5), estimator.predict_proba(frame.head(5)))
    assert model.decide([frame.iloc[0].tolist()]).one() == model.decide(records(frame.head(1))).one()
    with pytest.raises(FeatureError):
        model.decide([{"a": 1.0, "b": 2.0, "c": 3.0}])


def test_numbers_for_names_need_not_count_from_zero(opened: Open, tmp_path: Path) -> None:
    frame = pd.DataFrame(RANDOM.normal(size=(N, 3)))[[2, 0]]
    estimator = LogisticRegression().fit(frame, Y)
    mlflow.sklearn.save_model(estimator, tmp_path / "m", signature=infer_signature(frame), **PICKLED)
    assert_alike(opened(tmp_path / "m").model, frame.head(5), estimator.predict_proba(frame.head(5)))


class ByNumber(mlflow.pyfunc.PythonModel):  # type: ignore[misc] # mlflow ships no types
    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> dict[str, Any]:
        return {"prediction": np.where(model_input[2] > model_input[0], "up", "down"), "version": "7"}


def test_a_python_model_gets_the_numbers_that_its_signature_has(opened: Open, tmp_path: Path) -> None:
    frame = pd.DataFrame(RANDOM.normal(size=(N, 3)))
    mlflow.pyfunc.save_model(
        tmp_path / "m", python_model=ByNumber(), signature=infer_signature(frame), pip_requirements=["pandas"]
    )
    expected = np.where(frame[2] > frame[0], "up", "down")[:5].tolist()
    assert opened(tmp_path / "m").model.decide(records(frame.head(5))).predictions == expected


# --- categories, and names that were rewritten ---


def lightgbm(**more: Any) -> Any:
    return pytest.importorskip("lightgbm").LGBMClassifier(
        n_estimators=5, n_jobs=1, verbose=-1, min_child_samples=5, **more
    )  # fmt: skip


def save_lightgbm(folder: Path, **more: Any) -> Any:
    estimator = lightgbm().fit(FRAME, np.where(Y, "up", "down"))
    mlflow.lightgbm.save_model(estimator, folder, **LIBRARY, **more)
    return estimator.predict_proba


def save_raw_lightgbm(folder: Path, **more: Any) -> Any:
    lgb = pytest.importorskip("lightgbm")
    params = {"objective": "binary", "num_threads": 1, "verbose": -1}
    booster = lgb.train(params, lgb.Dataset(FRAME, Y), 5)
    mlflow.lightgbm.save_model(booster, folder, **LIBRARY, **more)
    return lambda frame: np.column_stack([1 - booster.predict(frame), booster.predict(frame)])


def save_xgboost(folder: Path, **more: Any) -> Any:
    xgb = pytest.importorskip("xgboost", minversion="3.1")
    estimator = xgb.XGBClassifier(n_estimators=5, n_jobs=1, enable_categorical=True).fit(FRAME, Y)
    mlflow.xgboost.save_model(estimator, folder, **LIBRARY, **more)
    return estimator.predict_proba


def save_raw_xgboost(folder: Path, **more: Any) -> Any:
    xgb = pytest.importorskip("xgboost", minversion="3.1")
    data = xgb.DMatrix(FRAME, Y, enable_categorical=True)
    booster = xgb.train({"objective": "binary:logistic", "nthread": 1}, data, 5)
    mlflow.xgboost.save_model(booster, folder, **LIBRARY, **more)

    def answer(frame: pd.DataFrame) -> Any:
        p = booster.predict(xgb.DMatrix(frame, enable_categorical=True)).astype(float)
        return np.column_stack([1 - p, p])

    return answer


def save_histogram(folder: Path, **more: Any) -> Any:
    estimator = HistGradientBoostingClassifier(max_iter=5, categorical_features="from_dtype").fit(FRAME, Y)
    mlflow.sklearn.save_model(estimator, folder, **PICKLED, **more)
    return estimator.predict_proba


SAVE: dict[str, Callable[..., Any]] = {
    "lightgbm": save_lightgbm, "raw lightgbm": save_raw_lightgbm, "xgboost": save_xgboost,
    "raw xgboost": save_raw_xgboost, "histogram": save_histogram,
}  # fmt: skip
HERE_AND_HOSTED = [pytest.param("here", save, id=name) for name, save in SAVE.items()]
HERE_AND_HOSTED.append(pytest.param("host", save_raw_lightgbm, id="hosted"))


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
@pytest.mark.parametrize(("opened", "save"), HERE_AND_HOSTED, indirect=["opened"])
def test_pandas_categories_are_those_of_the_model(opened: Open, tmp_path: Path, save: Any, signed: bool) -> None:
    expected = save(tmp_path / "m", signature=infer_signature(FRAME) if signed else None)
    model = opened(tmp_path / "m").model
    sample = FRAME.groupby("venue", observed=True).head(3)
    assert_alike(model, sample, expected(sample))
    if save is save_histogram:  # it takes what it does not know for missing
        return
    with pytest.raises(FeatureError, match="'venue' must be one of the 3 values known from training"):
        model.decide([{**records(sample)[0], "venue": "NYSE"}])
    null = sample.head(1).assign(venue=pd.Categorical([None], categories=FRAME["venue"].cat.categories))
    np.testing.assert_allclose(model.decide(records(null)).scores.probabilities, expected(null), rtol=0, atol=1e-7)


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
def test_a_name_that_lightgbm_rewrote_is_taken_either_way(opened: Open, tmp_path: Path, signed: bool) -> None:
    expected = save_lightgbm(tmp_path / "m", signature=infer_signature(FRAME) if signed else None)
    model = opened(tmp_path / "m").model
    (row,) = records(FRAME.head(1))
    written = {name.replace(" ", "_"): value for name, value in row.items()}
    assert model.decide([written]).one() == model.decide([row]).one()
    np.testing.assert_allclose(model.decide([row, written]).scores.probabilities[1], expected(FRAME.head(1))[0])
    with pytest.raises(FeatureError, match="given more than once"):
        model.decide([{**row, **written, "venue": "EBS"}])


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
def test_catboosts_classifier_has_probabilities(opened: Open, tmp_path: Path, signed: bool) -> None:
    catboost = pytest.importorskip("catboost", reason="catboost, of 100 MB, is not among the development tools")
    frame = FRAME.astype({"venue": object, "bucket": "int64"})
    options = {"iterations": 5, "verbose": 0, "thread_count": 1, "allow_writing_files": False}
    for name, y in (("texts", np.where(Y, "up", "down")), ("booleans", Y.astype(bool))):
        estimator = catboost.CatBoostClassifier(**options).fit(frame, y, cat_features=["venue", "bucket"])
        mlflow.catboost.save_model(
            estimator, tmp_path / name, signature=infer_signature(frame) if signed else None, **LIBRARY
        )  # fmt: skip
        model = opened(tmp_path / name).model
        assert_alike(model, frame.head(6), estimator.predict_proba(frame.head(6)))
        predicted = model.decide(records(frame.head(20))).predictions
        assert {type(label) for label in predicted} == {type(y[:1].tolist()[0])}
    regressor = catboost.CatBoostRegressor(**options).fit(frame[["n"]], Y)
    mlflow.catboost.save_model(regressor, tmp_path / "regressor", **LIBRARY)
    with pytest.raises(ArtifactError, match=r"^CatBoostRegressor is not a classifier"):
        opened(tmp_path / "regressor")


# --- encoders ---

PARTS = {
    "one-hot": OneHotEncoder(),
    "ordinal": OrdinalEncoder(),
    "imputed": make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder()),
}
AROUND: dict[str, Callable[[Any], Any]] = {
    "pipeline": lambda estimator: estimator,
    "search": lambda estimator: GridSearchCV(estimator, {"logisticregression__C": [1.0]}, cv=2),
    "calibrated": lambda estimator: CalibratedClassifierCV(estimator, cv=2),
}


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
@pytest.mark.parametrize("opened", ["here"], indirect=True)
@pytest.mark.parametrize(("part", "around"), [(p, "pipeline") for p in PARTS] + [("one-hot", a) for a in AROUND][1:])
def test_a_category_that_an_encoder_refuses_is_named(
    opened: Open, tmp_path: Path, part: str, around: str, signed: bool
) -> None:
    frame = FRAME.rename(columns={"bid price": "bid"}).assign(venue=FRAME["venue"].astype(object))[["bid", "venue"]]
    columns = make_column_transformer((PARTS[part], ["venue"]), remainder="passthrough")
    estimator = AROUND[around](make_pipeline(columns, LogisticRegression())).fit(frame, Y)
    mlflow.sklearn.save_model(
        estimator, tmp_path / "m", signature=infer_signature(frame) if signed else None, **PICKLED
    )  # fmt: skip
    model = opened(tmp_path / "m").model
    assert_alike(model, frame.head(6), estimator.predict_proba(frame.head(6)))
    with pytest.raises(FeatureError) as refused:
        model.decide([{"bid": 1.0, "venue": "EBS"}, {"bid": 1.0, "venue": "NYSE"}])
    assert [(p.row, p.feature) for p in refused.value.problems] == [(1, "venue")]
    assert "NYSE" not in str(refused.value)
    if part != "imputed":
        with pytest.raises(FeatureError, match="'venue' is null, which the model does not take"):
            model.decide([{"bid": 1.0, "venue": None}])


@pytest.mark.parametrize("opened", ["host"], indirect=True)
def test_an_encoder_that_takes_anything_is_left_alone(opened: Open, tmp_path: Path) -> None:
    frame = FRAME[["bid price"]].assign(venue=FRAME["venue"].astype(object))
    encoder = OneHotEncoder(handle_unknown="ignore")
    columns = make_column_transformer((encoder, ["venue"]), remainder="passthrough")
    estimator = make_pipeline(columns, LogisticRegression()).fit(frame, Y)
    mlflow.sklearn.save_model(estimator, tmp_path / "m", signature=infer_signature(frame), **PICKLED)
    other = frame.head(2).assign(venue=["NYSE", "EBS"])
    assert_alike(opened(tmp_path / "m").model, other, estimator.predict_proba(other))


def test_categories_without_their_columns_are_refused_when_loaded(tmp_path: Path) -> None:
    from fin_pyfunc.model.foreign.estimator import classifier_of

    estimator = lightgbm().fit(FRAME, Y)
    estimator.booster_.pandas_categorical = [["EBS", "LMAX", "Cboe"]]  # as of a file that tells of one of the two
    with pytest.raises(ArtifactError, match="which columns are such"):
        classifier_of(estimator, None)
