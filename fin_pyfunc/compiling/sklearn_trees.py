"""scikit-learn's ensembles of trees, read off their fitted arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.tree_parts import Array, Split, Tree, stacked
from fin_pyfunc.model.backends.nameless import type_name
from fin_pyfunc.model.tree_file import Arithmetic, Trees

BAGGING = "sklearn.ensemble._bagging.BaggingClassifier"
TREES = frozenset({"sklearn.tree._classes.DecisionTreeClassifier", "sklearn.tree._classes.ExtraTreeClassifier"})
#: Categories that a bitset of HistGradientBoosting has: sklearn/ensemble/_hist_gradient_boosting/common.pxd.
_N_CATEGORIES = 256


def _forest(estimator: Any, n_features: int, *, rounds: bool) -> Trees:  # noqa: ARG001 - all of them round
    # sklearn/ensemble/_forest.py, predict_proba: the trees' probabilities added up, and divided by how many they are
    if estimator.n_outputs_ != 1:
        raise NotCompilable("it has several outputs")
    trees = [_tree(part.tree_) for part in getattr(estimator, "estimators_", [estimator])]
    return _mean(trees, n_features, len(estimator.classes_))


def _mean(trees: Sequence[Tree], n_features: int, k: int) -> Trees:
    how = Arithmetic(rounds=True, divisor=float(len(trees)), link="identity")
    return Trees(n_features, how, target=np.zeros(len(trees)), base=np.zeros(k), **stacked(trees))


def _bagging(estimator: Any, n_features: int, *, rounds: bool) -> Trees:  # noqa: ARG001 - all of them round
    # sklearn/ensemble/_bagging.py, _parallel_predict_proba: as a forest, each tree with features and classes of its own
    k, trees = len(estimator.classes_), []
    for part, features in zip(estimator.estimators_, estimator.estimators_features_, strict=True):
        if type_name(part) not in TREES or part.n_outputs_ != 1:
            raise NotCompilable("it bags other estimators than trees")
        tree = _tree(part.tree_)
        value = np.zeros((len(tree.value), k))
        value[:, np.arange(k) if len(part.classes_) == k else part.classes_.astype(np.int64)] = tree.value
        feature = np.asarray(features)[np.maximum(tree.feature, 0)]
        trees.append(Tree(tree.left, tree.right, feature, tree.threshold, tree.nan_left, value))
    if len(trees) != estimator.n_estimators:  # what it divides by
        raise NotCompilable("it has another number of trees than its parameter n_estimators says")
    return _mean(trees, n_features, k)


def _ada_boost(estimator: Any, n_features: int, *, rounds: bool) -> Trees:  # noqa: ARG001 - all of them round
    # sklearn/ensemble/_weight_boosting.py, decision_function: each tree votes with its weight for its class, against
    # all others alike
    if any(type_name(part) not in TREES for part in estimator.estimators_):
        raise NotCompilable("it boosts other estimators than trees")
    if getattr(estimator, "algorithm", "SAMME") not in ("SAMME", "deprecated"):
        raise NotCompilable("it adds up probabilities (algorithm='SAMME.R')")
    k, trees = len(estimator.classes_), []
    for part, weight in zip(estimator.estimators_, estimator.estimator_weights_, strict=False):
        tree = _tree(part.tree_)
        chosen = part.classes_[tree.value.argmax(axis=1)][:, None] == estimator.classes_
        value = np.where(chosen, weight, -1 / (k - 1) * weight)
        trees.append(Tree(tree.left, tree.right, tree.feature, tree.threshold, tree.nan_left, value))
    how = Arithmetic(
        rounds=True, divisor=float(estimator.estimator_weights_.sum()), link="votes", exp="numpy by column"
    )
    return Trees(n_features, how, target=np.zeros(len(trees)), base=np.zeros(k), **stacked(trees))


def _gradient_boosting(estimator: Any, n_features: int, *, rounds: bool) -> Trees:  # noqa: ARG001 - all of them round
    # sklearn/ensemble/_gb.py: raw scores start at the init estimator's and add learning_rate * leaf, stage by stage
    init = estimator.init_
    if not (isinstance(init, str) and init == "zero") and type_name(init) != "sklearn.dummy.DummyClassifier":
        raise NotCompilable("its scores start at another estimator's (init)")
    if getattr(init, "strategy", "prior") in ("stratified", "uniform"):
        raise NotCompilable("its scores start at random (init)")
    base = np.asarray(estimator._raw_predict_init(np.zeros((1, estimator.n_features_in_), dtype=np.float32)))[0]
    stages = estimator.estimators_
    trees = [_tree(part.tree_, estimator.learning_rate) for stage in stages for part in stage]
    # expit(2 * raw): sklearn/_loss/loss.py, ExponentialLoss; the parameter `loss` may have been changed since
    how = Arithmetic(
        rounds=True, slope=2.0 if type(estimator._loss).__name__ == "ExponentialLoss" else 1.0,
        link="sigmoid" if stages.shape[1] == 1 else "softmax", exp="numpy",
    )  # fmt: skip
    return Trees(n_features, how, target=np.tile(np.arange(stages.shape[1]), len(stages)), base=base, **stacked(trees))


def _tree(tree: Any, rate: float = 1.0) -> Tree:
    missing = getattr(tree, "missing_go_to_left", np.zeros(tree.node_count))
    return Tree(
        tree.children_left, tree.children_right, tree.feature, tree.threshold, np.asarray(missing, dtype=bool),
        rate * tree.value[:, 0, :],
    )  # fmt: skip


def _hist(estimator: Any, n_features: int, *, rounds: bool) -> Trees:
    # sklearn/ensemble/_hist_gradient_boosting/gradient_boosting.py: baseline, then one tree a class and iteration
    columns, known, codes = _categories(estimator, n_features)
    trees = [_hist_tree(part, columns, known) for iteration in estimator._predictors for part in iteration]
    n_scores = estimator.n_trees_per_iteration_
    how = Arithmetic(rounds=rounds, link="sigmoid" if n_scores == 1 else "softmax", exp="numpy by column")
    return Trees(
        n_features, how, target=np.tile(np.arange(n_scores), len(estimator._predictors)),
        base=np.asarray(estimator._baseline_prediction, dtype=np.float64).reshape(-1), **stacked(trees), **codes,
    )  # fmt: skip


def are_numbers(categories: Any) -> bool:
    """Whether an encoder's categories are numbers; beside a column of booleans they lie in an array of objects."""
    kinds = int | float | np.number | np.bool_
    return all(category is None or isinstance(category, kinds) for category in np.asarray(categories).tolist())


def _categories(estimator: Any, n_features: int) -> tuple[Array, dict[int, Array], dict[str, Array]]:
    """Which feature each column of the trees is; by column the categories that were binned; and the features' codes."""
    if getattr(estimator, "is_categorical_", None) is None:
        return np.arange(n_features), {}, {}
    is_category = np.asarray(estimator.is_categorical_)
    encoder = estimator._preprocessor.named_transformers_["encoder"]
    each: list[Array] = [np.zeros(0)] * n_features
    for feature, categories in zip(np.flatnonzero(is_category), encoder.categories_, strict=True):
        if are_numbers(categories):
            numbers = np.asarray(categories, dtype=np.float64)  # None becomes NaN
            each[feature] = numbers[~np.isnan(numbers)]
        else:  # text comes as its position among the encoder's categories (`classifier_input`)
            each[feature] = np.arange(sum(category == category and category is not None for category in categories))
        if not len(each[feature]):
            raise NotCompilable("a feature has no categories")
    # categories come first: ColumnTransformer in `_preprocess_X`
    columns = np.concatenate([np.flatnonzero(is_category), np.flatnonzero(~is_category)])
    binned = estimator._bin_mapper.bin_thresholds_
    known = {int(i): np.asarray(binned[i]).astype(np.int64) for i in range(int(is_category.sum()))}
    codes = {"code_starts": np.cumsum([0, *map(len, each)]), "codes": np.concatenate(each)}
    return columns, known, codes


def _hist_tree(predictor: Any, columns: Array, known: dict[int, Array]) -> Tree:
    # _predictor.pyx, _predict_one_from_raw_data: a category that was not binned goes where a missing value does
    nodes = predictor.nodes
    leaf, missing = nodes["is_leaf"].astype(bool), nodes["missing_go_to_left"].astype(bool)
    column = np.where(leaf, 0, nodes["feature_idx"].astype(np.int64))
    splits = {}
    for node in np.flatnonzero(nodes["is_categorical"].astype(bool) & ~leaf).tolist():
        bits = np.asarray(predictor.raw_left_cat_bitsets)[nodes["bitset_idx"][node]].astype("<u4").view(np.uint8)
        left, is_known = np.unpackbits(bits, bitorder="little").astype(bool), np.zeros(_N_CATEGORIES, dtype=bool)
        is_known[known[int(column[node])]] = True
        goes_left = left | (~is_known & missing[node])
        splits[node] = Split(np.packbits(goes_left, bitorder="little"), 0, -1.0)
    return Tree(
        np.where(leaf, -1, nodes["left"].astype(np.int64)), np.where(leaf, -1, nodes["right"].astype(np.int64)),
        columns[column], nodes["num_threshold"], missing, nodes["value"].astype(np.float64)[:, None], splits,
    )  # fmt: skip


#: By the name of the class.
READERS: dict[str, Callable[..., Trees]] = {
    "sklearn.ensemble._forest.RandomForestClassifier": _forest,
    "sklearn.ensemble._forest.ExtraTreesClassifier": _forest,
    "sklearn.tree._classes.DecisionTreeClassifier": _forest,
    "sklearn.tree._classes.ExtraTreeClassifier": _forest,
    BAGGING: _bagging,
    "sklearn.ensemble._weight_boosting.AdaBoostClassifier": _ada_boost,
    "sklearn.ensemble._gb.GradientBoostingClassifier": _gradient_boosting,
    "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.HistGradientBoostingClassifier": _hist,
}
