"""Boosted trees in our own form, which repeats their library's arithmetic to the last bit."""

from __future__ import annotations

import ctypes
import ctypes.util
import json
from typing import Any

import numpy as np

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.grown import ensemble_of, type_name
from fin_pyfunc.compiling.trees import Ensemble
from fin_pyfunc.model.boosted_file import Arithmetic, BoostedTrees

_BOOSTED = frozenset(
    {
        "lightgbm.sklearn.LGBMClassifier",
        "sklearn.ensemble._gb.GradientBoostingClassifier",
        "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.HistGradientBoostingClassifier",
        "xgboost.sklearn.XGBClassifier",
        "xgboost.sklearn.XGBRFClassifier",
    }
)
#: Libraries whose softmax is NumPy's; the others call the C library's exp.
_OF_NUMPY = "sklearn."


def is_boosted(estimator: Any) -> bool:
    """Whether `boosted_trees` knows the estimator's class."""
    return type_name(estimator) in _BOOSTED


def boosted_trees(estimator: Any, n_features: int, *, single: bool) -> BoostedTrees:
    """Read a boosted ensemble of scikit-learn, LightGBM or XGBoost.

    Parameters
    ----------
    estimator : object
        Fitted; it is not modified.
    n_features : int
    single : bool
        Whether features are rounded to float32 first, as those of a DataFrame of float32 are.

    Raises
    ------
    NotCompilable
        It is none, or its scores are put together in another way.
    """
    name, ensemble = type_name(estimator), ensemble_of(estimator)
    if name not in _BOOSTED or ensemble.target is None or ensemble.base is None:
        raise NotCompilable(f"{type(estimator).__name__} is no boosted ensemble of trees")
    trees, leaf = ensemble.trees, ensemble.trees.is_leaf
    threshold = trees.threshold
    if trees.strict:  # less than a number is at most the one before it
        threshold = np.nextafter(threshold, -np.inf)
    return BoostedTrees(
        n_features,
        Arithmetic(
            rounds=single or ensemble.rounds is not None, sums=ensemble.sums, link=ensemble.link, slope=ensemble.slope,
            exp="numpy" if name.startswith(_OF_NUMPY) else "c",
        ),
        trees.roots.astype(np.int64), trees.left.astype(np.int32), trees.right.astype(np.int32),
        trees.feature.astype(np.int32), np.where(leaf, 0.0, threshold), trees.nan_left.astype(bool),
        np.where(leaf, trees.value[:, 0], 0.0), ensemble.target.astype(np.int32), _base(estimator, name, ensemble),
    )  # fmt: skip


def _c_library() -> Any:
    return ctypes.CDLL(ctypes.util.find_library("m"))


def _base(estimator: Any, name: str, ensemble: Ensemble) -> Any:
    """Where the scores start; XGBoost's of two classes as it works it out itself, in float32."""
    assert ensemble.base is not None  # noqa: S101 - for the type checker; `boosted_trees` has looked
    if not name.startswith("xgboost.") or ensemble.link != "sigmoid":
        return ensemble.base
    # src/objective/regression_loss.h, ProbToMargin: -logf(1 / p - 1)
    learner = json.loads(estimator.get_booster().save_config())["learner"]["learner_model_param"]
    p = np.float32(learner["base_score"].strip("[]"))
    log = _c_library().logf
    log.restype, log.argtypes = ctypes.c_float, [ctypes.c_float]
    return np.array([-log(np.float32(1) / p - np.float32(1))])
