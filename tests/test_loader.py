"""Models that this project did not log, loaded as the server loads them: MLflow's flavors and bare estimator files."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import cloudpickle
import joblib
import mlflow
import numpy as np
import pandas as pd
import pytest
import skops.io
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.models import Model, ModelSignature, infer_signature
from mlflow.pyfunc import PyFuncModel
from mlflow.types import ColSpec, Schema
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression

import fin_pyfunc
from fin_pyfunc.model.backends.native import NativeBackend
from fin_pyfunc.model.backends.pyfunc import PyfuncBackend
from fin_pyfunc.model.decision import Label
from fin_pyfunc.model.errors import ArtifactError, FeatureError, ScoringError
from fin_pyfunc.model.wrapper import FinPyfuncModel
from fin_pyfunc.serving.loaded_model import LoadedModel
from fin_pyfunc.serving.loader import load
from fin_pyfunc.serving.resolver import Resolver
from tests.authoring.estimators import lightgbm
from tests.conftest import SqliteStore, tracking_to
from tests.models import bars, bars_with_gaps, labels

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # as if the classes stood in a notebook
CLOUDPICKLE = {"serialization_format": "cloudpickle", "pip_requirements": ["scikit-learn"]}
LIBRARY = {"pip_requirements": ["scikit-learn"]}  # else MLflow looks for them in a process of its own


def loaded(path: Path | str, tracking_uri: str | None = None) -> LoadedModel:
    resolver = Resolver(tracking_uri)
    return load(resolver, resolver.resolve_argument(str(path)))


def rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    records = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return cast("list[dict[str, Any]]", records)


def assert_answers_as(model: FinPyfuncModel, estimator: Any, frame: pd.DataFrame) -> None:
    decided = model.decide(rows(frame))
    assert decided.predictions == estimator.predict(frame).tolist()
    assert list(decided.scores.classes) == estimator.classes_.tolist()
    assert decided.scores.probabilities is not None
    np.testing.assert_allclose(decided.scores.probabilities, estimator.predict_proba(frame), rtol=0, atol=1e-9)


@pytest.fixture(scope="module")
def forest() -> RandomForestClassifier:
    return RandomForestClassifier(5, random_state=0).fit(bars(), labels(-1, 0, 1))


# --- MLflow's own flavors ---


def test_an_sklearn_model_is_loaded_from_a_store(forest: Any, sqlite_store: SqliteStore) -> None:
    with tracking_to(sqlite_store.tracking_uri):
        experiment = mlflow.create_experiment("loader", artifact_location=sqlite_store.artifact_root.as_uri())
        with mlflow.start_run(experiment_id=experiment) as run:
            mlflow.sklearn.log_model(forest, name="model", input_example=bars().head(2), **CLOUDPICKLE)
    found = loaded(f"runs:/{run.info.run_id}/model", sqlite_store.tracking_uri)
    assert found.resolved.run_id == run.info.run_id
    assert found.pyfunc is not None
    assert_answers_as(found.model, forest, bars().tail(20))


def test_a_signature_is_what_features_are_checked_against(forest: Any, tmp_path: Path) -> None:
    mlflow.sklearn.save_model(forest, tmp_path / "m", signature=infer_signature(bars()), **CLOUDPICKLE)
    model = loaded(tmp_path / "m").model
    assert_answers_as(model, forest, bars().tail(20))
    with pytest.raises(FeatureError) as refused:
        model.decide([{**rows(bars().head(1))[0], "spread": "wide"}])
    assert [(p.row, p.feature) for p in refused.value.problems] == [(0, "spread")]


def test_the_estimators_own_names_do_without_a_signature(forest: Any, tmp_path: Path) -> None:
    mlflow.sklearn.save_model(forest, tmp_path / "m", **CLOUDPICKLE)
    model = loaded(tmp_path / "m").model
    assert_answers_as(model, forest, bars().tail(20)[bars().columns[::-1]][bars().columns])
    shuffled = [dict(reversed(row.items())) for row in rows(bars().tail(5))]
    assert model.decide(shuffled).predictions == forest.predict(bars().tail(5)).tolist()
    with pytest.raises(FeatureError, match="missing"):
        model.decide([{"spread": 1.0}])
    with pytest.raises(ScoringError, match="the estimator raised ValueError"):  # a wrong type is the estimator's to say
        model.decide([{**rows(bars().head(1))[0], "spread": "wide"}])


def test_a_column_that_mlflow_calls_optional_may_be_left_out_or_null(tmp_path: Path) -> None:
    frame = bars_with_gaps()
    estimator = RandomForestClassifier(5, random_state=1).fit(frame, labels(-1, 0, 1))
    signature = infer_signature(frame)
    assert signature.inputs.optional_input_names() == ["spread", "return_1"]
    mlflow.sklearn.save_model(estimator, tmp_path / "m", signature=signature, **CLOUDPICKLE)
    model = loaded(tmp_path / "m").model
    assert_answers_as(model, estimator, frame.tail(20))
    (row,) = rows(frame.tail(1))
    without = {name: value for name, value in row.items() if name not in ("spread", "return_1")}
    assert model.predict_one(without) == model.predict_one({**row, "spread": None, "return_1": None})
    assert model.predict(pd.DataFrame([without])).iloc[0]["prediction"] == model.predict_one(without)["prediction"]
    with pytest.raises(FeatureError, match="'bidPrice' is missing"):
        model.predict_one({name: value for name, value in row.items() if name != "bidPrice"})


def test_optional_integers_and_booleans_are_null_where_they_are_left_out(tmp_path: Path) -> None:
    inputs = Schema([ColSpec("long", "hour", required=False), ColSpec("boolean", "open", required=False)])
    frame = pd.DataFrame({"hour": [1.0, 2.0, np.nan, 9.0], "open": [1.0, 0.0, np.nan, 1.0]})
    estimator = RandomForestClassifier(5, random_state=1).fit(frame, [0, 0, 1, 1])
    mlflow.sklearn.save_model(estimator, tmp_path / "m", signature=ModelSignature(inputs=inputs), **CLOUDPICKLE)
    decided = loaded(tmp_path / "m").model.decide([{"hour": 1, "open": True}, {"hour": 9}, {}])
    asked = pd.DataFrame({"hour": [1.0, 9.0, np.nan], "open": [1.0, np.nan, np.nan]})
    assert decided.predictions == estimator.predict(asked).tolist()


def test_a_lightgbm_model_logged_as_an_estimator_has_probabilities(tmp_path: Path) -> None:
    estimator = lightgbm(n_jobs=1).fit(bars(), labels("down", "flat", "up"))
    mlflow.lightgbm.save_model(estimator, tmp_path / "m", signature=infer_signature(bars()), **LIBRARY)
    assert_answers_as(loaded(tmp_path / "m").model, estimator, bars().tail(20))


def test_an_xgboost_model_logged_as_an_estimator_has_probabilities(tmp_path: Path) -> None:
    xgboost = pytest.importorskip("xgboost")
    estimator = xgboost.XGBClassifier(n_estimators=5, n_jobs=1).fit(bars(), labels(0, 1, 2))
    mlflow.xgboost.save_model(estimator, tmp_path / "m", signature=infer_signature(bars()), **LIBRARY)
    assert_answers_as(loaded(tmp_path / "m").model, estimator, bars().tail(20))


def test_loading_an_xgboost_model_of_mlflows_says_that_it_has_forgotten_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    xgboost = pytest.importorskip("xgboost")
    gaps = bars_with_gaps().fillna(-999.0)
    estimator = xgboost.XGBClassifier(n_estimators=3, n_jobs=1, missing=-999.0).fit(gaps, labels(0, 1))
    mlflow.xgboost.save_model(estimator, tmp_path / "theirs", signature=infer_signature(gaps), **LIBRARY)
    with caplog.at_level("INFO", "fin_pyfunc.server"):
        theirs = loaded(tmp_path / "theirs").model
    assert "does not hold its missing=" in caplog.text
    with_nulls = rows(bars_with_gaps())  # the documented way: send null for what was -999
    decided = theirs.decide(with_nulls).scores.probabilities
    np.testing.assert_allclose(decided, estimator.predict_proba(gaps), rtol=0, atol=1e-9)
    caplog.clear()
    fin_pyfunc.save_model(estimator, gaps, tmp_path / "ours", input_example=None)  # ours keeps it
    with caplog.at_level("INFO", "fin_pyfunc.server"):
        assert_answers_as(loaded(tmp_path / "ours").model, estimator, gaps)
    assert "missing=" not in caplog.text


def booster(objective: str, y: np.ndarray[Any, Any], **more: Any) -> Any:
    xgboost = pytest.importorskip("xgboost")
    params = {"objective": objective, "nthread": 1, **more}
    return xgboost.train(params, xgboost.DMatrix(bars(), y), num_boost_round=5)


@pytest.mark.parametrize("objective", ["multi:softmax", "multi:softprob"])
def test_a_raw_booster_counts_its_classes(objective: str, tmp_path: Path) -> None:
    raw = booster(objective, labels(0, 1, 2), num_class=3)
    mlflow.xgboost.save_model(raw, tmp_path / "m", signature=infer_signature(bars()), **LIBRARY)
    decided = loaded(tmp_path / "m").model.decide(rows(bars().tail(20)))
    expected = mlflow.pyfunc.load_model(str(tmp_path / "m")).predict(bars().tail(20))
    assert decided.predictions == (expected if expected.ndim == 1 else expected.argmax(axis=1)).tolist()
    p = booster("multi:softprob", labels(0, 1, 2), num_class=3).inplace_predict(bars().tail(20))
    np.testing.assert_allclose(decided.scores.probabilities, p, rtol=0, atol=1e-6)


def test_a_regressor_of_mlflows_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    regressor = LinearRegression().fit(bars(), bars()["spread"])
    mlflow.sklearn.save_model(regressor, tmp_path / "m", **CLOUDPICKLE)
    with pytest.raises(ArtifactError, match=r"^LinearRegression is not a classifier"):
        loaded(tmp_path / "m")


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_an_mlflow_model_with_damaged_files_is_one_sentence(damage: str, forest: Any, tmp_path: Path) -> None:
    mlflow.sklearn.save_model(forest, tmp_path / "m", **CLOUDPICKLE)
    file = tmp_path / "m" / "model.pkl"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:1000])
    else:
        file.unlink()
    with pytest.raises(ArtifactError, match=r"^MLflow could not load the model \(\w+\): [^\n]+\.$") as refused:
        loaded(tmp_path / "m")
    assert str(tmp_path) not in str(refused.value)


# --- any other pyfunc ---


class Foreign(mlflow.pyfunc.PythonModel):  # type: ignore[misc] # mlflow ships no types
    """Somebody else's pyfunc, answering whatever it is told to."""

    def __init__(self, answer: Callable[[pd.DataFrame], Any]) -> None:
        self.answer = answer

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        return self.answer(model_input)


def sign(frame: pd.DataFrame) -> np.ndarray[Any, Any]:
    return np.where(frame["return_1"] > 0, "up", "down")


def foreign(folder: Path, answer: Callable[[pd.DataFrame], Any]) -> FinPyfuncModel:
    mlflow.pyfunc.save_model(folder / "m", python_model=Foreign(answer), pip_requirements=["pandas"])
    return loaded(folder / "m").model


@pytest.mark.parametrize(
    "answer",
    [
        sign,
        lambda frame: sign(frame).reshape(-1, 1),
        lambda frame: sign(frame).tolist(),
        lambda frame: list(sign(frame)),
        lambda frame: pd.Series(sign(frame), index=frame.index),
        lambda frame: pd.Series(sign(frame), dtype="category"),
        lambda frame: pd.DataFrame({"side": sign(frame)}),
        lambda frame: pd.DataFrame({"score": 1.0, "prediction": sign(frame)}),
        lambda frame: {"side": sign(frame)},
        lambda frame: {"prediction": sign(frame).tolist(), "version": "v7"},
    ],
    ids=[
        "array",
        "column",
        "list",
        "list of NumPy text",
        "Series",
        "category",
        "one column",
        "column prediction",
        "dict of a column",
        "dict with prediction",
    ],
)
def test_a_pyfunc_may_answer_its_labels_in_any_usual_form(answer: Any, tmp_path: Path) -> None:
    model = foreign(tmp_path, answer)
    decided = model.decide(rows(bars().head(9)))
    assert decided.predictions == sign(bars().head(9)).tolist()
    assert all(type(label) is str for label in decided.predictions)
    assert decided.one() == {
        "prediction": decided.predictions[0], "probability": None, "probabilities": None, "confidence": "unknown"
    }  # fmt: skip
    assert model.decide([]).predictions == []


class Answers:
    """The inner model of a pyfunc; answers the same whatever it is asked."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def predict(self, frame: pd.DataFrame) -> Any:
        return self.answer


def answering(answer: Any) -> PyfuncBackend:
    return PyfuncBackend(PyFuncModel(Model(flavors={"python_function": {}}), Answers(answer)), None)


WHOLE = st.integers(-(2**53), 2**53)
LABELS = st.one_of(st.text(), WHOLE, WHOLE.map(float), st.booleans())


@given(st.lists(LABELS, min_size=1))
@settings(deadline=None)
def test_labels_come_back_as_they_are_whatever_they_are_mixed_with(answer: list[Label]) -> None:
    scores = answering(answer).score(np.zeros((len(answer), 1)))
    got = [scores.classes[i] for i in scores.index]
    assert [(type(label), label) for label in got] == [(type(label), label) for label in answer]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (["up"], "the model answered 1 labels for 3 rows"),
        (["up"] * 4, "the model answered 4 labels for 3 rows"),
        ([], "the model answered 0 labels for 3 rows"),
        (None, "expected one label a row"),
        ("up", "expected one label a row"),
        ({"prediction": ["up"] * 2}, "the model answered 2 labels for 3 rows"),
        ({"a": [1, 2, 3], "b": ["x"] * 3}, "2 columns, expected one, or one called 'prediction'"),
        ({"a": [1, 2, 3], "b": [1]}, "a dict whose columns are of different lengths"),
        (np.zeros((3, 2)), r"of shape \(3, 2\)"),
        (np.zeros((1, 3)), r"of shape \(1, 3\)"),
        (pd.DataFrame({"a": [1, 2, 3], "b": [1, 2, 3]}), "2 columns, expected one, or one called 'prediction'"),
        (pd.DataFrame(index=range(3)), "0 columns"),
        (pd.DataFrame([[1, 2]] * 3, columns=["prediction", "prediction"]), r"of shape \(3, 2\)"),
        ([1.0, float("nan"), 2.0], "a label that is neither"),
        ([["up", "down"], ["up"], []], "a label that is neither"),
        (["up", None, "down"], "a label that is neither"),
        (pd.Series([1, None, 2], dtype="Int64"), "a label that is neither"),
        ([{"label": "up"}] * 3, "a label that is neither"),
    ],
)
def test_what_is_not_one_label_a_row_is_an_error_in_words(answer: Any, said: str) -> None:
    with pytest.raises(ScoringError, match=said):
        answering(answer).score(np.zeros((3, 1)))


def raises(frame: pd.DataFrame) -> Any:
    raise RuntimeError(f"cannot score {frame.to_dict()} in /srv/secret")


def test_a_pyfunc_that_raises_is_named_by_its_exception_alone(tmp_path: Path) -> None:
    with pytest.raises(ScoringError, match=r"^the model raised RuntimeError$") as failed:
        foreign(tmp_path, raises).decide(rows(bars().head(2)))
    assert isinstance(failed.value.__cause__, RuntimeError)


def test_a_pyfunc_with_a_signature_has_its_features_checked(tmp_path: Path) -> None:
    signature = ModelSignature(Schema([ColSpec("double", "return_1"), ColSpec("string", "venue")]))
    mlflow.pyfunc.save_model(
        tmp_path / "m", python_model=Foreign(sign), signature=signature, pip_requirements=["pandas"]
    )
    model = loaded(tmp_path / "m").model
    assert model.decide([{"venue": "EBS", "return_1": 1}, {"return_1": -1.5, "venue": "x"}]).predictions == [
        "up",
        "down",
    ]
    with pytest.raises(FeatureError) as refused:
        model.decide([{"venue": 3, "return_1": True}, {"return_1": 1.0}])
    assert [(p.row, p.feature) for p in refused.value.problems] == [(0, "return_1"), (0, "venue"), (1, "venue")]


# --- bare estimator files ---

DUMPS: dict[str, Callable[[Any, Path], Any]] = {
    "m.pkl": lambda estimator, path: path.write_bytes(pickle.dumps(estimator)),
    "m.joblib": joblib.dump,
    "m.skops": skops.io.dump,
}


@pytest.mark.parametrize("name", DUMPS)
def test_a_bare_file_answers_as_its_estimator(name: str, forest: Any, tmp_path: Path) -> None:
    DUMPS[name](forest, tmp_path / name)
    found = loaded(tmp_path / name)
    assert isinstance(found.model.dispatch.backends[0], NativeBackend)
    assert_answers_as(found.model, forest, bars().tail(20))


@pytest.mark.parametrize("name", DUMPS)
@pytest.mark.parametrize("damage", ["cut", "noise", "empty"])
def test_a_damaged_file_is_one_sentence(name: str, damage: str, forest: Any, tmp_path: Path) -> None:
    DUMPS[name](forest, tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes({"cut": whole[: len(whole) // 2], "noise": b"\x07" * 100, "empty": b""}[damage])
    with pytest.raises(ArtifactError, match=r"^The estimator file could not be read \(\w+\): [^\n]+\.$") as refused:
        loaded(tmp_path / name)
    assert str(tmp_path) not in str(refused.value)


@pytest.mark.parametrize("name", DUMPS)
@pytest.mark.parametrize(
    "thing", [LinearRegression().fit(bars(), bars()["spread"]), {"a": 1}, LogisticRegression()],
    ids=["regressor", "dict", "unfitted"],
)  # fmt: skip
def test_a_file_without_a_fitted_classifier_is_refused(name: str, thing: Any, tmp_path: Path) -> None:
    DUMPS[name](thing, tmp_path / name)
    with pytest.raises(ArtifactError, match=r"^The model is not a fitted classifier: it needs predict"):
        loaded(tmp_path / name)
