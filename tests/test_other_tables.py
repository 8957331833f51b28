"""Tables of Polars and PyArrow in place of a DataFrame of pandas; and the loaded model asked as an estimator is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import fin_pyfunc
from fin_pyfunc.model.errors import FeatureError, NotLoggableError
from fin_pyfunc.model.frames import as_frame
from tests import models
from tests.authoring.estimators import encoded_text, sk
from tests.models import bars, fit, labels, quotes


def polars(frame: Mapping[str, Any]) -> Any:
    return pytest.importorskip("polars").DataFrame({name: list(frame[name]) for name in frame})


def arrow(frame: Mapping[str, Any]) -> Any:
    return pa.table({name: list(frame[name]) for name in frame})


TABLES: dict[str, Callable[[Any], Any]] = {"polars": polars, "arrow": arrow}


@pytest.fixture(scope="module")
def own_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("other-tables") / "model"
    fitted = models.logistic()
    fin_pyfunc.save_model(fitted.estimator, fitted.train, path, input_example=None)
    return path


@pytest.mark.parametrize("of", TABLES)
def test_a_table_of_another_library_is_logged_and_asked_as_one_of_pandas(of: str, tmp_path: Path) -> None:
    fitted = fit(encoded_text(), quotes(), labels("down", "flat", "up"))
    train = TABLES[of](fitted.train.assign(bar_id=range(160)))
    fin_pyfunc.save_model(fitted.estimator, train, tmp_path / "model", identifiers=["bar_id"])
    model = fin_pyfunc.load_model(str(tmp_path / "model"))
    frame = fitted.held_out.reset_index(drop=True)
    expected = model.predict(frame)
    assert expected["prediction"].tolist() == fitted.estimator.predict(frame).tolist()
    pd.testing.assert_frame_equal(model.predict(TABLES[of](frame)), expected)
    np.testing.assert_array_equal(model.predict_proba(TABLES[of](frame)), model.predict_proba(frame))
    with pytest.raises(FeatureError, match="'hour' is missing"):
        model.predict(TABLES[of](frame.drop(columns="hour")))


@pytest.mark.parametrize("of", TABLES)
def test_a_missing_text_is_none_as_encoders_saw_it(of: str) -> None:
    frame = as_frame(TABLES[of]({"venue": ["EBS", None, "LMAX"], "hour": [1, 2, 3]}))
    assert frame is not None
    assert frame["venue"].tolist() == ["EBS", None, "LMAX"]
    assert frame["hour"].tolist() == [1, 2, 3]


def test_what_is_no_table_is_refused_with_what_is_wanted(own_path: Path, tmp_path: Path) -> None:
    model = fin_pyfunc.load_model(str(own_path))
    for other in ([[1.0]], {"return_1": [0.0]}, np.ones((2, 2)), bars()["return_1"], None):
        with pytest.raises(TypeError, match="predict takes a DataFrame, one column a feature, not "):
            model.predict(other)
        with pytest.raises(TypeError, match="predict_proba takes a DataFrame, one column a feature, not "):
            model.predict_proba(other)
        with pytest.raises(NotLoggableError, match="pass a DataFrame of training rows"):
            fin_pyfunc.save_model(models.logistic().estimator, other, tmp_path / "m")


def test_a_loaded_model_has_predict_proba_and_classes_as_an_estimator_has(own_path: Path) -> None:
    fitted = models.logistic()
    model = fin_pyfunc.load_model(str(own_path), backend="native")
    np.testing.assert_array_equal(model.predict_proba(fitted.held_out), fitted.estimator.predict_proba(fitted.held_out))
    assert model.classes_ == fitted.estimator.classes_.tolist()
    assert model.predict_proba(fitted.held_out.iloc[:0]).shape == (0, 2)


def test_a_model_without_probabilities_says_so(tmp_path: Path) -> None:
    fitted = fit(sk("linear_model.RidgeClassifier")(), bars(), labels(0, 1))
    fin_pyfunc.save_model(fitted.estimator, fitted.train, tmp_path / "model", input_example=None)
    with pytest.raises(AttributeError, match="has no probabilities: its estimator has no predict_proba"):
        fin_pyfunc.load_model(str(tmp_path / "model")).predict_proba(fitted.held_out)


def test_text_in_an_answer_is_of_dtype_object_which_every_client_of_mlflow_knows(tmp_path: Path) -> None:
    fitted = fit(sk("linear_model.LogisticRegression")(), bars(), labels("down", "up"))
    fin_pyfunc.save_model(fitted.estimator, fitted.train, tmp_path / "model", input_example=None)
    model = fin_pyfunc.load_model(str(tmp_path / "model"))
    for table in (model.predict(fitted.held_out), model.predict(fitted.held_out, {"return_proba": False})):
        texts = [name for name in ("prediction", "confidence") if table[name].dtype != np.dtype(object)]
        assert texts == [], "MLServer 1.7 cannot encode pandas' own dtype of text"
        assert set(map(type, table["prediction"])) == {str}
    assert model.predict(fitted.held_out)["probability"].dtype == np.float64
