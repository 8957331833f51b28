"""The trees of a fitted estimator, read off its own arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.trees import Ensemble, Trees, stack

#: treelite's name of what makes probabilities of scores -> `Ensemble.link`
_LINKS: dict[str, Any] = {"sigmoid": "sigmoid", "softmax": "softmax", "multiclass_ova": "sigmoids"}
#: LightGBM reads a value no further from 0 than this as 0 (include/LightGBM/meta.h, kZeroThreshold, a float).
_ZERO = float(np.float32(1e-35))
#: treelite's numbers of the comparisons "less than" and "less than or equal" in a node's `cmp`
_LESS, _LESS_OR_EQUAL = 2, 3


def type_name(estimator: Any) -> str:
    """Where the estimator's own class is defined; a subclass may compute something else, so it is another name."""
    return f"{type(estimator).__module__}.{type(estimator).__qualname__}"


def is_ensemble(estimator: Any) -> bool:
    """Whether `ensemble_of` knows the estimator's class."""
    return type_name(estimator) in _READERS


def ensemble_of(estimator: Any) -> Ensemble:
    """Read a tree ensemble.

    Parameters
    ----------
    estimator : object
        A fitted forest, tree, or boosted ensemble of scikit-learn, LightGBM or XGBoost. It is not modified.

    Raises
    ------
    NotCompilable
        It does something that the arrays do not say.
    """
    read = _READERS.get(type_name(estimator))
    if read is None:
        raise NotCompilable(f"{type(estimator).__name__} is no tree ensemble")
    return read(estimator)


def _forest(estimator: Any) -> Ensemble:
    if estimator.n_outputs_ != 1:
        raise NotCompilable("it has several outputs")
    trees = stack(_tree(part.tree_) for part in getattr(estimator, "estimators_", [estimator]))
    return Ensemble("forest", trees, len(estimator.classes_), "float32")


def _ada_boost(estimator: Any) -> Ensemble:
    # sklearn/ensemble/_weight_boosting.py: each tree votes with its weight for its class, against all others alike
    if any(type_name(part) not in _TREES for part in estimator.estimators_):
        raise NotCompilable("it boosts other estimators than trees")
    k = len(estimator.classes_)
    votes = []
    for part, weight in zip(estimator.estimators_, estimator.estimator_weights_, strict=False):
        tree = _tree(part.tree_)
        chosen = part.classes_[tree.value.argmax(axis=1)][:, None] == estimator.classes_
        votes.append(replace(tree, value=np.where(chosen, weight, -weight / (k - 1))))
    total = float(np.sum(estimator.estimator_weights_))
    trees, n_trees = stack(votes), len(votes)
    # with two classes the scores are each other's negatives: softmax([-s, s]) is a sigmoid of 2 s
    columns = [1] if k == 2 else range(k)
    copies = stack(replace(trees, value=trees.value[:, i : i + 1]) for i in columns)
    target, base = np.repeat(np.arange(len(columns)), n_trees), np.zeros(len(columns))
    link, slope = ("sigmoid", 2 / total) if k == 2 else ("softmax", 1 / (total * (k - 1)))
    return Ensemble("boosted", copies, k, "float32", target, base, link, slope)  # type: ignore[arg-type]


def _gradient_boosting(estimator: Any) -> Ensemble:
    # sklearn/ensemble/_gb.py: raw scores start at the init estimator's and add learning_rate * leaf, stage by stage
    init = estimator.init_
    if not (isinstance(init, str) and init == "zero") and type_name(init) != "sklearn.dummy.DummyClassifier":
        raise NotCompilable("its scores start at another estimator's (init)")
    if getattr(init, "strategy", "prior") in ("stratified", "uniform"):
        raise NotCompilable("its scores start at random (init)")
    base = np.asarray(estimator._raw_predict_init(np.zeros((1, estimator.n_features_in_), dtype=np.float32)))[0]
    stages = estimator.estimators_
    rate = estimator.learning_rate
    trees = stack(_tree(part.tree_, rate) for stage in stages for part in stage)
    target = np.tile(np.arange(stages.shape[1]), len(stages))
    # expit(2 * raw): sklearn/_loss/loss.py, ExponentialLoss; the parameter `loss` may have been changed since
    slope = 2.0 if type(estimator._loss).__name__ == "ExponentialLoss" else 1.0
    return Ensemble(
        "boosted", trees, len(estimator.classes_), "float32", target, base.astype(np.float64),
        "sigmoid" if stages.shape[1] == 1 else "softmax", slope,
    )  # fmt: skip


def _tree(tree: Any, rate: float = 1.0) -> Trees:
    leaf = tree.children_left < 0
    missing = getattr(tree, "missing_go_to_left", np.zeros(len(leaf)))  # scikit-learn 1.3 and later
    return Trees(
        np.array([0]), np.where(leaf, -1, tree.feature), tree.children_left.copy(), tree.children_right.copy(),
        np.where(leaf, 0.0, tree.threshold), np.asarray(missing, dtype=bool), rate * tree.value[:, 0, :],
    )  # fmt: skip


def _hist(estimator: Any) -> Ensemble:
    # sklearn/ensemble/_hist_gradient_boosting/gradient_boosting.py: baseline, then one tree a class and iteration
    predictors = estimator._predictors
    trees = []
    for predictor in (part for iteration in predictors for part in iteration):
        nodes = predictor.nodes
        if nodes["is_categorical"].any():
            raise NotCompilable("it splits on categories")
        leaf = nodes["is_leaf"].astype(bool)
        trees.append(
            Trees(
                np.array([0]),
                np.where(leaf, -1, nodes["feature_idx"].astype(np.int64)),
                np.where(leaf, -1, nodes["left"].astype(np.int64)),
                np.where(leaf, -1, nodes["right"].astype(np.int64)),
                np.where(leaf, 0.0, nodes["num_threshold"]),
                nodes["missing_go_to_left"].astype(bool),
                nodes["value"].astype(np.float64)[:, None],
            )
        )
    if getattr(estimator, "is_categorical_", None) is not None:
        raise NotCompilable("it takes categories")  # they are reordered and encoded before the trees see them
    n_scores = estimator.n_trees_per_iteration_
    base = np.asarray(estimator._baseline_prediction, dtype=np.float64).reshape(-1)
    return Ensemble(
        "boosted", stack(trees), len(estimator.classes_), None, np.tile(np.arange(n_scores), len(predictors)), base,
        "sigmoid" if n_scores == 1 else "softmax",
    )  # fmt: skip


def _lightgbm(estimator: Any) -> Ensemble:
    return _boosted(lightgbm_model(estimator), len(estimator.classes_), None, "float64")


def lightgbm_model(estimator: Any) -> Any:
    """The treelite model of a LightGBM classifier, which takes for 0 what LightGBM takes for 0.

    Raises
    ------
    NotCompilable
    """
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
        below, above = (threshold >= -_ZERO) & (threshold < 0), (threshold >= 0) & (threshold < _ZERO)
        if (below | above)[accessor.get_field("cleft") >= 0].any():
            threshold[below], threshold[above] = np.nextafter(-_ZERO, -np.inf), _ZERO
            accessor.set_field("threshold", threshold)
    return model


def _xgboost(estimator: Any) -> Ensemble:
    return _boosted(xgboost_model(estimator), len(estimator.classes_), "float32", "float32")


def xgboost_model(estimator: Any) -> Any:
    """The treelite model of an XGBoost classifier, as far as it predicts with it.

    Raises
    ------
    NotCompilable
    """
    import treelite

    booster = estimator.get_booster()
    missing = estimator.missing
    if missing is not None and not np.isnan(missing):
        raise NotCompilable("it takes a number for a missing value (missing=)")
    first, last = estimator._get_iteration_range(None)
    if last:  # it stopped early: predict_proba stops at the best iteration
        booster = booster[first:last]
    return treelite.frontend.from_xgboost(booster)


def _boosted(model: Any, n_classes: int, rounds: Any, sums: Any) -> Ensemble:
    """Ensemble of a treelite model, whose trees and header say everything that LightGBM and XGBoost compute."""
    header = model.get_header_accessor()
    link = _LINKS.get(header.get_field("postprocessor"))
    if (
        link is None
        or header.get_field("average_tree_output").any()
        or header.get_field("leaf_vector_shape").prod() > 1
    ):
        raise NotCompilable("its scores are put together in a way of their own")
    accessors = [model.get_tree_accessor(i) for i in range(model.num_tree)]
    cmp = np.concatenate([a.get_field("cmp")[a.get_field("cleft") >= 0] for a in accessors])
    if not np.isin(cmp, (_LESS, _LESS_OR_EQUAL)).all() or len(set(cmp.tolist())) > 1:
        raise NotCompilable("it splits on categories")
    strict = bool(len(cmp)) and cmp[0] == _LESS
    trees = stack(_accessed(a, strict) for a in accessors)
    return Ensemble(
        "boosted", trees, n_classes, rounds, header.get_field("class_id").astype(np.int64),
        header.get_field("base_scores").astype(np.float64), link, float(header.get_field("sigmoid_alpha")[0]), sums,
    )  # fmt: skip


def _accessed(accessor: Any, strict: bool) -> Trees:
    left = accessor.get_field("cleft").astype(np.int64)
    leaf = left < 0
    return Trees(
        np.array([0]), np.where(leaf, -1, accessor.get_field("split_index").astype(np.int64)), left,
        accessor.get_field("cright").astype(np.int64),
        np.where(leaf, 0.0, accessor.get_field("threshold").astype(np.float64)),
        accessor.get_field("default_left").astype(bool), accessor.get_field("leaf_value").astype(np.float64)[:, None],
        strict,
    )  # fmt: skip


_TREES = frozenset({"sklearn.tree._classes.DecisionTreeClassifier", "sklearn.tree._classes.ExtraTreeClassifier"})
_READERS: dict[str, Callable[[Any], Ensemble]] = {
    "sklearn.ensemble._forest.RandomForestClassifier": _forest,
    "sklearn.ensemble._forest.ExtraTreesClassifier": _forest,
    "sklearn.tree._classes.DecisionTreeClassifier": _forest,
    "sklearn.tree._classes.ExtraTreeClassifier": _forest,
    "sklearn.ensemble._weight_boosting.AdaBoostClassifier": _ada_boost,
    "sklearn.ensemble._gb.GradientBoostingClassifier": _gradient_boosting,
    "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.HistGradientBoostingClassifier": _hist,
    "lightgbm.sklearn.LGBMClassifier": _lightgbm,
    "xgboost.sklearn.XGBClassifier": _xgboost,
    "xgboost.sklearn.XGBRFClassifier": _xgboost,
}
