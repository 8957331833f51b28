"""What could not be served is refused when it is logged, in a sentence that says what to do."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

import fin_pyfunc
from fin_pyfunc.model.errors import NotLoggableError
from tests import models
from tests.authoring.checks import as_rows, assert_same_answers, refused, saved
from tests.authoring.estimators import duck, lightgbm, linear, piped, random_forest, sk, why_no_lightgbm, xgboost
from tests.models import Fitted, bars, bars_with_gaps, fit, fit_array, labels


class Odd:
    """Answers whatever it was given to answer."""

    def __init__(self, answer: Callable[[Any], Any], proba: Callable[[Any], Any] | None = None) -> None:
        self.predict = answer
        if proba is not None:
            self.predict_proba = proba


def unfitted_cases() -> dict[str, tuple[Callable[[], Any], str]]:
    return {
        "regressor": (
            lambda: sk("linear_model.LinearRegression")().fit(bars(), labels(0, 1)),
            "not a classifier.*mlflow.sklearn",
        ),
        "transformer": (lambda: sk("preprocessing.StandardScaler")().fit(bars()), "no method predict.*pass a fitted"),
        "outlier detector": (lambda: sk("ensemble.IsolationForest", n_estimators=2)().fit(bars()), "not a classifier"),
        "unfitted": (random_forest, "not fitted: call fit"),
        "unfitted pipeline": (piped(linear), "not fitted: call fit"),
        "unfitted LightGBM": (lightgbm, "not fitted: call fit"),
        "unfitted XGBoost": (xgboost, "not fitted: call fit"),
        "class": (lambda: type(random_forest()), "is a class: pass a fitted instance"),
        "no predict": (object, "no method predict.*pass a fitted classifier"),
        "a lambda": (lambda: lambda X: X, "no method predict"),
        "None": (lambda: None, "no method predict"),
        "two outputs": (
            lambda: random_forest().fit(bars(), np.column_stack([labels(0, 1), labels(2, 3)])),
            "several outputs: log one",
        ),
        "two outputs of different sizes": (
            lambda: random_forest().fit(bars(), np.column_stack([labels(0, 1), labels(-1, 0, 1)])),
            "several outputs: log one",
        ),
        "many labels a row": (
            lambda: sk("neural_network.MLPClassifier", hidden_layer_sizes=(2,), max_iter=2)().fit(
                bars(), np.column_stack([labels(0, 1), labels(1, 0)])
            ),
            "fails on the sample",
        ),
        "no classes": (duck, "no classes_: say what it predicts with classes"),
    }


@pytest.mark.parametrize("case", unfitted_cases())
@pytest.mark.filterwarnings("ignore")
def test_what_is_no_fitted_classifier_is_refused(case: str, tmp_path: Path) -> None:
    make, says = unfitted_cases()[case]
    made = make()
    refused(made.estimator if isinstance(made, Fitted) else made, bars(), says, tmp_path)


SAMPLES: dict[str, tuple[Callable[[], Any], str]] = {
    "array": (lambda: bars().to_numpy(), "X is ndarray: pass a DataFrame"),
    "records": (lambda: bars().to_dict("records"), "X is list: pass a DataFrame"),
    "column missing": (lambda: bars().drop(columns="spread"), "'spread', which X lacks: pass its training columns"),
    "further column": (lambda: bars().assign(mood=1), "not trained on 'mood': drop it.*or declare it"),
    "column twice": (lambda: pd.concat([bars(), bars()[["spread"]]], axis=1), "'spread' occurs twice in X: drop one"),
    "column named by a number": (lambda: bars().rename(columns={"spread": 2}), "2 is not text: rename"),
    "no rows": (lambda: bars().iloc[:0], "no rows: pass at least one"),
    "length of time": (
        lambda: bars().assign(spread=pd.Timedelta("1s")),
        "'spread' has dtype timedelta64.*convert it, or declare it",
    ),
    "date that it cannot take": (
        lambda: bars().assign(spread=pd.Timestamp("2012-02-01")),
        "fails on the sample itself",
    ),
    "objects": (lambda: bars().assign(spread=[[1]] * len(bars())), "'spread' has dtype object.*convert it"),
    "infinite": (lambda: bars().assign(spread=np.inf), "'spread' holds infinite values.*clip or drop"),
    "huge integers": (lambda: bars().assign(spread=2**60), "'spread' holds integers beyond.*declare it"),
    "missing values that it cannot take": (
        lambda: bars_with_gaps(),
        "fails on the sample itself.*NaN",
    ),
}


@pytest.mark.parametrize("case", SAMPLES)
@pytest.mark.filterwarnings("ignore")
def test_a_sample_that_does_not_fit_is_refused(case: str, tmp_path: Path) -> None:
    make, says = SAMPLES[case]
    refused(fit(linear(), bars(), labels(0, 1)).estimator, make(), says, tmp_path)


def test_a_sample_of_another_width_is_refused_where_the_estimator_knows_no_names(tmp_path: Path) -> None:
    fitted = fit_array(linear(), labels(0, 1))
    refused(fitted.estimator, fitted.train.assign(bar_id=1), "trained on 5 features, but X has 6", tmp_path)
    refused(fitted.estimator, fitted.train[["spread"]], "trained on 5 features, but X has 1", tmp_path)


OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "backend": ({"backend": "abacus"}, "backend='abacus' is not known; expected one of 'auto', 'cpu'"),
    "serialization": ({"serialization": "pickle"}, "serialization='pickle' is not known.*'skops', 'cloudpickle'"),
    "extra": ({"extra": "allow"}, "extra='allow' is not known.*'ignore', 'forbid'"),
    "threshold order": ({"confidence": {"high": 0.5}}, "confidence cannot be used.*pass"),
    "threshold name": ({"confidence": {"higher": 0.9}}, "no level 'higher': it takes"),
    "threshold text": ({"confidence": {"high": "a lot"}}, "confidence cannot be used"),
    "threshold number": ({"confidence": 0.8}, "confidence is not a mapping: pass"),
    "identifiers text": ({"identifiers": "bar_id"}, r"identifiers is text: pass a list"),
    "identifiers number": ({"identifiers": [1]}, "not text: pass names"),
    "identifier trained on": ({"identifiers": ["return_1"]}, "'return_1' is an identifier here.*take it out"),
    "too few classes": ({"classes": ["a"]}, "classes has 1 labels, but the estimator was trained on 2"),
    "classes alike": ({"classes": [1, "1"]}, "read the same as text.*rename one"),
    "classes missing": ({"classes": [1, None]}, "None is not a finite number, text or boolean"),
    "classes infinite": ({"classes": [1.0, np.inf]}, "inf is not a finite number"),
    "code paths text": ({"code_paths": "helpers.py"}, "code_paths is text: pass a list"),
    "requirements file": ({"pip_requirements": "nowhere.txt"}, "requirements file cannot be read.*pass a list"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_an_option_that_does_not_work_is_refused(case: str, tmp_path: Path) -> None:
    options, says = OPTIONS[case]
    fitted = models.logistic()
    refused(fitted.estimator, fitted.train, says, tmp_path, **options)


def test_numpy_labels_are_taken_as_labels(tmp_path: Path) -> None:
    fitted = models.logistic()
    model = saved(fitted, tmp_path, classes=[np.int64(-1), 1])
    assert model.manifest is not None
    assert model.manifest.classes == [-1, 1]


def test_an_unknown_keyword_is_a_type_error(tmp_path: Path) -> None:
    fitted = models.logistic()
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'identifier'; it takes .*identifiers"):
        fin_pyfunc.save_model(fitted.estimator, fitted.train, tmp_path / "m", identifier=["bar_id"])  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="registered_model_name"):
        fin_pyfunc.save_model(fitted.estimator, fitted.train, tmp_path / "m", registered_model_name="x")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"log_model\(\) got an unexpected keyword argument 'artifact_path'"):
        fin_pyfunc.log_model(fitted.estimator, fitted.train, artifact_path="model")  # type: ignore[call-arg]


def test_a_transformer_of_the_users_own_is_refused_as_skops_and_told_of_cloudpickle(tmp_path: Path) -> None:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    fitted = fit(make_pipeline(FunctionTransformer(np.abs), linear()), bars(), labels(0, 1))
    assert_same_answers(saved(fitted, tmp_path / "numpy"), fitted)
    own = fit(make_pipeline(FunctionTransformer(lambda X: X * 2), linear()), bars(), labels(0, 1))
    refused(own.estimator, own.train, "serialization='cloudpickle'", tmp_path)


def test_a_class_from_a_file_of_this_machine_must_bring_the_file_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "house_rules.py"
    module.write_text(
        "import numpy as np\n"
        "class AlwaysUp:\n"
        "    classes_ = np.array(['down', 'up'])\n"
        "    def predict(self, X):\n"
        "        return np.array(['up'] * len(X))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import house_rules  # type: ignore[import-not-found]

    estimator = house_rules.AlwaysUp()
    options: dict[str, Any] = {"serialization": "cloudpickle", "input_example": None}
    refused(estimator, bars(), r"module 'house_rules'.*code_paths=\[", tmp_path, **options)
    fin_pyfunc.save_model(estimator, bars(), tmp_path / "model", code_paths=[str(module)], **options)
    assert (tmp_path / "model" / "code" / "house_rules.py").is_file()
    sys.modules.pop("house_rules")
    assert fin_pyfunc.load_model(str(tmp_path / "model")).predict_one(as_rows(bars())[0])["prediction"] == "up"

    # a notebook's class that refers to the module is held to the same
    names = {"house_rules": house_rules, "__name__": "__main__"}
    exec("def answer(X):\n    return house_rules.AlwaysUp().predict(X)", names)
    notebook = Odd(names["answer"])  # type: ignore[arg-type]
    refused(notebook, bars(), "module 'house_rules'", tmp_path / "b", classes=["down", "up"], **options)
    sys.modules.pop("house_rules", None)


def test_a_module_that_a_notebooks_class_refers_to_is_among_the_requirements(tmp_path: Path) -> None:
    if why_no_lightgbm():
        pytest.skip(why_no_lightgbm())
    import lightgbm as gbm

    names: dict[str, Any] = {"lightgbm": gbm, "np": np, "__name__": "__main__"}
    exec("def answer(X):\n    return np.array([bool(lightgbm.__version__)] * len(X))", names)
    fitted = Fitted(Odd(names["answer"]), bars(), bars())
    saved(fitted, tmp_path, serialization="cloudpickle", classes=[False, True])
    assert f"lightgbm=={gbm.__version__}" in (tmp_path / "model" / "requirements.txt").read_text().splitlines()


def random_answers(X: Any) -> Any:
    return np.where(np.random.default_rng().random(len(X)) < 0.5, "down", "up")


def looks_at_the_batch(X: Any) -> Any:
    flow = np.asarray(X)[:, 4]
    return np.where(flow > flow.mean(), "up", "down")


def changes_its_mind(state: list[int] = []) -> Callable[[Any], Any]:  # noqa: B006 - state is the point
    def answer(X: Any) -> Any:
        state.append(1)
        return np.array(["up" if len(state) % 2 else "down"] * len(X))

    return answer


ODD: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any] | None, str]] = {
    "random": (random_answers, None, "answers differently"),
    "looks at the batch": (looks_at_the_batch, None, "answers differently.*no look at other rows"),
    "raises": (lambda X: X.nowhere, None, "fails on the sample itself: the estimator raised AttributeError"),
    "another label": (lambda X: ["sideways"] * len(X), None, "a label that is not among its classes"),
    "too few answers": (lambda X: ["up"], None, "answered 1 predictions for"),
    "nothing": (lambda X: None, None, "answered 1 predictions for"),
    "lists of different lengths": (lambda X: [["up"], ["up", "down"]], None, "not one label a row"),
    "unhashable": (lambda X: [{}] * len(X), None, "a label that is not among its classes"),
    "probabilities of another shape": (lambda X: ["up"] * len(X), lambda X: np.ones((len(X), 3)), "of shape"),
    "probabilities that are text": (lambda X: ["up"] * len(X), lambda X: [["a", "b"]] * len(X), "table of numbers"),
    "probabilities that are NaN": (
        lambda X: ["up"] * len(X),
        lambda X: np.full((len(X), 2), np.nan),
        "not a number between",
    ),
    "scores for probabilities": (lambda X: ["up"] * len(X), lambda X: np.full((len(X), 2), 7.0), "between 0 and 1"),
}


@pytest.mark.parametrize("case", ODD)
def test_an_estimator_that_does_not_answer_row_by_row_is_refused(case: str, tmp_path: Path) -> None:
    answer, proba, says = ODD[case]
    options: dict[str, Any] = {"serialization": "cloudpickle", "classes": ["down", "up"]}
    refused(Odd(answer, proba), bars(), says, tmp_path, **options)


def test_an_existing_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.txt").write_text("mine")
    fitted = models.logistic()
    with pytest.raises(mlflow.MlflowException, match="already exists"):
        fin_pyfunc.save_model(fitted.estimator, fitted.train, tmp_path / "model")
    assert (tmp_path / "model" / "mine.txt").read_text() == "mine"


class HoldsALock:
    """A user's own classifier with something in it that belongs to this process alone."""

    classes_ = np.array([-1, 1])

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def predict(self, X: pd.DataFrame) -> np.ndarray[Any, Any]:
        return np.ones(len(X), dtype=int)


def test_what_cannot_be_pickled_is_refused_with_what_to_leave_out(tmp_path: Path) -> None:
    with pytest.raises(NotLoggableError, match=r"HoldsALock cannot be pickled .* leave out of it"):
        fin_pyfunc.save_model(HoldsALock(), bars(), tmp_path / "m", serialization="cloudpickle")
