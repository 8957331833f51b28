"""Every transformer of scikit-learn, before a linear model and before a forest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tests.zoo.case import Case, Fit, fitting, forest, linear, piped, sk
from tests.zoo.classifiers import every

GROUP = "Transformers of scikit-learn"
_TWO_TABLES = "two tables when fitted, which no Pipeline takes"
#: What takes no table of features, and what it is for.
NOT_FOR_FEATURES = {
    "CCA": _TWO_TABLES,
    "DictVectorizer": "for dicts",
    "FeatureHasher": "for dicts",
    "IsotonicRegression": "one column that is no table",
    "KernelCenterer": "for a matrix of kernel values",
    "LabelBinarizer": "for labels",
    "LabelEncoder": "for labels",
    "MultiLabelBinarizer": "for labels",
    "PLSCanonical": _TWO_TABLES,
    "PLSRegression": _TWO_TABLES,
    "PLSSVD": _TWO_TABLES,
    "PatchExtractor": "for images",
    "TSNE": "transforms only what it was fitted to",
}
#: Classifiers that transform, too; they are in their own list.
CLASSIFIERS = {"StackingClassifier", "VotingClassifier"}
#: Regressors that combine others; what they transform to is their members' predictions.
_REGRESSORS = {"StackingRegressor", "VotingRegressor"}
SMALL: dict[str, Any] = {"n_estimators": 8, "random_state": 0}
GIVEN: dict[str, dict[str, Any]] = {
    "BernoulliRBM": {"n_iter": 3},
    "Birch": {"n_clusters": None, "threshold": 0.3},
    "BisectingKMeans": {"n_clusters": 4},
    "DictionaryLearning": {"n_components": 3, "max_iter": 20},
    "FastICA": {"max_iter": 1000, "tol": 1e-2},
    "GaussianRandomProjection": {"n_components": 3},
    "GenericUnivariateSelect": {"mode": "k_best", "param": 3},
    "HashingVectorizer": {"n_features": 16},
    "Isomap": {"n_components": 2},
    "KernelPCA": {"kernel": "rbf", "n_components": 3},
    "KBinsDiscretizer": {"quantile_method": "averaged_inverted_cdf"},
    "KMeans": {"n_clusters": 4},
    "LatentDirichletAllocation": {"n_components": 3, "max_iter": 5},
    "LocallyLinearEmbedding": {"n_components": 2},
    "MiniBatchDictionaryLearning": {"n_components": 3, "max_iter": 20},
    "MiniBatchKMeans": {"n_clusters": 4},
    "MiniBatchNMF": {"n_components": 3},
    "MiniBatchSparsePCA": {"n_components": 2, "max_iter": 20},
    "NeighborhoodComponentsAnalysis": {"max_iter": 10},
    "NMF": {"n_components": 3, "max_iter": 500},
    "Nystroem": {"n_components": 10},
    "OneHotEncoder": {"handle_unknown": "ignore"},
    "OrdinalEncoder": {"handle_unknown": "use_encoded_value", "unknown_value": -1},
    "QuantileTransformer": {"n_quantiles": 50},
    "RFE": {"n_features_to_select": 3},
    "RFECV": {"cv": 2},
    "RadiusNeighborsTransformer": {"radius": 3.0},
    "SelectFdr": {"alpha": 0.9},
    "SelectFpr": {"alpha": 0.9},
    "SelectFwe": {"alpha": 0.9},
    "SelectKBest": {"k": 3},
    "SelectPercentile": {"percentile": 60},
    "SequentialFeatureSelector": {"n_features_to_select": 3, "cv": 2},
    "SkewedChi2Sampler": {"n_components": 10},
    "SparsePCA": {"n_components": 2, "max_iter": 20},
    "SparseRandomProjection": {"n_components": 3},
    "SplineTransformer": {"n_knots": 4},
    "VarianceThreshold": {"threshold": 1e-9},
}
ON: dict[str, str] = {
    "AdditiveChi2Sampler": "positive", "HashingVectorizer": "headlines",
    "LatentDirichletAllocation": "positive", "MiniBatchNMF": "positive", "MissingIndicator": "gaps",
    "NMF": "positive", "SimpleImputer": "gaps", "KNNImputer": "gaps", "IterativeImputer": "gaps",
    "SkewedChi2Sampler": "positive", "OneHotEncoder": "counts", "OrdinalEncoder": "counts", "TargetEncoder": "counts",
}  # fmt: skip
_SELECTING = {"RFE", "RFECV", "SelectFromModel", "SequentialFeatureSelector"}


def _transformer(name: str, kind: type) -> Any:
    given = GIVEN.get(name, {})
    if name in _SELECTING:
        return kind(sk("linear_model.LogisticRegression", max_iter=200), **given)
    if name in _REGRESSORS:
        return kind([("linear", sk("linear_model.Ridge")), ("tree", sk("tree.DecisionTreeRegressor", max_depth=2))])
    if name == "ColumnTransformer":
        return kind([("scaled", sk("preprocessing.StandardScaler"), ["bid", "imbalance"])], remainder="passthrough")
    if name == "FeatureUnion":
        return kind([("scaled", sk("preprocessing.StandardScaler")), ("pca", sk("decomposition.PCA", n_components=2))])
    if name == "FunctionTransformer":
        return kind(np.abs)
    if name == "SparseCoder":
        return kind(np.eye(5))
    if name == "HashingVectorizer":
        rest = ("numbers", "passthrough", ["imbalance", "spread"])
        return sk("compose.ColumnTransformer", transformers=[("text", kind(**given), "headline"), rest])
    plain = kind()
    small = {option: value for option, value in SMALL.items() if option in plain.get_params()}
    return plain.set_params(**small, **given)


def note() -> str:
    """What is not in the table, and why."""
    reasons = dict.fromkeys(NOT_FOR_FEATURES.values())
    named = {why: ", ".join(name for name, of in NOT_FOR_FEATURES.items() if of == why) for why in reasons}
    left_out = "; ".join(f"{names} ({why})" for why, names in named.items())
    return f"No step of a Pipeline before a classifier, and so not here: {left_out}."


def cases() -> Iterator[Case]:
    """Each before a logistic regression and before a random forest."""
    for name, kind in every("transformer").items():
        if name in NOT_FOR_FEATURES or name in CLASSIFIERS:
            continue
        table = ON.get(name, "numbers")
        yield Case(GROUP, name, _before(linear, name, kind), table, variant="before a logistic regression")
        yield Case(GROUP, name, _before(forest, name, kind), table, variant="before a random forest")


def _before(last: Callable[[], Any], name: str, kind: type) -> Fit:
    return fitting(lambda: piped(_transformer(name, kind), last()))
