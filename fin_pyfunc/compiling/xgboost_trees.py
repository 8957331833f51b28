"""XGBoost's classifiers, read off what a booster writes of itself (UBJSON)."""

from __future__ import annotations

import ctypes
import ctypes.util
from typing import Any

import numpy as np

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.tree_parts import Array, Split, Tree, stacked
from fin_pyfunc.model.soundness.ubjson import read_ubjson
from fin_pyfunc.model.tree_file import HIGH_LEFT, LOW_LEFT, Arithmetic, Trees

#: Objectives and their links: src/objective/regression_obj.cu and multiclass_obj.cu, PredTransform.
_LINKS: dict[str, Any] = {
    "binary:logistic": "sigmoid", "reg:logistic": "sigmoid", "multi:softprob": "softmax", "multi:softmax": "softmax",
}  # fmt: skip
#: The greatest number below 0: every negative value is no category, -0.0 is one.
_BELOW_ZERO = float(np.nextafter(0.0, -1.0))


def xgboost_trees(estimator: Any, n_features: int, *, rounds: bool) -> Trees:  # noqa: ARG001 - it always rounds
    """Read an XGBClassifier or XGBRFClassifier.

    Raises
    ------
    NotCompilable
        It adds its leaves up in another way.
    """
    booster = estimator.get_booster()
    first, last = estimator._get_iteration_range(None)
    if last:  # it stopped early: predict_proba stops at the best iteration
        booster = booster[first:last]
    learner = read_ubjson(bytes(booster.save_raw("ubj")))["learner"]
    boosted, link = learner["gradient_booster"], _LINKS.get(learner["objective"]["name"])
    weights: Array | None = None
    if boosted["name"] == "dart":
        weights, boosted = np.asarray(boosted["weight_drop"], dtype=np.float32), boosted["gbtree"]
    elif boosted["name"] != "gbtree":
        raise NotCompilable("it has no trees")
    k = len(estimator.classes_)
    base = _base(learner["learner_model_param"]["base_score"], link, 1 if link == "sigmoid" else k)
    if link is None or (link == "sigmoid") != (k == 2):
        raise NotCompilable("its scores are put together in a way of their own")
    model = boosted["model"]
    target = np.asarray(model["tree_info"], dtype=np.int64)
    trees = [_tree(tree) for tree in model["trees"]]
    if not trees:
        raise NotCompilable("it has no trees")
    arrays = stacked(trees)
    if weights is not None:
        _weigh(arrays, weights, base[target])
    missing = estimator.missing
    how = Arithmetic(
        # of margins predict_proba itself makes probabilities, with SciPy
        rounds=True, sums="float32", link=link, exp="numpy" if estimator.objective == "multi:softmax" else "c",
        missing=None if missing is None or np.isnan(missing) else float(np.float32(missing)),
    )  # fmt: skip
    return Trees(n_features, how, target=target, base=base.astype(np.float64), **arrays)


def _tree(tree: dict[str, Any]) -> Tree:
    if int(tree["tree_param"]["size_leaf_vector"]) > 1:
        raise NotCompilable("its leaves hold several scores")
    left, right = (np.asarray(tree[name], dtype=np.int64) for name in ("left_children", "right_children"))
    condition = np.asarray(tree["split_conditions"]).astype(np.float64)
    # less than a number is at most the one before it
    threshold = np.nextafter(condition.astype(np.float32), np.float32(-np.inf)).astype(np.float64)
    return Tree(
        left, right, np.asarray(tree["split_indices"], dtype=np.int64), threshold,
        np.asarray(tree["default_left"]).astype(bool), condition[:, None], _splits(tree),
    )  # fmt: skip


def _splits(tree: dict[str, Any]) -> dict[int, Split]:
    # src/common/categorical.h, Decision: what is in the set goes right, and everything else but a missing value left
    nodes, starts, sizes = (
        np.asarray(tree.get(f"categories_{name}", []), dtype=np.int64) for name in ("nodes", "segments", "sizes")
    )
    categories = np.asarray(tree.get("categories", []), dtype=np.int64)
    splits = {}
    for node, start, size in zip(nodes.tolist(), starts.tolist(), sizes.tolist(), strict=True):
        chosen = categories[start : start + size]
        goes_left = np.ones(8 * (int(chosen.max(initial=0)) // 8 + 1), dtype=bool)
        goes_left[chosen] = False
        splits[node] = Split(np.packbits(goes_left, bitorder="little"), LOW_LEFT | HIGH_LEFT, _BELOW_ZERO)
    return splits


def _weigh(arrays: dict[str, Array], weights: Array, base: Array) -> None:
    """Weigh leaves as dart does, in float32: src/gbm/gbtree.cc, Dart::InplacePredict, whose trees start at the base."""
    counts = np.diff(np.append(arrays["roots"], len(arrays["left"])))
    tree_of = np.repeat(np.arange(len(counts)), counts)[arrays["left"] < 0]
    start = base.astype(np.float32)[tree_of]
    leaf = arrays["values"][:, 0].astype(np.float32)
    arrays["values"] = (((start + leaf) - start) * weights[tree_of]).astype(np.float64)[:, None]


def _base(text: Any, link: str | None, n_scores: int) -> Array:
    """Where the scores start, one for each, in float32."""
    given = np.array([float(part) for part in str(text).strip("[]").split(",")], dtype=np.float32)
    if len(given) not in (1, n_scores):
        raise NotCompilable("its scores start at numbers of other classes")
    if link != "sigmoid":
        return np.resize(given, n_scores)
    # src/objective/regression_loss.h, ProbToMargin: -logf(1 / p - 1)
    log: Any = ctypes.CDLL(ctypes.util.find_library("m")).logf
    log.restype, log.argtypes = ctypes.c_float, [ctypes.c_float]
    return np.array([-log(np.float32(1) / given[0] - np.float32(1))], dtype=np.float32)
