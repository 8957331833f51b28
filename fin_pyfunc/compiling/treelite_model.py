"""Tree ensembles in treelite's own form."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.grown import is_ensemble, lightgbm_model, type_name, xgboost_model
from fin_pyfunc.model.errors import ArtifactError
from fin_pyfunc.model.soundness.estimator import check_estimator


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
    if not is_ensemble(estimator) or name.startswith("sklearn.tree."):
        raise NotCompilable(f"{type(estimator).__name__} is no ensemble of trees")
    import treelite

    exact = False
    try:
        if name.startswith("lightgbm."):
            model = lightgbm_model(estimator)
        elif name.startswith("xgboost."):
            model = xgboost_model(estimator)
        else:
            model = treelite.sklearn.import_model(_as_fitted(estimator))
            exact = name.startswith("sklearn.ensemble._forest.") and _with_own_leaves(model, estimator)
        content = model.serialize_bytes()
    except NotCompilable:
        raise
    except Exception as e:  # of its own, asserts and NotImplementedError among them
        raise NotCompilable(f"treelite cannot read {type(estimator).__name__} ({type(e).__name__})") from e
    return content, not name.startswith(("lightgbm.", "sklearn.ensemble._hist")), exact


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
