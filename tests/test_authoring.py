"""Logging: what is logged answers exactly as the estimator does, and what could not be served is refused here."""

from __future__ import annotations

import logging
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import mlflow
import numpy as np
import pandas as pd
import pytest

import fin_pyfunc
from fin_pyfunc.model.errors import ArtifactError, BackendError, FeatureError, NotLoggableError
from tests import models
from tests.conftest import SqliteStore
from tests.models import Fitted, bars, bars_with_gaps, fit, fit_array, labels, quotes, quotes_as_categories


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    """MLflow tells of every example it validates."""
    before = logging.getLogger("mlflow").level
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    yield
    logging.getLogger("mlflow").setLevel(before)


@pytest.fixture(autouse=True, scope="module")
def _as_in_a_notebook() -> Iterator[None]:
    """Classes of this file travel inside a pickle, as those of a notebook do."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def random_forest(**options: Any) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(10, max_depth=4, random_state=0, **options)


def encoded_text() -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    columns = ColumnTransformer(
        [
            ("text", OneHotEncoder(handle_unknown="ignore"), ["venue"]),
            ("numbers", StandardScaler(), ["return_1", "order_flow_imbalance", "hour"]),
            ("rest", "passthrough", ["is_month_end"]),
        ]
    )
    return make_pipeline(columns, LogisticRegression(max_iter=500))


class Momentum:
    """A classifier of the user's own: no scikit-learn, no classes_."""

    def predict_proba(self, X: Any) -> Any:
        up = 1 / (1 + np.exp(-np.asarray(X, dtype=float)[:, 3] * 1e4))
        return np.column_stack([1 - up, up])

    def predict(self, X: Any) -> Any:
        return np.where(self.predict_proba(X)[:, 1] > 0.3, "up", "down")


def duck() -> Fitted:
    return Fitted(Momentum(), bars().iloc[:160], bars().iloc[160:])


def of(make: Callable[[], Any], *names: Any, frame: Callable[[], pd.DataFrame] = bars) -> Callable[[], Fitted]:
    return lambda: fit(make(), frame(), labels(*(names or (-1, 0, 1))))


def sk(path: str, **options: Any) -> Callable[[], Any]:
    """An estimator by the dotted name of its class."""

    def make() -> Any:
        module, _, name = path.rpartition(".")
        return getattr(__import__(f"sklearn.{module}", fromlist=[name]), name)(**options)

    return make


def piped(make: Callable[[], Any]) -> Callable[[], Any]:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return lambda: make_pipeline(StandardScaler(), make())


def piped_through(transformer: Any, estimator: Any) -> Any:
    from sklearn.pipeline import make_pipeline

    return make_pipeline(transformer, estimator)


def voting() -> Any:
    members = [("forest", random_forest(n_jobs=-1)), ("bayes", sk("naive_bayes.GaussianNB")())]
    return sk("ensemble.VotingClassifier", estimators=members, voting="soft", weights=[0.3, 0.7])()


def stacking() -> Any:
    members = [("forest", random_forest(n_jobs=2)), ("bayes", sk("naive_bayes.GaussianNB")())]
    return sk("ensemble.StackingClassifier", estimators=members, cv=2)()


def lightgbm(**options: Any) -> Any:
    from lightgbm import LGBMClassifier

    return LGBMClassifier(n_estimators=8, min_child_samples=5, random_state=0, verbose=-1, **options)


def xgboost(**options: Any) -> Any:
    from xgboost import XGBClassifier

    return XGBClassifier(n_estimators=8, max_depth=3, random_state=0, n_jobs=1, **options)


linear = sk("linear_model.LogisticRegression", max_iter=500)
hist = sk("ensemble.HistGradientBoostingClassifier", max_iter=8, random_state=0)
hist_of_categories = sk(
    "ensemble.HistGradientBoostingClassifier", max_iter=8, random_state=0, categorical_features="from_dtype"
)

FAMILIES: dict[str, Callable[[], Fitted]] = {
    "random forest": of(random_forest),
    "random forest, two classes": of(random_forest, 0, 1),
    "random forest on every core": of(lambda: random_forest(n_jobs=-1)),
    "random forest on a bare array": lambda: fit_array(random_forest(), labels(-1, 0, 1)),
    "random forest with gaps": of(random_forest, frame=bars_with_gaps),
    "random forest on float32": of(random_forest, frame=lambda: bars().astype("float32")),
    "extra trees, text labels": of(
        sk("ensemble.ExtraTreesClassifier", n_estimators=10, max_depth=4, random_state=0), "buy", "hold", "sell"
    ),
    "decision tree": of(sk("tree.DecisionTreeClassifier", max_depth=3, random_state=0)),
    "gradient boosting": of(sk("ensemble.GradientBoostingClassifier", n_estimators=8, random_state=0)),
    "gradient boosting, boolean labels": of(
        sk("ensemble.GradientBoostingClassifier", n_estimators=8, random_state=0), False, True
    ),
    "hist gradient boosting with gaps": of(hist, frame=bars_with_gaps),
    "hist gradient boosting of categories": of(hist_of_categories, frame=quotes_as_categories),
    "scaled logistic regression": of(piped(linear), 0, 1),
    "scaled logistic regression, float labels": of(piped(linear), -1.0, 0.0, 1.0),
    "logistic regression on a bare array": lambda: fit_array(linear(), labels("down", "up")),
    "encoded text": of(encoded_text, "down", "flat", "up", frame=quotes),
    "calibrated, sigmoid": of(sk("calibration.CalibratedClassifierCV", method="sigmoid", cv=2)),
    "calibrated forest, isotonic": of(
        lambda: sk("calibration.CalibratedClassifierCV", estimator=random_forest(), method="isotonic", cv=2)()
    ),
    "nearest neighbours": of(sk("neighbors.KNeighborsClassifier", n_neighbors=3)),
    "nearest neighbours, ball tree": of(sk("neighbors.KNeighborsClassifier", algorithm="ball_tree")),
    "naive Bayes": of(sk("naive_bayes.GaussianNB")),
    "discriminant analysis": of(sk("discriminant_analysis.LinearDiscriminantAnalysis")),
    "Gaussian process": of(sk("gaussian_process.GaussianProcessClassifier"), 0, 1),
    "best features": of(lambda: piped_through(sk("feature_selection.SelectKBest", k=2)(), linear())),
    "imputed": of(lambda: piped_through(sk("impute.SimpleImputer")(), linear()), frame=bars_with_gaps),
    "neural network": of(
        piped(sk("neural_network.MLPClassifier", hidden_layer_sizes=(4,), max_iter=20, random_state=0))
    ),
    "linear support vectors": of(piped(sk("svm.LinearSVC", random_state=0))),
    "ridge": of(sk("linear_model.RidgeClassifier")),
    "hard vote": of(
        lambda: sk("ensemble.VotingClassifier", estimators=[("a", linear()), ("b", random_forest())])(), "a", "b"
    ),
    "soft vote": of(voting),
    "stacking": of(stacking),
    "AdaBoost": of(sk("ensemble.AdaBoostClassifier", n_estimators=8, random_state=0)),
    "bagging": of(lambda: sk("ensemble.BaggingClassifier", estimator=linear(), n_estimators=3, random_state=0)()),
    "grid search": of(
        lambda: sk("model_selection.GridSearchCV", estimator=random_forest(), param_grid={"max_depth": [2, 3]}, cv=2)()
    ),
    "LightGBM": of(lightgbm, "buy", "hold", "sell"),
    "LightGBM, two classes": of(lightgbm, 0, 1),
    "LightGBM of categories": of(lightgbm, frame=quotes_as_categories),
    "LightGBM on a bare array": lambda: fit_array(lightgbm(), labels(-1, 0, 1)),
    "XGBoost": of(xgboost, 0, 1, 2),
    "XGBoost, two classes, with gaps": of(xgboost, 0, 1, frame=bars_with_gaps),
    "XGBoost of categories": of(lambda: xgboost(enable_categorical=True), 0, 1, 2, frame=quotes_as_categories),
    "XGBoost on a bare array": lambda: fit_array(xgboost(), labels(0, 1)),
}


def support_vectors() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return sk("svm.SVC", probability=True, random_state=0)()


def saved(fitted: Fitted, tmp_path: Path, **options: Any) -> fin_pyfunc.FinPyfuncModel:
    fin_pyfunc.save_model(fitted.estimator, fitted.train, tmp_path / "model", input_example=None, **options)
    return fin_pyfunc.load_model(str(tmp_path / "model"))


def as_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as a client has them after decoding JSON."""
    return [
        {str(k): None if pd.isna(v) else v for k, v in row.items()} for row in frame.astype(object).to_dict("records")
    ]


def assert_same_answers(model: fin_pyfunc.FinPyfuncModel, fitted: Fitted, classes: list[Any] | None = None) -> None:
    """A table, rows, and single rows are answered as the estimator itself answers the held-out rows."""
    estimator, frame = fitted.estimator, fitted.held_out
    X = frame if hasattr(estimator, "feature_names_in_") else frame.to_numpy()
    own = np.asarray(getattr(estimator, "classes_", ["down", "up"])).tolist()
    expected = np.asarray(estimator.predict(X)).tolist()
    if classes is not None:
        expected, own = [classes[own.index(label)] for label in expected], classes
    proba = estimator.predict_proba(X) if hasattr(estimator, "predict_proba") else None
    table, rows = model.predict(frame), as_rows(frame)
    batch = model.decide(rows)
    assert table["prediction"].tolist() == batch.predictions == expected
    assert table.index.equals(frame.index)
    assert {type(label) for label in batch.predictions} == {type(label) for label in expected}
    if proba is None:
        assert set(table["confidence"]) == {"unknown"}
        assert list(table.columns) == ["prediction", "confidence"]
        assert batch.distributions is None
    else:
        names = [c for c in table.columns if c.startswith("probability_")]
        assert len(names) == len(own)
        np.testing.assert_allclose(table[names].to_numpy(), proba, rtol=0, atol=1e-9)
        assert batch.distributions is not None
        np.testing.assert_allclose([list(d.values()) for d in batch.distributions], proba, rtol=0, atol=1e-9)
    for i, row in enumerate(rows[:8]):
        shuffled = dict(reversed(row.items())) | {"bar_id": 7}
        one = model.predict_one(shuffled)
        assert one["prediction"] == expected[i]
        if proba is None:
            assert one["confidence"] == "unknown"
        else:
            np.testing.assert_allclose(list(one["probabilities"].values()), proba[i], rtol=0, atol=1e-9)
            assert one["probability"] == list(one["probabilities"].values())[own.index(expected[i])]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore")
def test_a_family_answers_as_its_estimator_does(family: str, tmp_path: Path) -> None:
    fitted = FAMILIES[family]()
    model = saved(fitted, tmp_path)
    assert model.manifest is not None
    assert model.manifest.serialization == "skops"
    assert_same_answers(model, fitted)
    example = model.manifest.example
    assert model.predict_one(example.features)["prediction"] == example.prediction


@pytest.mark.filterwarnings("ignore")
def test_support_vectors_answer_with_predict_which_may_differ_from_the_most_probable(tmp_path: Path) -> None:
    # four points a class: Platt's sigmoid, fitted on folds, then disagrees with the decision function
    X = pd.DataFrame({"x": [0.0, 0.1, 0.9, 1.0, 0.4, 0.6, 0.45, 0.55, 0.52, 0.48] * 2})
    y = np.array([0, 1, 0, 1, 1, 0, 1, 0, 1, 1] * 2)
    estimator = support_vectors().fit(X, y)
    predicted, probable = estimator.predict(X), estimator.predict_proba(X).argmax(axis=1)
    assert (predicted != estimator.classes_[probable]).any(), "the sample no longer shows the difference"
    assert_same_answers(saved(Fitted(estimator, X, X), tmp_path), Fitted(estimator, X, X))


def test_classes_rename_the_codes_that_xgboost_was_trained_on(tmp_path: Path) -> None:
    fitted = fit(xgboost(), bars(), labels(0, 1, 2))
    model = saved(fitted, tmp_path, classes=[-1, 0, 1])
    assert_same_answers(model, fitted, classes=[-1, 0, 1])
    assert list(model.predict_one(as_rows(fitted.held_out)[0])["probabilities"]) == ["-1", "0", "1"]


def test_an_object_of_the_users_own_is_logged_with_cloudpickle(tmp_path: Path) -> None:
    fitted = duck()
    model = saved(fitted, tmp_path, serialization="cloudpickle", classes=["down", "up"])
    assert_same_answers(model, fitted)


def test_the_users_own_n_jobs_are_left_as_they_were(tmp_path: Path) -> None:
    fitted = fit(voting(), bars(), labels(0, 1))
    forest = fitted.estimator.estimators_[0]
    model = saved(fitted, tmp_path)
    assert forest.n_jobs == -1
    assert fitted.estimator.n_jobs is None
    assert fitted.estimator.estimators[0][1].n_jobs == -1
    loaded: Any = model.dispatch.backends[0]
    assert loaded.estimator.estimators_[0].n_jobs == 1  # a thread pool costs more than a few rows


def test_columns_may_come_in_any_order_and_the_sample_too(tmp_path: Path) -> None:
    fitted = models.small_forest()
    shuffled = fitted._replace(train=fitted.train[list(reversed(fitted.train.columns))].assign(bar_id=1))
    model = saved(shuffled, tmp_path, identifiers=["bar_id"])
    assert_same_answers(model, fitted)
    pd.testing.assert_frame_equal(
        model.predict(fitted.held_out[list(reversed(fitted.held_out.columns))]), model.predict(fitted.held_out)
    )


def test_a_probability_beyond_one_by_rounding_is_taken_and_one_far_beyond_is_not(tmp_path: Path) -> None:
    fitted = duck()

    class Rounded(Momentum):
        excess = 1e-12

        def predict_proba(self, X: Any) -> Any:
            return np.tile([0.0, 1.0 + self.excess], (len(X), 1))

        def predict(self, X: Any) -> Any:
            return np.array(["up"] * len(X))

    options: dict[str, Any] = {"serialization": "cloudpickle", "classes": ["down", "up"]}
    model = saved(fitted._replace(estimator=Rounded()), tmp_path, **options)
    assert model.predict_one(as_rows(fitted.train)[0])["probability"] == 1.0
    Rounded.excess = 0.1
    refused(Rounded(), fitted.train, "not a number between 0 and 1", tmp_path / "b", **options)


# what is refused


def refused(estimator: Any, X: Any, says: str, tmp_path: Path, **options: Any) -> str:
    with pytest.raises(NotLoggableError, match=says) as e:
        fin_pyfunc.save_model(estimator, X, tmp_path / "model", **options)
    assert not (tmp_path / "model").exists()
    assert "\n" not in str(e.value)
    return str(e.value)


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
    "date": (
        lambda: bars().assign(spread=pd.Timestamp("2012-02-01")),
        "'spread' has dtype datetime64.*convert it, or declare it",
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


# our own options, loaded again


def test_thresholds_extra_and_identifiers_are_the_models_own(tmp_path: Path) -> None:
    fitted = models.logistic()
    train = fitted.train.assign(bar_id=range(len(fitted.train)), at=pd.Timestamp("2012-02-01"))
    with pytest.raises(NotLoggableError, match="medium"):
        saved(fitted._replace(train=train), tmp_path, identifiers=["bar_id", "at"], confidence={"high": 0.5})
    model = saved(
        fitted._replace(train=train),
        tmp_path,
        identifiers=["bar_id", "at", "desk"],
        extra="forbid",
        confidence={"high": 0.5, "medium": 0.1},
    )
    row = as_rows(fitted.held_out)[0]
    assert model.predict_one(row | {"bar_id": "x", "at": 1, "desk": None})["confidence"] == "high"
    with pytest.raises(FeatureError, match="'mood' is unknown to this model"):
        model.predict_one(row | {"mood": "good"})
    inputs = mlflow.pyfunc.load_model(str(tmp_path / "model")).metadata.get_input_schema()
    assert inputs.required_input_names() == ["return_1", "order_flow_imbalance"]
    assert inputs.optional_input_names() == ["bar_id"]


@pytest.mark.parametrize(
    "value", [[1, 2], {"a": 1}, b"a", np.inf, None, pd.Timestamp("2012-02-01", tz="UTC"), np.uint64(2**63 + 5)]
)
def test_an_identifier_may_hold_anything(tmp_path: Path, value: Any) -> None:
    fitted = models.logistic()
    train = fitted.train.assign(bar_id=pd.Series([value] * len(fitted.train), index=fitted.train.index))
    fin_pyfunc.save_model(fitted.estimator, train, tmp_path / "model", identifiers=["bar_id"])
    assert_same_answers(fin_pyfunc.load_model(str(tmp_path / "model")), fitted)


def test_loading_a_model_that_is_not_ours_says_so(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    mlflow.sklearn.save_model(
        models.logistic().estimator, foreign, serialization_format="cloudpickle", pip_requirements=[]
    )
    with pytest.raises(ArtifactError, match="not logged by fin_pyfunc: log it with"):
        fin_pyfunc.load_model(str(tmp_path / "foreign"))


def test_a_backend_is_asked_for_by_name_and_never_quietly_replaced(tmp_path: Path) -> None:
    saved(models.logistic(), tmp_path, backend="native")
    assert fin_pyfunc.load_model(str(tmp_path / "model"), backend="cpu").dispatch.backends[0].name == "native"
    with pytest.raises(BackendError, match="'abacus' is not available for this model; expected one of 'auto'"):
        fin_pyfunc.load_model(str(tmp_path / "model"), backend="abacus")


# MLflow's own keywords


@pytest.fixture
def store(sqlite_store: SqliteStore) -> Iterator[str]:
    """The id of an experiment in the session's store, which is MLflow's own store meanwhile."""
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(sqlite_store.tracking_uri)
    experiment = mlflow.get_experiment_by_name("authoring")
    if experiment is not None:
        yield experiment.experiment_id
    else:
        yield mlflow.create_experiment("authoring", artifact_location=sqlite_store.artifact_root.as_uri())
    mlflow.set_tracking_uri(before)


def test_mlflows_own_keywords_mean_what_they_mean_there(store: str, tmp_path: Path) -> None:
    fitted = models.small_forest()
    (tmp_path / "desk_helpers.py").write_text("DESK = 'fx'\n")
    example = fitted.train.head(3)
    with mlflow.start_run(experiment_id=store) as run:
        info = fin_pyfunc.log_model(
            fitted.estimator,
            fitted.train,
            "forest",
            identifiers=["bar_id"],
            registered_model_name="authoring_forest",
            metadata={"desk": "fx"},
            params={"depth": "4"},
            tags={"asset": "EURUSD"},
            input_example=example,
            extra_pip_requirements=["tabulate"],
            code_paths=[str(tmp_path / "desk_helpers.py")],
        )
    assert info.run_id == run.info.run_id
    assert info.registered_model_version == 1
    assert info.metadata["desk"] == "fx"
    assert re.fullmatch("[0-9a-f]{64}", info.metadata["fin_pyfunc"]["manifest_sha256"])
    logged = mlflow.get_logged_model(info.model_id)
    assert logged.params["depth"] == "4"
    assert logged.tags["asset"] == "EURUSD"
    for uri in (f"runs:/{run.info.run_id}/forest", "models:/authoring_forest/1", info.model_uri):
        assert_same_answers(fin_pyfunc.load_model(uri), fitted)
    loaded = mlflow.pyfunc.load_model(info.model_uri)
    local = Path(mlflow.artifacts.download_artifacts(info.model_uri, dst_path=str(tmp_path / "downloaded")))
    requirements = (local / "requirements.txt").read_text().splitlines()
    assert requirements[0].startswith("code/fin_pyfunc-")
    assert "tabulate" in requirements
    assert any(line.startswith("scikit-learn==") for line in requirements)
    assert (local / "code" / "desk_helpers.py").is_file()
    pd.testing.assert_frame_equal(loaded.input_example, example)


def test_a_model_is_logged_without_a_run_as_mlflow_does_it(store: str) -> None:
    mlflow.set_experiment(experiment_id=store)
    try:
        info = fin_pyfunc.log_model(models.logistic().estimator, models.logistic().train)
    finally:
        mlflow.end_run()
    assert_same_answers(fin_pyfunc.load_model(info.model_uri), models.logistic())


def test_requirements_of_the_callers_take_the_place_of_ours_but_our_wheel_stays(tmp_path: Path) -> None:
    (tmp_path / "list").mkdir()
    saved(models.logistic(), tmp_path / "list", pip_requirements=["scikit-learn>=1.5"])
    listed = (tmp_path / "list" / "model" / "requirements.txt").read_text().splitlines()
    assert sum(line.startswith("code/fin_pyfunc-") for line in listed) == 1
    assert "scikit-learn>=1.5" in listed
    assert not any("==" in line for line in listed if not line.startswith("mlflow=="))  # which MLflow adds itself
    file = tmp_path / "requirements.txt"
    file.write_text("scikit-learn>=1.4\n")
    saved(models.logistic(), tmp_path, pip_requirements=str(file), extra_pip_requirements=str(file))
    assert "scikit-learn>=1.4" in (tmp_path / "model" / "requirements.txt").read_text().splitlines()


def test_none_means_the_default_as_in_mlflow(tmp_path: Path) -> None:
    mlflows = ("metadata", "code_paths", "signature", "pip_requirements", "extra_pip_requirements")
    ours = ("identifiers", "confidence", "classes")
    model = saved(models.logistic(), tmp_path, **dict.fromkeys([*mlflows, *ours]))
    assert_same_answers(model, models.logistic())


def test_a_signature_of_the_callers_must_name_every_feature(tmp_path: Path) -> None:
    from mlflow.models import ModelSignature, infer_signature

    fitted = models.logistic()
    refused(
        fitted.estimator,
        fitted.train,
        "signature given lacks 'order_flow_imbalance'.*add it, or leave signature out",
        tmp_path,
        signature=infer_signature(fitted.train[["return_1"]]),
    )
    no_inputs = ModelSignature(outputs=infer_signature(fitted.train).inputs)
    refused(fitted.estimator, fitted.train, "signature given lacks", tmp_path, signature=no_inputs)
    given = infer_signature(fitted.train.assign(note="a"))
    saved(fitted, tmp_path, signature=given)
    assert mlflow.pyfunc.load_model(str(tmp_path / "model")).metadata.signature == given


def test_the_signature_says_what_goes_in_and_what_comes_out(tmp_path: Path) -> None:
    fitted = fit(hist_of_categories(), quotes_as_categories(), labels(-1, 0, 1))
    saved(fitted, tmp_path)
    signature = mlflow.pyfunc.load_model(str(tmp_path / "model")).metadata.signature
    assert [(c.name, c.type.name) for c in signature.inputs] == [
        ("return_1", "double"),
        ("order_flow_imbalance", "double"),
        ("venue", "string"),
        ("hour", "long"),
    ]
    assert [(c.name, c.type.name, c.required) for c in signature.outputs] == [
        ("prediction", "long", True),
        ("probability", "double", False),
        ("confidence", "string", True),
        ("probability_-1", "double", False),
        ("probability_0", "double", False),
        ("probability_1", "double", False),
    ]
    assert [(p.name, p.dtype.name, p.default) for p in signature.params] == [("return_proba", "boolean", True)]


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
