"""Tree ensembles as ONNX graphs hold them: those of `Trees` that a graph can compute."""

from __future__ import annotations

from typing import Any

import numpy as np

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.tree_form import is_known, trees_of
from fin_pyfunc.compiling.trees import Array, Ensemble, Trees, stack
from fin_pyfunc.model import tree_file
from fin_pyfunc.model.tree_file import CATEGORICAL, NAN_LEFT

is_ensemble = is_known


def ensemble_of(estimator: Any) -> Ensemble:
    """Read a tree ensemble.

    Parameters
    ----------
    estimator : object
        A fitted tree ensemble of scikit-learn, LightGBM or XGBoost. It is not modified.

    Raises
    ------
    NotCompilable
        It is none, or does something that an ensemble of numbers does not.
    """
    read = trees_of(estimator, int(estimator.n_features_in_), single=False)
    how, k = read.arithmetic, len(estimator.classes_)
    if (read.flags & CATEGORICAL).any() or len(read.codes):
        raise NotCompilable("it splits on categories")
    if len(read.linear_starts):
        raise NotCompilable("its leaves are linear models")
    if len(read.zeros) or how.missing is not None:
        raise NotCompilable("it takes a number for a missing value")
    leaf = read.left < 0
    trees = Trees(
        read.roots, np.where(leaf, -1, read.feature), read.left, read.right, read.threshold,
        (read.flags & NAN_LEFT) > 0, np.where(leaf[:, None], read.values[np.where(leaf, read.item, 0)], 0.0),
    )  # fmt: skip
    rounds: Any = "float32" if how.rounds else None
    if how.link == "identity":
        return Ensemble("forest", trees, k, rounds)
    if how.link == "votes":
        return _votes(trees, k, how.divisor)
    if how.divisor != 1.0:
        raise NotCompilable("its scores are put together in a way of their own")
    return Ensemble("boosted", trees, k, rounds, read.target.astype(np.int64), read.base, how.link, how.slope, how.sums)


def _votes(trees: Trees, k: int, total: float) -> Ensemble:
    """AdaBoost, with a copy of the trees for each class."""
    # with two classes the scores are each other's negatives: softmax([-s, s]) is a sigmoid of 2 s
    columns = [1] if k == 2 else range(k)
    copies = stack(_column(trees, i) for i in columns)
    target, base = np.repeat(np.arange(len(columns)), len(trees.roots)), np.zeros(len(columns))
    link: Any = "sigmoid" if k == 2 else "softmax"
    slope = 2 / total if k == 2 else 1 / (total * (k - 1))
    return Ensemble("boosted", copies, k, "float32", target, base, link, slope)


def _column(trees: Trees, i: int) -> Trees:
    return Trees(
        trees.roots, trees.feature, trees.left, trees.right, trees.threshold, trees.nan_left, trees.value[:, i : i + 1]
    )


def constants(estimator: Any, n_features: int) -> list[Array]:
    """What each feature is compared with, by feature: thresholds, categories, and numbers beside all categories.

    Raises
    ------
    NotCompilable
    """
    read = trees_of(estimator, n_features, single=False)
    branch, by_category = read.left >= 0, (read.flags & CATEGORICAL) > 0
    return [
        np.concatenate([read.threshold[branch & ~by_category & (read.feature == i)], _categories(read, i)])
        for i in range(n_features)
    ]


def _categories(read: tree_file.Trees, feature: int) -> Array:
    if len(read.codes) and len(codes := read.codes[read.code_starts[feature] : read.code_starts[feature + 1]]):
        return np.concatenate([codes, [codes[0] - 1, codes[-1] + 1, codes[-1] + 0.5]])
    splits = read.item[(read.left >= 0) & ((read.flags & CATEGORICAL) > 0) & (read.feature == feature)]
    if not len(splits):
        return np.zeros(0)
    most = 8 * int((read.category_starts[splits + 1] - read.category_starts[splits]).max())
    return np.concatenate([np.arange(most + 2.0), [-1.0, -0.5, 0.5]])
