"""Pipelines, votes, searches and calibrations as people build them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.zoo.case import CODES, THREE, TWO, Case, fitting, forest, linear, piped, sk

GROUP = "Pipelines as people build them"
NUMBERS = ["bid", "spread", "return_1", "imbalance", "volatility"]


def _columns(*transformers: Any, **options: Any) -> Any:
    return sk("compose.ColumnTransformer", transformers=list(transformers), **options)


def _hist(**options: Any) -> Any:
    return sk("ensemble.HistGradientBoostingClassifier", max_iter=10, min_samples_leaf=5, random_state=0, **options)


def _boosting(**options: Any) -> Any:
    return sk("ensemble.GradientBoostingClassifier", n_estimators=12, max_depth=2, random_state=0, **options)


def _scaler() -> Any:
    return sk("preprocessing.StandardScaler")


def _bins(**options: Any) -> Any:
    return sk("preprocessing.KBinsDiscretizer", n_bins=4, **options)


def _text_and_numbers(last: Any, numbers: Any = None) -> Any:
    """One-hot text, imputed and scaled numbers: the tutorial's ColumnTransformer."""
    numbers = numbers or piped(sk("impute.SimpleImputer", strategy="median"), _scaler())
    text = piped(
        sk("impute.SimpleImputer", strategy="constant", fill_value="none"),
        sk("preprocessing.OneHotEncoder", handle_unknown="ignore"),
    )
    return piped(
        _columns(("numbers", numbers, NUMBERS), ("text", text, ["venue", "broker"]), remainder="passthrough"), last
    )


def _by_dtype(last: Any) -> Any:
    from sklearn.compose import make_column_selector

    return piped(
        _columns(
            ("numbers", sk("impute.SimpleImputer"), make_column_selector(dtype_include="number")),
            ("text", sk("preprocessing.OneHotEncoder", handle_unknown="ignore"), ["venue", "broker"]),
        ),
        last,
    )


def _encoded(encoder: Any, last: Any) -> Any:
    return piped(_columns(("text", encoder, ["venue"]), ("numbers", "passthrough", ["imbalance", "bid", "hour"])), last)


def _words(vectorizer: str, last: Any, **options: Any) -> Any:
    words = sk(f"feature_extraction.text.{vectorizer}", **options)
    return piped(_columns(("words", words, "headline"), ("numbers", "passthrough", ["imbalance", "spread"])), last)


def _members() -> list[tuple[str, Any]]:
    return [("linear", piped(_scaler(), linear())), ("forest", forest()), ("bayes", sk("naive_bayes.GaussianNB"))]


def _search(kind: str, estimator: Any, grid: dict[str, Any], **options: Any) -> Any:
    return sk(f"model_selection.{kind}", **{"estimator": estimator, "cv": 2, **options}, **_grid(kind, grid))


def _grid(kind: str, grid: dict[str, Any]) -> dict[str, Any]:
    if "Grid" in kind:
        return {"param_grid": grid}
    return {"param_distributions": grid, "random_state": 0, **({"n_iter": 2} if kind == "RandomizedSearchCV" else {})}


def _calibrated(estimator: Any, method: str, **options: Any) -> Any:
    return sk("calibration.CalibratedClassifierCV", estimator=estimator, method=method, **{"cv": 2, **options})


def _prefit(X: Any, y: Any) -> Any:
    from sklearn.frozen import FrozenEstimator

    return _calibrated(FrozenEstimator(forest().fit(X, y)), "isotonic").fit(X, y)


def _searched_halving(X: Any, y: Any) -> Any:
    from sklearn.experimental import enable_halving_search_cv  # noqa: F401 - it is not there without
    from sklearn.model_selection import HalvingGridSearchCV

    return HalvingGridSearchCV(forest(), {"max_depth": [2, 4]}, cv=2, random_state=0, min_resources=60).fit(X, y)


def _as_pandas(X: Any, y: Any) -> Any:
    """Steps that hand over DataFrames."""
    return piped(_scaler(), sk("decomposition.PCA", n_components=3), forest()).set_output(transform="pandas").fit(X, y)


def _weighted(X: Any, y: Any) -> Any:
    return forest().fit(X, y, sample_weight=np.linspace(0.1, 2, len(X)))


def cases() -> Iterator[Case]:
    """What tutorials, competitions and bug reports are full of."""

    def case(name: str, make: Any, on: str = "numbers", classes: Any = THREE) -> Case:
        return Case(GROUP, name, fitting(make), on, classes)

    yield case("StandardScaler, LogisticRegression", lambda: piped(_scaler(), linear()))
    yield case("StandardScaler, LogisticRegression", lambda: piped(_scaler(), linear()), "float32")
    yield case("StandardScaler, LogisticRegression", lambda: piped(_scaler(), linear()), "NumPy array", TWO)
    yield case("StandardScaler, SVC(probability=True)", lambda: piped(_scaler(), sk("svm.SVC", probability=True)))
    yield case(
        "StandardScaler, MLP",
        lambda: piped(_scaler(), sk("neural_network.MLPClassifier", (8,), max_iter=80, random_state=0)),
    )
    yield case("StandardScaler, PCA, LogisticRegression",
               lambda: piped(_scaler(), sk("decomposition.PCA", n_components=3), linear()))  # fmt: skip
    yield case(
        "StandardScaler, PCA, KNeighbors",
        lambda: piped(_scaler(), sk("decomposition.PCA", n_components=2), sk("neighbors.KNeighborsClassifier")),
    )
    yield case("StandardScaler, RandomForest", lambda: piped(_scaler(), forest()))
    yield case("StandardScaler, GradientBoosting", lambda: piped(_scaler(), _boosting()))
    yield case("StandardScaler, HistGradientBoosting", lambda: piped(_scaler(), _hist()))
    yield case(
        "StandardScaler, AdaBoost",
        lambda: piped(_scaler(), sk("ensemble.AdaBoostClassifier", n_estimators=10, random_state=0)),
    )
    yield case("RobustScaler, SGD(log_loss)",
               lambda: piped(sk("preprocessing.RobustScaler"),
                             sk("linear_model.SGDClassifier", loss="log_loss", random_state=0)))  # fmt: skip
    yield case("MinMaxScaler(clip), LogisticRegression",
               lambda: piped(sk("preprocessing.MinMaxScaler", clip=True), linear()))  # fmt: skip
    yield case("QuantileTransformer(normal), LogisticRegression",
               lambda: piped(sk("preprocessing.QuantileTransformer", n_quantiles=40, output_distribution="normal"),
                             linear()))  # fmt: skip
    yield case("PolynomialFeatures, StandardScaler, LogisticRegression",
               lambda: piped(sk("preprocessing.PolynomialFeatures", 2), _scaler(), linear()))  # fmt: skip
    yield case("SelectKBest, RandomForest", lambda: piped(sk("feature_selection.SelectKBest", k=3), forest()))
    yield case("SelectKBest(mutual_info_classif), LogisticRegression",
               lambda: piped(sk("feature_selection.SelectKBest",
                                sk_function("feature_selection.mutual_info_classif"), k=3), linear()))  # fmt: skip
    yield case("SelectFromModel(forest), LogisticRegression",
               lambda: piped(sk("feature_selection.SelectFromModel", forest()), linear()))  # fmt: skip
    yield case("RFE(LogisticRegression), SVC", lambda: piped(sk("feature_selection.RFE", linear()), sk("svm.SVC")))
    yield case("SimpleImputer, StandardScaler, LogisticRegression",
               lambda: piped(sk("impute.SimpleImputer"), _scaler(), linear()), "gaps")  # fmt: skip
    yield case("SimpleImputer(add_indicator), RandomForest",
               lambda: piped(sk("impute.SimpleImputer", add_indicator=True), forest()), "gaps")  # fmt: skip
    yield case("SimpleImputer(median), GradientBoosting",
               lambda: piped(sk("impute.SimpleImputer", strategy="median"), _boosting()), "gaps")  # fmt: skip
    yield case("KNNImputer, LogisticRegression", lambda: piped(sk("impute.KNNImputer"), linear()), "gaps")
    yield case("IterativeImputer, RandomForest", lambda: piped(_iterative(), forest()), "gaps")
    for strategy, encode in (("uniform", "ordinal"), ("kmeans", "onehot-dense"), ("quantile", "onehot")):
        more = {"quantile_method": "averaged_inverted_cdf"} if strategy == "quantile" else {}
        options = {"strategy": strategy, "encode": encode, "random_state": 0, **more}
        name = f"KBinsDiscretizer({strategy}, {encode})"
        yield case(f"{name}, LogisticRegression", lambda o=options: piped(_bins(**o), linear()))
        yield case(f"{name}, RandomForest", lambda o=options: piped(_bins(**o), forest()))
        yield case(
            f"StandardScaler, {name}, LogisticRegression", lambda o=options: piped(_scaler(), _bins(**o), linear())
        )
    yield case(
        "Stacking(KBinsDiscretizer, RandomForest)",
        lambda: sk(
            "ensemble.StackingClassifier",
            cv=2,
            estimators=[("bins", piped(_bins(strategy="uniform", encode="ordinal"), linear())), ("forest", forest())],
        ),
    )
    yield case("Binarizer(0.2345), LogisticRegression",
               lambda: piped(sk("preprocessing.Binarizer", threshold=0.2345), linear()))  # fmt: skip
    yield case("SplineTransformer, LogisticRegression",
               lambda: piped(sk("preprocessing.SplineTransformer", n_knots=4), linear()))  # fmt: skip
    yield case("FunctionTransformer(log1p), LogisticRegression",
               lambda: piped(sk("preprocessing.FunctionTransformer", np.log1p), linear()), "positive")  # fmt: skip
    yield case("FunctionTransformer(lambda), RandomForest",
               lambda: piped(sk("preprocessing.FunctionTransformer", lambda X: X * 2), forest()))  # fmt: skip
    yield case("FeatureUnion(PCA, SelectKBest), LogisticRegression",
               lambda: piped(sk("pipeline.FeatureUnion", [("pca", sk("decomposition.PCA", n_components=2)),
                                                          ("best", sk("feature_selection.SelectKBest", k=2))]),
                             linear()))  # fmt: skip
    yield Case(GROUP, 'StandardScaler, PCA, RandomForest, set_output("pandas")', _as_pandas)
    yield Case(GROUP, "RandomForest with sample weights", _weighted)
    yield case("RandomForest(class_weight=balanced, oob_score)",
               lambda: forest(class_weight="balanced", oob_score=True), classes=TWO)  # fmt: skip
    yield case("RandomForest(monotonic_cst)", lambda: forest(monotonic_cst=[0, 0, 1, 1, 0]), classes=TWO)
    yield case(
        "HistGradientBoosting(early_stopping, scoring=f1_macro)", lambda: _hist(early_stopping=True, scoring="f1_macro")
    )
    yield case("HistGradientBoosting(categorical_features=from_dtype)",
               lambda: _hist(categorical_features="from_dtype"), "categories")  # fmt: skip
    yield case("HistGradientBoosting(monotonic_cst)", lambda: _hist(monotonic_cst={"imbalance": 1}), classes=TWO)
    yield case("GradientBoosting(init=LogisticRegression)", lambda: _boosting(init=linear()))
    yield case("GradientBoosting(n_iter_no_change)", lambda: _boosting(n_iter_no_change=2, validation_fraction=0.3))
    yield case("GradientBoosting(exponential)", lambda: _boosting(loss="exponential"), classes=TWO)
    for last, name in ((linear, "LogisticRegression"), (forest, "RandomForest"), (_hist, "HistGradientBoosting")):
        dense = {"sparse_threshold": 0} if last is _hist else {}
        yield case(
            f"ColumnTransformer(impute, scale, one-hot), {name}",
            lambda last=last, dense=dense: _dense(_text_and_numbers(last()), dense),
            "text and numbers",
        )
    yield case("ColumnTransformer(make_column_selector), RandomForest", lambda: _by_dtype(forest()), "text and numbers")
    encoders = {
        "OneHotEncoder()": lambda: sk("preprocessing.OneHotEncoder"),
        "OneHotEncoder(drop=first)": lambda: sk("preprocessing.OneHotEncoder", drop="first", handle_unknown="ignore"),
        "OneHotEncoder(min_frequency)": lambda: sk("preprocessing.OneHotEncoder", min_frequency=60,
                                                   handle_unknown="infrequent_if_exist"),
        "OrdinalEncoder(unknown_value=-1)": lambda: sk("preprocessing.OrdinalEncoder", unknown_value=-1,
                                                       handle_unknown="use_encoded_value"),
        "TargetEncoder": lambda: sk("preprocessing.TargetEncoder", random_state=0),
    }  # fmt: skip
    for name, encoder in encoders.items():
        yield case(f"{name} of text, LogisticRegression", lambda e=encoder: _encoded(e(), linear()), "text and numbers")
    yield case(
        "OrdinalEncoder(unknown_value=-1) of text, RandomForest",
        lambda: _encoded(encoders["OrdinalEncoder(unknown_value=-1)"](), forest()),
        "text and numbers",
    )
    yield case("OneHotEncoder of categories, RandomForest",
               lambda: piped(_columns(("c", sk("preprocessing.OneHotEncoder"), ["venue", "hour"]),
                                      remainder="passthrough"), forest()), "categories")  # fmt: skip
    yield case("OrdinalEncoder of an ordered category, RandomForest",
               lambda: piped(_columns(("grade", sk("preprocessing.OrdinalEncoder"), ["grade"]),
                                      remainder="passthrough"), forest()), "ordered category")  # fmt: skip
    yield case(
        "TfidfVectorizer of headlines, LogisticRegression", lambda: _words("TfidfVectorizer", linear()), "headlines"
    )
    yield case("TfidfVectorizer of headlines, RandomForest",
               lambda: _words("TfidfVectorizer", forest(), ngram_range=(1, 2)), "headlines")  # fmt: skip
    yield case("CountVectorizer of headlines, MultinomialNB",
               lambda: piped(_columns(("words", sk("feature_extraction.text.CountVectorizer"), "headline")),
                             sk("naive_bayes.MultinomialNB")), "headlines")  # fmt: skip
    yield case("RandomForest", forest, "nullable dtypes")
    yield case("HistGradientBoosting", _hist, "nullable dtypes")
    yield case("LogisticRegression", linear, "sparse")
    yield case("RandomForest", forest, "sparse")
    yield case("RandomForest", forest, "counts")
    yield case(
        "Voting(soft, weights)",
        lambda: sk("ensemble.VotingClassifier", estimators=_members(), voting="soft", weights=[1, 2, 0.5]),
    )
    yield case("Voting(hard)", lambda: sk("ensemble.VotingClassifier", estimators=_members()))
    yield case(
        "Stacking(final LogisticRegression)", lambda: sk("ensemble.StackingClassifier", estimators=_members(), cv=2)
    )
    yield case("Stacking(final RandomForest, passthrough)",
               lambda: sk("ensemble.StackingClassifier", estimators=_members(), cv=2, passthrough=True,
                          final_estimator=forest()))  # fmt: skip
    yield case(
        "Bagging(LogisticRegression)",
        lambda: sk("ensemble.BaggingClassifier", linear(), n_estimators=3, max_features=0.8, random_state=0),
    )
    yield case("Bagging(tree)", lambda: sk("ensemble.BaggingClassifier", n_estimators=5, random_state=0))
    yield case("AdaBoost(forest)",
               lambda: sk("ensemble.AdaBoostClassifier", forest(), n_estimators=3, random_state=0))  # fmt: skip
    for method in ("sigmoid", "isotonic", "temperature"):
        yield case(f"Calibrated(RandomForest, {method})", lambda m=method: _calibrated(forest(), m))
        yield case(
            f"Calibrated(LinearSVC, {method})", lambda m=method: _calibrated(piped(_scaler(), sk("svm.LinearSVC")), m)
        )
    yield case("Calibrated(GradientBoosting, isotonic, ensemble=False)",
               lambda: _calibrated(_boosting(), "isotonic", ensemble=False))  # fmt: skip
    yield Case(GROUP, "Calibrated(FrozenEstimator(RandomForest), isotonic)", _prefit)
    yield case("GridSearchCV(RandomForest)", lambda: _search("GridSearchCV", forest(), {"max_depth": [2, 4]}))
    yield case("GridSearchCV(pipeline, scoring=f1_macro)",
               lambda: _search("GridSearchCV", piped(_scaler(), linear()), {"logisticregression__C": [0.1, 1]},
                               scoring="f1_macro"))  # fmt: skip
    yield case("GridSearchCV(make_scorer)",
               lambda: _search("GridSearchCV", forest(), {"max_depth": [2, 4]}, scoring=_scorer()))  # fmt: skip
    yield case("GridSearchCV(several scorers, refit)",
               lambda: _search("GridSearchCV", linear(), {"C": [0.1, 1]}, scoring=["accuracy", "f1_macro"],
                               refit="accuracy"))  # fmt: skip
    yield case("GridSearchCV(TimeSeriesSplit)",
               lambda: _search("GridSearchCV", forest(), {"max_depth": [2, 4]},
                               cv=sk("model_selection.TimeSeriesSplit", 3)))  # fmt: skip
    yield case("RandomizedSearchCV(HistGradientBoosting)",
               lambda: _search("RandomizedSearchCV", _hist(), {"max_depth": [2, 3, 4]}))  # fmt: skip
    yield case("RandomizedSearchCV(loguniform)",
               lambda: _search("RandomizedSearchCV", linear(), {"C": _loguniform()}))  # fmt: skip
    yield Case(GROUP, "HalvingGridSearchCV(RandomForest)", _searched_halving)
    yield case("TunedThreshold(LogisticRegression)",
               lambda: sk("model_selection.TunedThresholdClassifierCV", linear(), cv=2), classes=TWO)  # fmt: skip
    yield case("TunedThreshold(pipeline, scoring=f1)",
               lambda: sk("model_selection.TunedThresholdClassifierCV", piped(_scaler(), forest()), cv=2,
                          scoring="f1"), classes=(0, 1))  # fmt: skip
    yield case(
        "FixedThreshold(RandomForest, 0.7)",
        lambda: sk("model_selection.FixedThresholdClassifier", forest(), threshold=0.7),
        classes=TWO,
    )
    yield case("OneVsRest(SVC)", lambda: sk("multiclass.OneVsRestClassifier", piped(_scaler(), sk("svm.SVC"))))
    yield case("OneVsRest(RandomForest)", lambda: sk("multiclass.OneVsRestClassifier", forest()))
    yield case(
        "Pipeline in a Pipeline", lambda: piped(_scaler(), piped(sk("decomposition.PCA", n_components=3), forest()))
    )
    yield Case(GROUP, "RandomForest, classes=[-1, 0, 1] for 0, 1, 2", fitting(forest), "numbers", CODES,
               {"classes": [-1, 0, 1]})  # fmt: skip


def _dense(pipeline: Any, options: dict[str, Any]) -> Any:
    pipeline.steps[0][1].set_params(**options)
    return pipeline


def _iterative() -> Any:
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401 - it is not there without
    from sklearn.impute import IterativeImputer

    return IterativeImputer(max_iter=5, random_state=0)


def _loguniform() -> Any:
    from scipy.stats import loguniform

    return loguniform(0.1, 10)


def _scorer() -> Any:
    from sklearn.metrics import fbeta_score, make_scorer

    return make_scorer(fbeta_score, beta=2, average="macro")


def sk_function(path: str) -> Any:
    """A function of scikit-learn by its dotted name."""
    module, _, name = path.rpartition(".")
    return getattr(__import__(f"sklearn.{module}", fromlist=[name]), name)
