"""What only training needs is left out of the file, and what is kept answers as the whole estimator does."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import loguniform
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, make_column_selector, make_column_transformer
from sklearn.ensemble import (
    BaggingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.experimental import (  # noqa: F401 - they make the two classes importable
    enable_halving_search_cv,
    enable_iterative_imputer,
)
from sklearn.feature_selection import (
    RFE,
    RFECV,
    GenericUnivariateSelect,
    SelectFromModel,
    SelectKBest,
    SequentialFeatureSelector,
    f_regression,
    mutual_info_classif,
)
from sklearn.frozen import FrozenEstimator
from sklearn.impute import IterativeImputer
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, RidgeClassifier, RidgeClassifierCV
from sklearn.metrics import accuracy_score, f1_score, fbeta_score, make_scorer
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    HalvingGridSearchCV,
    KFold,
    RandomizedSearchCV,
    ShuffleSplit,
    TunedThresholdClassifierCV,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, SplineTransformer, StandardScaler
from sklearn.tree import DecisionTreeRegressor

from fin_pyfunc.authoring.training_parts import without_training_parts
from fin_pyfunc.model import estimators
from fin_pyfunc.model.backends.native import parts_of
from tests.authoring.checks import assert_same_answers, refused, saved
from tests.authoring.estimators import lightgbm, xgboost
from tests.models import Fitted, bars, bars_with_gaps, fit, labels, quotes


def linear() -> LogisticRegression:
    return LogisticRegression(max_iter=300)


def forest(**options: Any) -> RandomForestClassifier:
    return RandomForestClassifier(5, max_depth=3, random_state=0, **options)


def hist(scoring: Any) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(max_iter=5, early_stopping=True, scoring=scoring, random_state=0)


def search(estimator: Any = None, grid: Any = None, **options: Any) -> GridSearchCV:
    options = {"cv": 2, "scoring": make_scorer(f1_score)} | options
    return GridSearchCV(
        linear() if estimator is None else estimator, {"C": [0.1, 1]} if grid is None else grid, **options
    )


def tuned(estimator: Any = None, **options: Any) -> TunedThresholdClassifierCV:
    return TunedThresholdClassifierCV(
        linear() if estimator is None else estimator, **{"cv": 2, "scoring": "balanced_accuracy"} | options
    )


def piped(step: Any) -> Any:
    return make_pipeline(step, linear())


def frozen() -> Any:
    return FrozenEstimator(search().fit(bars(), labels(0, 1)))


class Purged:
    """A splitter of a desk's own."""

    def get_n_splits(self, *_: Any, **__: Any) -> int:
        return 2

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Any:
        return KFold(2).split(X)


UP_DOWN: dict[str, Callable[[], Any]] = {
    "a search by a named score": lambda: search(scoring="roc_auc"),
    "a search by a scorer": search,
    "a search by a lambda": lambda: search(scoring=lambda estimator, X, y: estimator.score(X, y)),
    "a search by several scores": lambda: search(
        scoring={"accuracy": "accuracy", "f2": make_scorer(fbeta_score, beta=2)}, refit="f2"
    ),
    "a search that chooses by a function": lambda: search(refit=lambda results: 0),
    "a search at random": lambda: RandomizedSearchCV(linear(), {"C": loguniform(0.1, 1)}, n_iter=2, cv=2),
    "a halving search": lambda: HalvingGridSearchCV(linear(), {"C": [0.1, 1]}, cv=2, min_resources=100),
    "a search over splits": lambda: search(cv=ShuffleSplit(2, random_state=0)),
    "a search over listed splits": lambda: search(cv=list(KFold(2).split(bars()[:160]))),
    "a search over a desk's own splits": lambda: search(cv=Purged()),
    "a search in a pipeline": lambda: make_pipeline(StandardScaler(), search()),
    "a search of a pipeline": lambda: search(piped(StandardScaler()), {"logisticregression__C": [0.1, 1]}),
    "a search of a search": lambda: search(search(), {"cv": [2, 3]}),
    "a search of thresholds": lambda: search(tuned(), {"estimator__C": [0.1, 1]}),
    "a search of LightGBM": lambda: search(lightgbm(), {"num_leaves": [3]}),
    "a tuned threshold": tuned,
    "a tuned threshold by a scorer": lambda: tuned(scoring=make_scorer(fbeta_score, beta=3)),
    "a tuned threshold of scores": lambda: tuned(RidgeClassifier()),
    "a tuned threshold of a search": lambda: tuned(search()),
    "a tuned threshold of a fitted model": lambda: tuned(frozen(), cv="prefit", refit=False),
    "a tuned threshold in a pipeline": lambda: make_pipeline(StandardScaler(), tuned()),
    "a fixed threshold of a search": lambda: FixedThresholdClassifier(search(), threshold=0.3),
    "a calibrated search": lambda: CalibratedClassifierCV(search(), cv=2),
    "a calibrated frozen search": lambda: CalibratedClassifierCV(frozen()),
    "calibrated over a desk's own splits": lambda: CalibratedClassifierCV(linear(), cv=Purged()),
    "a stack of searches": lambda: StackingClassifier(
        [("one", search()), ("two", forest())], final_estimator=search(), cv=2
    ),
    "a vote of searches": lambda: VotingClassifier(
        [("one", search()), ("two", tuned()), ("three", "drop")], voting="soft"
    ),
    "bags of searches": lambda: BaggingClassifier(search(), 2, random_state=0),
    "one search against the rest": lambda: OneVsRestClassifier(search()),
    "histograms by a named score": lambda: hist("roc_auc"),
    "histograms by a scorer": lambda: hist(make_scorer(f1_score)),
    "histograms in a pipeline": lambda: make_pipeline(StandardScaler(), hist("accuracy")),
    "columns that a lambda selects": lambda: piped(
        make_column_transformer((StandardScaler(), lambda X: list(X.columns[:3])))
    ),
    "a column selector in a stack": lambda: StackingClassifier(
        [("one", piped(make_column_transformer((StandardScaler(), make_column_selector(dtype_include=np.number)))))],
        cv=2,
    ),
    "splines": lambda: piped(SplineTransformer(n_knots=4)),
    "sparse splines": lambda: piped(SplineTransformer(n_knots=4, sparse_output=True, extrapolation="linear")),
    "periodic splines": lambda: piped(SplineTransformer(n_knots=4, knots="quantile", extrapolation="periodic")),
    "the most informative columns": lambda: piped(SelectKBest(mutual_info_classif, k=2)),
    "the same, of a seed": lambda: piped(SelectKBest(partial(mutual_info_classif, random_state=0), k=2)),
    "the same, by a lambda": lambda: piped(SelectKBest(lambda X, y: mutual_info_classif(X, y, random_state=0), k=2)),
    "columns chosen in any way": lambda: piped(GenericUnivariateSelect(f_regression, mode="k_best", param=2)),
    "columns eliminated": lambda: piped(RFECV(linear(), cv=ShuffleSplit(2), scoring=make_scorer(f1_score))),
    "columns eliminated by a function": lambda: piped(
        RFE(forest(), importance_getter=lambda fitted: fitted.feature_importances_, n_features_to_select=2)
    ),
    "columns added one by one": lambda: piped(
        SequentialFeatureSelector(linear(), n_features_to_select=2, cv=2, scoring=make_scorer(f1_score))
    ),
    "columns of a search": lambda: piped(
        SelectFromModel(search(forest(), {"max_depth": [2]}), importance_getter="best_estimator_.feature_importances_")
    ),
    "regression over penalties": lambda: LogisticRegressionCV(
        Cs=2, cv=ShuffleSplit(2, random_state=0), scoring=make_scorer(f1_score)
    ),
    "ridge over penalties": lambda: RidgeClassifierCV(scoring=make_scorer(accuracy_score)),
    "a forest judged by a function": lambda: forest(oob_score=f1_score),
    "XGBoost judged by a function": lambda: xgboost(eval_metric=f1_score),
}

OTHERS: dict[str, tuple[Callable[[], Any], Callable[[], pd.DataFrame], tuple[Any, ...]]] = {
    "columns by their type": (
        lambda: piped(
            make_column_transformer(
                (StandardScaler(), make_column_selector(dtype_include=np.number)),
                (OneHotEncoder(), make_column_selector(dtype_include=["str", object])),
                remainder="passthrough",
            )
        ), quotes, (-1, 0, 1),
    ),
    "imputed by regression": (
        lambda: piped(IterativeImputer(random_state=0, max_iter=2)), bars_with_gaps, (-1, 0, 1),
    ),
    "imputed by trees": (
        lambda: piped(
            IterativeImputer(DecisionTreeRegressor(max_depth=3, random_state=0), add_indicator=True, max_iter=2)
        ), bars_with_gaps, (0, 1),
    ),
    "a threshold for text": (
        lambda: tuned(scoring=make_scorer(f1_score, pos_label="buy")), bars, ("buy", "sell"),
    ),
    "a threshold for -1": (lambda: tuned(scoring=make_scorer(f1_score, pos_label=-1)), bars, (-1, 1)),
    "a fixed threshold for text": (
        lambda: FixedThresholdClassifier(
            search(scoring=make_scorer(f1_score, pos_label="buy")), threshold=0.3, pos_label="buy"
        ), bars, ("buy", "sell"),
    ),
}  # fmt: skip
CASES = {name: (make, bars, (0, 1)) for name, make in UP_DOWN.items()} | OTHERS


def attributes(estimator: Any) -> list[tuple[int, dict[str, int]]]:
    return [(id(part), {name: id(value) for name, value in vars(part).items()}) for part in parts_of(estimator)]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore")
def test_an_estimator_without_what_trained_it_is_data_and_answers_the_same(case: str, tmp_path: Path) -> None:
    make, frame, names = CASES[case]
    estimator = make().fit(frame()[:160], labels(*names)[:160])
    before = attributes(estimator)
    estimators.dump(without_training_parts(estimator), tmp_path / "m.skops", "skops")
    assert attributes(estimator) == before, "the caller's own estimator was changed"
    read = estimators.load(tmp_path / "m.skops", "skops")
    assert np.array_equal(read.predict(frame()), estimator.predict(frame()))
    assert list(read.classes_) == list(estimator.classes_)
    assert hasattr(read, "predict_proba") == hasattr(estimator, "predict_proba")
    if hasattr(estimator, "predict_proba"):
        assert np.array_equal(read.predict_proba(frame()), estimator.predict_proba(frame()))


def test_an_iterative_imputer_is_read_where_nobody_enabled_it(tmp_path: Path) -> None:
    estimator = piped(IterativeImputer(random_state=0, max_iter=2)).fit(bars_with_gaps(), labels(0, 1))
    estimators.dump(without_training_parts(estimator), tmp_path / "m.skops", "skops")
    code = (
        "import sys; from pathlib import Path; from fin_pyfunc.model import estimators;"
        "print(type(estimators.load(Path(sys.argv[1]), 'skops')[0]).__name__)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "m.skops")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "IterativeImputer\n"


def test_a_cache_of_training_is_left_out(tmp_path: Path) -> None:
    estimator = make_pipeline(StandardScaler(), linear(), memory=str(tmp_path / "cache")).fit(bars(), labels(0, 1))
    estimators.dump(without_training_parts(estimator), tmp_path / "m.skops", "skops")
    read = estimators.load(tmp_path / "m.skops", "skops")
    assert read.memory is None
    assert estimator.memory == str(tmp_path / "cache")
    assert np.array_equal(read.predict(bars()), estimator.predict(bars()))


def test_samplers_of_imbalanced_learn_are_left_out(tmp_path: Path) -> None:
    imblearn = pytest.importorskip("imblearn")
    steps = imblearn.pipeline.make_pipeline(imblearn.over_sampling.SMOTE(random_state=0), StandardScaler(), linear())
    estimator = search(steps, {"logisticregression__C": [1.0]}).fit(bars(), labels(0, 1))
    estimators.dump(without_training_parts(estimator), tmp_path / "m.skops", "skops")
    read = estimators.load(tmp_path / "m.skops", "skops")
    assert np.array_equal(read.predict_proba(bars()), estimator.predict_proba(bars()))


class Cautious(GridSearchCV):
    """A search that does not answer as its best estimator does."""

    def predict(self, X: Any) -> Any:
        return np.zeros(len(X), dtype=int)


def test_a_search_with_a_predict_of_its_own_is_kept_whole() -> None:
    estimator = Cautious(linear(), {"C": [1.0]}, cv=2).fit(bars(), labels(0, 1))
    assert type(without_training_parts(estimator)) is Cautious


LOGGED: dict[str, Callable[[], Fitted]] = {
    "search": lambda: fit(search(forest(), {"max_depth": [2, 3]}), bars(), labels(0, 1)),
    "threshold": lambda: fit(tuned(scoring=make_scorer(f1_score)), bars(), labels(0, 1)),
    "splines": lambda: fit(piped(SplineTransformer(n_knots=4)), bars(), labels(-1, 0, 1)),
}


@pytest.mark.parametrize("case", LOGGED)
def test_what_is_logged_answers_as_the_whole_estimator(case: str, tmp_path: Path) -> None:
    fitted = LOGGED[case]()
    model = saved(fitted, tmp_path)
    assert_same_answers(model, fitted)
    assert model.manifest is not None
    assert model.manifest.serialization == "skops"
    kept = {"search": "RandomForestClassifier", "threshold": "FixedThresholdClassifier", "splines": "Pipeline"}
    assert model.manifest.estimator.endswith(f".{kept[case]}")


def test_a_search_that_was_not_refitted_is_told_of_refit(tmp_path: Path) -> None:
    whole = search(refit=False).fit(bars(), labels(0, 1))
    says = r"fitted with refit=False, so no estimator in it predicts: fit it with refit=True, or"
    refused(whole, bars(), f"GridSearchCV was {says}", tmp_path)
    refused(make_pipeline(StandardScaler(), search(refit=False)).fit(bars(), labels(0, 1)), bars(), says, tmp_path)


def test_what_prediction_needs_and_no_file_without_a_pickle_holds_is_told_of_cloudpickle(tmp_path: Path) -> None:
    selected = piped(SelectFromModel(forest(), importance_getter=lambda fitted: fitted.feature_importances_))
    columns = ColumnTransformer([("all", "passthrough", list(bars().columns))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator = make_pipeline(columns, selected).fit(bars(), labels(0, 1))
    refused(estimator, bars(), "log it with serialization='cloudpickle'", tmp_path)
