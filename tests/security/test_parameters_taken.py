"""Estimators that people have are read from a skops file, whatever else is refused in one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.special
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import FeatureAgglomeration, KMeans
from sklearn.compose import ColumnTransformer, make_column_selector, make_column_transformer
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    BaggingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.feature_selection import SelectFromModel, SelectKBest, chi2, f_classif, mutual_info_classif
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import RBF, Matern, WhiteKernel
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV, SGDClassifier
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import ComplementNB, GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import SVC, LinearSVC, NuSVC

from fin_pyfunc.model import estimators
from tests.authoring.estimators import lightgbm, xgboost
from tests.models import bars, labels
from tests.security.skops_files import MOVES, WORDS, piped, read, text


def search() -> Any:
    grid = {"tfidf__ngram_range": [(1, 1), (1, 2)], "tfidf__dtype": [np.float32, np.float64]}
    steps = Pipeline([("tfidf", TfidfVectorizer()), ("classifier", LogisticRegression())])
    return GridSearchCV(steps, grid, cv=2, n_jobs=2, verbose=1)


def functions_search() -> Any:
    steps = Pipeline([("log", FunctionTransformer(np.log1p)), ("classifier", LogisticRegression())])
    return RandomizedSearchCV(steps, {"log__func": [np.log1p, np.sqrt]}, n_iter=2, cv=2)


ON_WORDS: dict[str, Callable[[], Any]] = {
    "words": lambda: text(),
    "letters": lambda: text(analyzer="char_wb", ngram_range=(1, 3), strip_accents="unicode", stop_words=None),
    "stop words": lambda: text(stop_words="english", min_df=1, max_features=10, dtype=np.float32),
    "given words": lambda: text(vocabulary=["up", "down", "flat"]),
    "a pattern": lambda: text(token_pattern=r"(?u)\b\w+\b", lowercase=False, sublinear_tf=True),
    "hashes": lambda: make_pipeline(
        ColumnTransformer([("hash", HashingVectorizer(n_features=64), "news")]), LogisticRegression()
    ),
    "reduced": lambda: make_pipeline(
        ColumnTransformer([("t", make_pipeline(CountVectorizer(), TruncatedSVD(2)), "news")]), LogisticRegression()
    ),
    "support vectors of words": lambda: make_pipeline(
        ColumnTransformer([("t", TfidfVectorizer(), "news")]), SVC(probability=False)
    ),
    "neighbours of words": lambda: make_pipeline(
        ColumnTransformer([("t", TfidfVectorizer(), "news")]), KNeighborsClassifier(3)
    ),
    "chosen words": lambda: make_pipeline(
        ColumnTransformer([("t", CountVectorizer(), "news")]), SelectKBest(chi2, k=2), ComplementNB()
    ),
    "words named like files": lambda: text(vocabulary=["path", "file", "memory", "up", "host"]),
    "selected columns": lambda: make_pipeline(
        make_column_transformer(
            (StandardScaler(), make_column_selector(dtype_include=np.int64)),
            (OneHotEncoder(handle_unknown="ignore", min_frequency=3), make_column_selector(pattern="news")),
        ), LogisticRegression(),
    ),
    "encoded": lambda: make_pipeline(
        ColumnTransformer([("o", OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), ["news"]),
                           ("h", OneHotEncoder(drop="first", sparse_output=False), ["news"]),
                           ("t", TargetEncoder(target_type="multiclass", cv=2), ["news"])]), LogisticRegression(),
    ),
}  # fmt: skip

ON_BARS: dict[str, Callable[[], Any]] = {
    "logarithms": lambda: piped(FunctionTransformer(np.log1p, inverse_func=np.expm1, validate=True)),
    "a special function": lambda: piped(FunctionTransformer(scipy.special.expit)),
    "nothing": lambda: piped(FunctionTransformer()),
    "best columns": lambda: piped(SelectKBest(f_classif, k=2)),
    "informative columns": lambda: piped(SelectKBest(mutual_info_classif, k=2)),
    "columns of a model": lambda: piped(SelectFromModel(RandomForestClassifier(5), max_features=2)),
    "quantiles": lambda: piped(QuantileTransformer(n_quantiles=20)),
    "powers": lambda: piped(PowerTransformer()),
    "polynomials": lambda: piped(PolynomialFeatures(2)),
    "bins": lambda: piped(KBinsDiscretizer(4, quantile_method="averaged_inverted_cdf")),
    "imputed": lambda: make_pipeline(SimpleImputer(add_indicator=True), KNNImputer(), LogisticRegression()),
    "components": lambda: piped(PCA(2, svd_solver="full")),
    "groups of columns": lambda: piped(FeatureAgglomeration(2)),
    "distances to clusters": lambda: piped(KMeans(3, n_init=1)),
    "an approximated kernel": lambda: piped(Nystroem(n_components=5)),
    "both": lambda: piped(FeatureUnion([("a", PCA(2)), ("b", MinMaxScaler())], n_jobs=2)),
    "a pandas step": lambda: piped(StandardScaler().set_output(transform="pandas")),
    "support vectors": lambda: SVC(kernel="poly", cache_size=100, verbose=False),
    "support vectors, nu": lambda: NuSVC(nu=0.1),
    "linear support vectors": lambda: CalibratedClassifierCV(LinearSVC(), cv=2),
    "calibrated, isotonic": lambda: CalibratedClassifierCV(GaussianNB(), method="isotonic", cv=2, n_jobs=2),
    "neighbours": lambda: KNeighborsClassifier(metric="manhattan", weights="distance", n_jobs=4),
    "neighbours of a power": lambda: KNeighborsClassifier(p=3, algorithm="kd_tree"),
    "neighbours by cosine": lambda: KNeighborsClassifier(metric="cosine", algorithm="brute"),
    "a Gaussian process": lambda: GaussianProcessClassifier(RBF() + WhiteKernel() * Matern(nu=1.5), optimizer=None),
    "a network": lambda: MLPClassifier((4,), max_iter=20, early_stopping=True, solver="sgd"),
    "stochastic descent": lambda: SGDClassifier(loss="modified_huber", penalty="elasticnet"),
    "ridge": lambda: RidgeClassifierCV(),
    "discriminants": lambda: LinearDiscriminantAnalysis(),
    "one against the rest": lambda: OneVsRestClassifier(LogisticRegression(), n_jobs=2),
    "votes": lambda: VotingClassifier([("a", GaussianNB()), ("b", RandomForestClassifier(5))], voting="soft"),
    "a stack": lambda: StackingClassifier([("a", GaussianNB()), ("b", LogisticRegression())], cv=2, passthrough=True),
    "bags": lambda: BaggingClassifier(LogisticRegression(), 3, max_features=0.7, n_jobs=2),
    "histograms": lambda: HistGradientBoostingClassifier(max_iter=5, early_stopping=True, loss="log_loss", verbose=1),
    "a forest on every core": lambda: RandomForestClassifier(5, n_jobs=-1, verbose=2, class_weight="balanced"),
    "functions searched": functions_search,
    "LightGBM": lambda: lightgbm(
        n_jobs=2, path_smooth=0.1, boosting_type="goss", objective="multiclass", metric="multi_logloss",
        monotone_constraints=[0, 0, 0, 0, 0], extra_trees=True,
    ),
    "XGBoost": lambda: xgboost(
        tree_method="hist", objective="multi:softprob", eval_metric=["mlogloss"], verbosity=0, device="cpu",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ON_WORDS)
def test_models_of_text_that_people_have_are_read(case: str, tmp_path: Path) -> None:
    estimator = ON_WORDS[case]().fit(WORDS, MOVES)
    estimators.dump(estimator, tmp_path / "logged.skops", "skops")
    assert read(estimator, tmp_path).predict(WORDS).tolist() == estimator.predict(WORDS).tolist()


@pytest.mark.parametrize("case", ON_BARS)
@pytest.mark.filterwarnings("ignore")
def test_models_that_people_have_are_read(case: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    frame, y = bars().abs(), labels(0, 1, 2)
    estimator = ON_BARS[case]().fit(frame, y)
    estimators.dump(estimator, tmp_path / "logged.skops", "skops")
    assert read(estimator, tmp_path).predict(frame).tolist() == estimator.predict(frame).tolist()
    capfd.readouterr()


def test_a_search_of_text_is_read(tmp_path: Path) -> None:
    estimator = search().fit(WORDS["news"], MOVES)
    assert read(estimator, tmp_path).predict(WORDS["news"]).tolist() == estimator.predict(WORDS["news"]).tolist()
