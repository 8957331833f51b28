"""LightGBM's classifiers, read off the text that a booster writes of itself, in which every number is whole."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.tree_parts import Array, Split, Tree, stacked
from fin_pyfunc.model.tree_file import AS_MISSING, AS_ZERO, Arithmetic, Trees

#: LightGBM reads a value no further from 0 than this as 0 (include/LightGBM/meta.h, kZeroThreshold, a float).
ZERO = float(np.float32(1e-35))
#: Bits of a node's `decision_type`, and what its third and fourth say of missing values: include/LightGBM/tree.h.
_CATEGORICAL, _DEFAULT_LEFT = 1, 2
_NEVER, _ZERO_IS_MISSING = 0, 1
#: Objectives and their links: src/objective/*.hpp, ConvertOutput.
_LINKS: dict[str, Any] = {
    "binary": "sigmoid", "cross_entropy": "sigmoid", "multiclass": "softmax", "multiclassova": "sigmoids",
}  # fmt: skip
#: Parameters that change what `predict_proba` adds up.
_OF_PREDICTION = ("pred_early_stop", "start_iteration_predict", "num_iteration_predict")


def lightgbm_trees(estimator: Any, n_features: int, *, rounds: bool) -> Trees:
    """Read an LGBMClassifier.

    Raises
    ------
    NotCompilable
        It adds its leaves up in another way.
    """
    if any(estimator.get_params().get(name) for name in _OF_PREDICTION):
        raise NotCompilable("it may leave trees out of a prediction")
    # of the best iteration, where it stopped early, as predict_proba does
    head, *blocks = re.split(r"^Tree=\d+\n", estimator.booster_.model_to_string(), flags=re.MULTILINE)
    fields = [_fields(block.partition("\nend of trees")[0]) for block in blocks]
    if not fields:
        raise NotCompilable("it has no trees")
    about = _fields(head)
    n_scores = int(about["num_tree_per_iteration"])
    link, slope = _link(about.get("objective", ""), n_scores, len(estimator.classes_))
    is_mean = re.search(r"^average_output$", head, flags=re.MULTILINE) is not None
    divisor = float(len(fields) // n_scores) if is_mean else 1.0
    zeros = np.zeros(n_features, dtype=np.uint8)
    arrays = stacked([_tree(tree, zeros) for tree in fields])
    if any(tree.get("is_linear") == "1" for tree in fields):
        if zeros.any():
            raise NotCompilable("it has linear leaves, and takes 0 for a missing value")
        zeros[:] = AS_ZERO
        arrays |= _linear(fields, arrays["values"])
    if not zeros.any():
        zeros = zeros[:0]
    how = Arithmetic(rounds=rounds, divisor=divisor, link=link, slope=slope)
    target = np.resize(np.arange(n_scores), len(fields))
    return Trees(n_features, how, target=target, base=np.zeros(n_scores), zeros=zeros, **arrays)


def _fields(block: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in block.splitlines() if "=" in line)


def _numbers(tree: dict[str, str], name: str, dtype: Any) -> Array:
    return np.array(tree.get(name, "").split(), dtype=dtype)


def _link(objective: str, n_scores: int, n_classes: int) -> tuple[Any, float]:
    name, *options = objective.split()
    link = _LINKS.get(name)
    if link is None or n_classes < 2 or n_scores != (1 if link == "sigmoid" else n_classes):
        raise NotCompilable("its scores are put together in a way of their own")
    if link != "sigmoid" and n_classes == 2:  # predict_proba takes the one for two columns more
        raise NotCompilable("it has an objective of several classes for two of them")
    return link, next((float(option[8:]) for option in options if option.startswith("sigmoid:")), 1.0)


def _tree(tree: dict[str, str], zeros: Array) -> Tree:
    """One tree, branches before leaves; marks in `zeros` which features take 0 as missing."""
    value = _numbers(tree, "leaf_value", np.float64)
    if tree.get("is_linear") == "1":
        value = _numbers(tree, "leaf_const", np.float64)
    branches, leaves = int(tree["num_leaves"]) - 1, int(tree["num_leaves"])
    sides = [_numbers(tree, name, np.int64) for name in ("left_child", "right_child")]
    left, right = (np.append(np.where(side < 0, branches + ~side, side), np.full(leaves, -1)) for side in sides)
    feature, kind = _numbers(tree, "split_feature", np.int64), _numbers(tree, "decision_type", np.int64)
    threshold = _numbers(tree, "threshold", np.float64)
    is_category, missing = (kind & _CATEGORICAL) > 0, kind >> 2 & 3
    splits = {}
    if is_category.any():
        starts, words = (_numbers(tree, name, np.int64) for name in ("cat_boundaries", "cat_threshold"))
        for node in np.flatnonzero(is_category).tolist():
            of = int(threshold[node])
            bits = words[starts[of] : starts[of + 1]].astype("<u4").view(np.uint8)
            splits[node] = Split(bits, 0, -1.0)  # -0.5 is category 0
    by_zero = ~is_category & (missing == _ZERO_IS_MISSING)
    if (zeros[feature[~by_zero]] == AS_MISSING).any():
        raise NotCompilable("it takes 0 of a feature for a missing value in some of its trees alone")
    zeros[feature[by_zero]] = AS_MISSING
    if (zeros[feature[~by_zero]] == AS_MISSING).any():
        raise NotCompilable("it takes 0 of a feature for a missing value in some of its trees alone")
    # no value is that small, so a threshold there can only part 0 from what is beyond
    threshold = np.where((threshold >= -ZERO) & (threshold < 0), np.nextafter(-ZERO, -np.inf), threshold)
    threshold = np.where((threshold >= 0) & (threshold < ZERO), ZERO, threshold)
    # where none were missing, a missing value is 0
    nan_left = np.where(missing == _NEVER, threshold >= 0, (kind & _DEFAULT_LEFT) > 0) & ~is_category
    return Tree(
        left, right, np.append(feature, np.zeros(leaves, dtype=np.int64)), np.append(threshold, np.zeros(leaves)),
        np.append(nan_left, np.zeros(leaves, dtype=bool)),
        np.append(np.zeros(branches), value)[:, None], splits,
    )  # fmt: skip


def _linear(fields: list[dict[str, str]], values: Array) -> dict[str, Array]:
    """The terms of all leaves, in their order, and what they add where one is missing."""
    counts = [_numbers(tree, "num_features", np.int64) if tree.get("is_linear") == "1"
              else np.zeros(int(tree["num_leaves"]), dtype=np.int64) for tree in fields]  # fmt: skip
    if sum(map(len, counts)) != len(values):
        raise NotCompilable("it has linear leaves that its text does not tell of")
    return {
        "linear_starts": np.cumsum([0, *np.concatenate(counts)]),
        "linear_feature": np.concatenate([_numbers(tree, "leaf_features", np.int64) for tree in fields]),
        "linear_slope": np.concatenate([_numbers(tree, "leaf_coeff", np.float64) for tree in fields]),
        "linear_missing": np.concatenate([_numbers(tree, "leaf_value", np.float64) for tree in fields]),
    }
