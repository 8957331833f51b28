"""Fitted tree ensembles in our own form, which repeats their library's arithmetic to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.lightgbm_trees import lightgbm_trees
from fin_pyfunc.compiling.sklearn_trees import BAGGING, TREES
from fin_pyfunc.compiling.sklearn_trees import READERS as OF_SKLEARN
from fin_pyfunc.compiling.xgboost_trees import xgboost_trees
from fin_pyfunc.model.backends.nameless import type_name
from fin_pyfunc.model.tree_file import Trees

_READERS: dict[str, Callable[..., Trees]] = {
    **OF_SKLEARN,
    "lightgbm.sklearn.LGBMClassifier": lightgbm_trees,
    "xgboost.sklearn.XGBClassifier": xgboost_trees,
    "xgboost.sklearn.XGBRFClassifier": xgboost_trees,
}
#: Classes whose `predict` takes the most probable class, rather than look at scores that tell more than probabilities.
_BY_PROBABILITY = ("sklearn.ensemble._forest.", "sklearn.tree.", "sklearn.ensemble._bagging.", "lightgbm.", "xgboost.")


def is_known(estimator: Any) -> bool:
    """Whether `trees_of` knows the estimator's class, and that of what it bags."""
    name = type_name(estimator)
    return name in _READERS and (
        name != BAGGING or all(type_name(part) in TREES for part in getattr(estimator, "estimators_", [None]))
    )


def decides_by_probability(estimator: Any) -> bool:
    """Whether the estimator's class is that of the highest of its probabilities, the first one of equal ones."""
    by_margin = getattr(estimator, "objective", None) == "multi:softmax"  # XGBoost's
    return type_name(estimator).startswith(_BY_PROBABILITY) and not by_margin


def trees_of(estimator: Any, n_features: int, *, single: bool) -> Trees:
    """Read a tree ensemble of scikit-learn, LightGBM or XGBoost.

    Parameters
    ----------
    estimator : object
        Fitted; it is not modified.
    n_features : int
        How many columns its rows have.
    single : bool
        Whether features are rounded to float32 first, as those of a DataFrame of float32 are.

    Raises
    ------
    NotCompilable
        It is none, or computes something that its arrays do not say.
    """
    read = _READERS.get(type_name(estimator))
    if read is None:
        raise NotCompilable(f"{type(estimator).__name__} is no tree ensemble")
    return read(estimator, n_features, rounds=single)
