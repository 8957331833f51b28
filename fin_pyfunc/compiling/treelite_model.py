"""Tree ensembles in treelite's own form."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.lightgbm_trees import ZERO
from fin_pyfunc.compiling.tree_form import is_known
from fin_pyfunc.model.backends.nameless import type_name
from fin_pyfunc.model.errors import ArtifactError
from fin_pyfunc.model.soundness.estimator import check_estimator

#: Names of classes that its importers do not know.
_NOT_READ = ("sklearn.tree.", "sklearn.ensemble._weight_boosting.", "sklearn.ensemble._bagging.")


def treelite_model(estimator: Any) -> tuple[bytes, bool, bool]:
    """A tree ensemble as treelite writes it.

    Parameters
    ----------
    estimator : object
        Fitted; it is not modified.

    Returns
    -------
    content : bytes
    casts : bool
        Whether features must be rounded to float32 first, as the estimator does.
    exact : bool
        Whether it adds up the same float64 numbers in the same order as the estimator, so that it is equal to the last
        bit on every row, seen or not.

    Raises
    ------
    NotCompilable
        It is no tree ensemble, or one that treelite does not know.
    """
    name = type_name(estimator)
    if not is_known(estimator) or name.startswith(_NOT_READ):
        raise NotCompilable(f"{type(estimator).__name__} is no ensemble of trees")
    import treelite

    exact = False
    try:
        if name.startswith("lightgbm."):
            model = _lightgbm(estimator)
        elif name.startswith("xgboost."):
            model = _xgboost(estimator)
        else:
            model = treelite.sklearn.import_model(_as_fitted(estimator))
            exact = name.startswith("sklearn.ensemble._forest.") and _with_own_leaves(model, estimator)
        content = model.serialize_bytes()
    except NotCompilable:
        raise
    except Exception as e:  # of its own, asserts and NotImplementedError among them
        raise NotCompilable(f"treelite cannot read {type(estimator).__name__} ({type(e).__name__})") from e
    return content, not name.startswith(("lightgbm.", "sklearn.ensemble._hist")), exact


def _lightgbm(estimator: Any) -> Any:
    """The treelite model of a LightGBM classifier, which takes for 0 what LightGBM takes for 0."""
    import treelite

    booster = estimator.booster_
    text = booster.model_to_string()  # of the best iteration, where it stopped early, as predict_proba does
    if "is_linear=1" in text:
        raise NotCompilable("its leaves are linear models")
    model = treelite.frontend.from_lightgbm(booster)
    for i in range(model.num_tree):
        accessor = model.get_tree_accessor(i)
        threshold = accessor.get_field("threshold").copy()
        # no value is that small, so a threshold there can only part 0 from what is beyond
        below, above = (threshold >= -ZERO) & (threshold < 0), (threshold >= 0) & (threshold < ZERO)
        if (below | above)[accessor.get_field("cleft") >= 0].any():
            threshold[below], threshold[above] = np.nextafter(-ZERO, -np.inf), ZERO
            accessor.set_field("threshold", threshold)
    return model


def _xgboost(estimator: Any) -> Any:
    """The treelite model of an XGBoost classifier, as far as it predicts with it."""
    import treelite

    booster = estimator.get_booster()
    missing = estimator.missing
    if missing is not None and not np.isnan(missing):
        raise NotCompilable("it takes a number for a missing value (missing=)")
    first, last = estimator._get_iteration_range(None)
    if last:  # it stopped early: predict_proba stops at the best iteration
        booster = booster[first:last]
    return treelite.frontend.from_xgboost(booster)


def _as_fitted(estimator: Any) -> Any:
    """A view of a scikit-learn ensemble that treelite's importer reads in bounds.

    The importer passes `n_estimators` and `n_classes_` to compiled code as the number of trees and classes in its
    arrays. Fewer are fitted where training stopped early, and `set_params` changes the parameter alone.
    """
    try:
        check_estimator(estimator)
    except ArtifactError as e:
        raise NotCompilable("its trees, classes and features do not fit together") from e
    view = copy.copy(estimator)
    if hasattr(view, "estimators_"):
        vars(view).update(n_estimators=len(view.estimators_), n_classes_=len(view.classes_))
    return view


def _with_own_leaves(model: Any, forest: Any) -> bool:
    """Put the forest's own probabilities in treelite's leaves, which it divides by their sum once more."""
    for i, part in enumerate(forest.estimators_):
        accessor, tree = model.get_tree_accessor(i), part.tree_
        own = tree.value[tree.children_left < 0, 0, :]
        theirs = accessor.get_field("leaf_vector")
        if theirs.size != own.size or not np.allclose(theirs, own.reshape(-1), rtol=0, atol=1e-12):
            return False
        if not np.array_equal(theirs, own.reshape(-1)):
            accessor.set_field("leaf_vector", np.ascontiguousarray(own.reshape(-1)))
    return True
