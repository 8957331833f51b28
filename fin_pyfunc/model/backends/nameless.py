"""An estimator that takes a matrix where it was fitted on a DataFrame, and answers the same to the last bit."""

from __future__ import annotations

import copy
from typing import Any

NEIGHBOURS = "sklearn.neighbors._classification.KNeighborsClassifier"
#: Classifiers, and steps before them, that turn a DataFrame of float64 columns into its matrix before all else, by
#: their source in scikit-learn 1.9. Most of what a row costs them is looking at the DataFrame: 1.4 of an SVC's 1.8 ms.
TAKE_A_MATRIX = frozenset(
    {
        "sklearn.decomposition._pca.PCA",
        "sklearn.gaussian_process._gpc.GaussianProcessClassifier",
        NEIGHBOURS,
        "sklearn.preprocessing._data.MaxAbsScaler",
        "sklearn.preprocessing._data.MinMaxScaler",
        "sklearn.preprocessing._data.RobustScaler",
        "sklearn.preprocessing._data.StandardScaler",
        "sklearn.svm._classes.NuSVC",
        "sklearn.svm._classes.SVC",
    }
)
_NAMES = "feature_names_in_"


def nameless(estimator: Any) -> Any | None:
    """An estimator, or a Pipeline, without the names of its features, for which scikit-learn warns of a matrix.

    Returns
    -------
    estimator or None
        A shallow copy; None where it was fitted without names, or a matrix is not known to be the same to it.
    """
    is_pipeline = type_name(estimator) == "sklearn.pipeline.Pipeline"
    steps = list(estimator.steps) if is_pipeline else [("", estimator)]
    # a step that was given a DataFrame by the one before it knows names of its own
    knowing = [i for i, (_, step) in enumerate(steps) if hasattr(step, _NAMES)]
    if knowing != [0] or not all(_takes_a_matrix(step) for _, step in steps):
        return None
    name, first = steps[0]
    unnamed = copy.copy(first)
    delattr(unnamed, _NAMES)
    if not is_pipeline:
        return unnamed
    whole = copy.copy(estimator)
    whole.steps = [(name, unnamed), *steps[1:]]
    return whole


def counts_alike(neighbours: Any) -> bool:
    """Whether k-nearest neighbours are sought one way, for `predict` and `predict_proba`, a DataFrame and a matrix.

    By source in 1.9 it is `kneighbors`, but for a brute-force search in an array by a metric that is not Euclidean.
    """
    return neighbours._fit_method != "brute" or neighbours.effective_metric_ in ("euclidean", "sqeuclidean")


def _takes_a_matrix(step: Any) -> bool:
    if type_name(step) not in TAKE_A_MATRIX:
        return False
    if type_name(step) == NEIGHBOURS:
        return counts_alike(step)
    if callable(getattr(step, "kernel", "")) and "sklearn.svm." in type_name(step):
        return False  # a function of the user's own is given what the classifier was
    return getattr(step, "copy", True) is True  # a scaler in place would change rows that others look at


def type_name(estimator: Any) -> str:
    """Where a class is from: a subclass is another one."""
    return f"{type(estimator).__module__}.{type(estimator).__qualname__}"
