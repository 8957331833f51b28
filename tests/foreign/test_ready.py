"""Ready means that the model has answered a row by the way of `/predict`; else it is refused, and why."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cloudpickle
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from fin_pyfunc.model.errors import ArtifactError
from fin_pyfunc.serving.loader import warm_up
from tests.foreign.conftest import Open
from tests.models import bars, labels

cloudpickle.register_pickle_by_value(sys.modules[__name__])
LIBRARY = {"pip_requirements": ["scikit-learn"]}
PICKLED = {"serialization_format": "cloudpickle", **LIBRARY}
FRAME, Y = bars(), labels(-1, 0, 1)


class Told(mlflow.pyfunc.PythonModel):  # type: ignore[misc] # mlflow ships no types
    """Does what a function of its input says."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        return self.answer(model_input)


def fails(_: Any) -> Any:
    raise RuntimeError("secret place")


REFUSED: dict[str, tuple[Any, str]] = {
    "raises": (fails, r"does not answer /predict \(the model raised RuntimeError\): log it with an input_example"),
    "fraction": (lambda frame: frame["spread"] * 2.5, "it is no classifier"),
    "table": (lambda frame: np.zeros((len(frame), 3)), "expected one label a row"),
}


@pytest.mark.parametrize("opened", ["here"], indirect=True)
@pytest.mark.parametrize(("answer", "said"), REFUSED.values(), ids=REFUSED)
def test_a_python_model_that_answers_no_row_is_not_ready(opened: Open, tmp_path: Path, answer: Any, said: str) -> None:
    mlflow.pyfunc.save_model(tmp_path / "m", python_model=Told(answer), signature=infer_signature(FRAME), **LIBRARY)
    with pytest.raises(ArtifactError, match=said) as refused:
        warm_up(opened(tmp_path / "m"))
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("signed", [True, False])
def test_a_regressor_is_refused_when_it_is_loaded(opened: Open, tmp_path: Path, signed: bool) -> None:
    regressor = make_pipeline(FunctionTransformer(), LinearRegression()).fit(FRAME, Y)
    mlflow.sklearn.save_model(
        regressor, tmp_path / "m", signature=infer_signature(FRAME) if signed else None, **PICKLED
    )  # fmt: skip
    with pytest.raises(ArtifactError, match=r"^Pipeline is not a classifier, and this server answers for classifiers"):
        opened(tmp_path / "m")


@pytest.mark.parametrize("opened", ["here"], indirect=True)
@pytest.mark.parametrize("objective", ["regression", "binary", "lambdarank"])
def test_a_raw_booster_answers_or_is_refused(opened: Open, tmp_path: Path, objective: str) -> None:
    lgb = pytest.importorskip("lightgbm")
    data = lgb.Dataset(FRAME, labels(0, 1), group=[len(FRAME)] if objective == "lambdarank" else None)
    booster = lgb.train({"objective": objective, "num_threads": 1, "verbose": -1}, data, 3)
    mlflow.lightgbm.save_model(booster, tmp_path / "m", signature=infer_signature(FRAME), **LIBRARY)
    if objective != "binary":
        with pytest.raises(ArtifactError, match=f"of the objective '{objective}' is not a classifier"):
            opened(tmp_path / "m")
        return
    loaded = opened(tmp_path / "m")
    warm_up(loaded)
    assert loaded.model.answered is not None
    p = loaded.model.decide_frame(FRAME.tail(9)).scores.probabilities
    assert p is not None
    np.testing.assert_array_equal(p[:, 1], booster.predict(FRAME.tail(9)))


def sqrt(frame: pd.DataFrame) -> pd.DataFrame:
    if (frame < 5000).any(axis=None):
        raise ValueError("below the root")
    return frame**0.5


def test_the_input_example_is_tried_before_any_other_row(opened: Open, tmp_path: Path) -> None:
    """No row that could be made is answered here."""
    far = FRAME.abs() + 6000
    estimator = make_pipeline(FunctionTransformer(sqrt), LogisticRegression()).fit(far, Y)
    for name, example in (("with", far.head(2)), ("without", None)):
        mlflow.sklearn.save_model(
            estimator, tmp_path / name, signature=infer_signature(far), input_example=example, **PICKLED
        )  # fmt: skip
    warm_up(opened(tmp_path / "with"))
    with pytest.raises(ArtifactError, match=r"\(the estimator raised ValueError\): log it with an input_example"):
        warm_up(opened(tmp_path / "without"))


def known(frame: pd.DataFrame) -> list[str]:
    return [{"EBS": "up", "LMAX": "down"}[venue] for venue in frame["venue"]]


def test_what_cannot_be_tried_is_ready_with_a_warning(
    opened: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = pd.DataFrame({"venue": ["EBS", "LMAX"]})
    for name, signature in (("texts", infer_signature(texts)), ("unsigned", None)):
        mlflow.pyfunc.save_model(tmp_path / name, python_model=Told(known), signature=signature, **LIBRARY)
        caplog.clear()
        loaded = opened(tmp_path / name)
        warm_up(loaded)
        assert "is not tried out: nothing says which values its features may have" in caplog.text
        assert loaded.model.decide([{"venue": "LMAX"}]).predictions == ["down"]
