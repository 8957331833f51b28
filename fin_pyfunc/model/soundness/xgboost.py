"""XGBoost's own serialized model, as a skops file carries it, read as data first: XGBoost follows parents and children,
and counts what its trees hold by what the file says of them.

Source: `Save` of XGBoost 3.2's learner, gbtree, gblinear, tree and categories; earlier ones write a part of it.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from fin_pyfunc.model.soundness.trees import Array, check_trees, forged, unsupported
from fin_pyfunc.model.soundness.ubjson import BAD, read_ubjson

#: What a classifier is trained for; others answer no probabilities, or of something else than classes.
_OBJECTIVES = {"binary:logistic", "binary:logitraw", "binary:hinge", "reg:logistic", "multi:softprob", "multi:softmax"}
#: More than that makes OpenMP end the process where the system has no threads left, or memory no room.
_MAX_THREADS, _MAX_FEATURES, _MAX_CLASSES = 1024, 1 << 20, 1 << 16
#: Bytes that XGBoost makes of the categories of all trees: a bit for each up to the largest, at each branch.
_MAX_BITS = 8 << 28
_NO_PARENT = (-1, 2**31 - 1)
#: XGBoost's own names of objectives, as in "count:poisson".
_NAME = re.compile(r"(binary|count|multi|rank|reg|survival):[a-z]{1,24}", re.ASCII)
_INTEGER, _FLOAT = re.compile(r"-?\d{1,18}", re.ASCII), re.compile(r"-?\d+(\.\d*)?(e[+-]?\d+)?", re.ASCII | re.I)
#: XGBoost's numbers of the types that a column's categories have, beside text.
_CATEGORY_TYPES = {9: ">i1", 10: ">u1", 11: ">i2", 13: ">i4", 15: ">i8"}


def check_xgboost(content: bytes) -> None:
    """Check a model and its settings, as XGBoost serializes both in one.

    Parameters
    ----------
    content : bytes
        UBJSON, as `Booster.__getstate__` has it.

    Raises
    ------
    ArtifactError
    """
    try:
        document = read_ubjson(content)
        if set(document) != {"Config", "Model"}:
            raise forged(BAD)
        _Learner(document["Config"]["learner"], document["Model"]["learner"]).check()
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as e:
        raise forged(BAD) from e


class _Learner:
    def __init__(self, settings: dict[str, Any], model: dict[str, Any]) -> None:
        self._settings, self._model = settings, model
        sizes = {name: self._agreed("learner_model_param", name) for name in ("num_class", "num_feature", "num_target")}
        self._n_features, self._n_groups = _integer(sizes["num_feature"]), max(1, _integer(sizes["num_class"]))
        if not 0 < self._n_features <= _MAX_FEATURES or _integer(sizes["num_target"]) != 1:
            raise forged("an XGBoost model of another number of features or targets")
        if not 0 <= _integer(sizes["num_class"]) <= _MAX_CLASSES:
            raise forged("an XGBoost model of another number of classes")

    def _agreed(self, part: str, name: str) -> str:
        """What both the model and its settings say: XGBoost reads the one over the other."""
        values = {str(of[part][name]) for of in (self._settings, self._model)}
        if len(values) != 1:
            raise forged("an XGBoost model whose settings are another's")
        return values.pop()

    def check(self) -> None:
        for name in ("nthread", "n_jobs"):
            if abs(_integer(self._settings["generic_param"].get(name, "0"))) > _MAX_THREADS:
                raise forged(f"an XGBoost model that asks for more than {_MAX_THREADS} threads")
        if (objective := self._agreed("objective", "name")) not in _OBJECTIVES:
            if not _NAME.fullmatch(objective):
                raise forged("an XGBoost model that is no classifier")
            raise unsupported(
                f"an XGBoost model trained for {objective!r}, which predicts a number and no probability of a class",
                "train it with objective='binary:logistic' (two classes) or 'multi:softprob'",
            )
        for of in (self._settings, self._model):
            said = of["objective"].get("softmax_multiclass_param", {"num_class": str(self._n_groups)})
            if _integer(said["num_class"]) != self._n_groups:
                raise forged("an XGBoost model of another number of classes")
            base = of["learner_model_param"]["base_score"]
            bases = base[1:-1].split(",") if base[:1] + base[-1:] == "[]" else [base]
            if len(bases) not in (1, self._n_groups) or not all(map(_FLOAT.fullmatch, bases)):
                raise forged(BAD)
        for name in ("feature_names", "feature_types"):
            if len(self._model.get(name, [])) not in (0, self._n_features):
                raise forged("an XGBoost model of another number of features or targets")
        rounds = self._check_booster(self._agreed("gradient_booster", "name"))
        best = self._model["attributes"].get("best_iteration")
        if best is not None and not 0 <= _integer(best) < rounds:
            raise forged("an XGBoost model whose best round is none of its own")

    def _check_booster(self, name: str) -> int:
        """The rounds that it was trained for."""
        settings, booster = (of["gradient_booster"] for of in (self._settings, self._model))
        if name == "gblinear":
            model = booster["model"]
            if len(_array(model, "weights", ">f4")) != (self._n_features + 1) * self._n_groups:
                raise forged("an XGBoost model of another number of features or targets")
            return int(_integers([model["boosted_rounds"]])[0])
        if name == "dart":
            weights = booster["weight_drop"]
            settings, booster = settings["gbtree"], booster["gbtree"]
            if len(weights) != len(booster["model"]["trees"]) or not np.isfinite(np.array(weights, float)).all():
                raise forged("trees of another number than their weights")
        elif name != "gbtree":
            raise forged(BAD)
        return self._check_trees(settings["gbtree_model_param"], booster["model"])

    def _check_trees(self, settings: dict[str, Any], model: dict[str, Any]) -> int:
        trees, said = model["trees"], model["gbtree_model_param"]
        if any(settings[of] != said[of] for of in ("num_trees", "num_parallel_tree")):
            raise forged("an XGBoost model whose settings are another's")
        n_parallel = _integer(said["num_parallel_tree"])
        group = _integers(model["tree_info"])
        if n_parallel < 1 or not len(trees) == len(group) == _integer(said["num_trees"]):
            raise forged("an XGBoost model of another number of trees")
        if ((group < 0) | (group >= self._n_groups)).any():
            raise forged("a tree of a class that there is not")
        each = n_parallel * self._n_groups
        ends = _integers(model.get("iteration_indptr", [*range(0, len(trees) + 1, each)]))
        if not len(ends) or ends[0] != 0 or ends[-1] != len(trees) or (np.diff(ends) < 0).any():
            raise forged("an XGBoost model whose rounds lie outside of it")
        bits = 0
        for i, tree in enumerate(trees):
            if tree["id"] != i:
                raise forged("a tree that is there twice")
            bits += _check_tree(tree, self._n_features, self._n_groups)
        if bits > _MAX_BITS:
            raise forged("more categories than memory has room for")
        if "cats" in model:
            _check_categories(model["cats"], self._n_features)
        return len(ends) - 1


def _check_tree(tree: dict[str, Any], n_features: int, n_groups: int) -> int:
    """A tree; how many bits its categories take in XGBoost."""
    said = tree["tree_param"]
    n_nodes, width = _integer(said["num_nodes"]), _integer(said["size_leaf_vector"])
    if n_nodes < 1 or _integer(said["num_feature"]) != n_features or width not in (1, n_groups):
        raise forged(BAD)
    left, right, parent = (_array(tree, name, ">i4") for name in ("left_children", "right_children", "parents"))
    feature = _array(tree, "split_indices", ">i4", ">i8").astype(np.int64)
    value, *counted = (_array(tree, name, ">f4") for name in ("split_conditions", "loss_changes", "sum_hessian"))
    flags = [_array(tree, name, ">u1") for name in ("default_left", "split_type")]
    if {len(of) for of in (left, right, parent, feature, value, *counted, *flags)} != {n_nodes}:
        raise forged("trees of uneven length")
    if len(_array(tree, "base_weights", ">f4")) != n_nodes * width or any((flag > 1).any() for flag in flags):
        raise forged("trees of uneven length")
    leaf = left == -1
    if width > 1:  # leaves are in an array of their own, at what takes the place of their right child
        weights = _array(tree, "leaf_weights", ">f4")
        if ((right[leaf] < 0) | (right[leaf] >= len(weights) // width)).any() or len(weights) % width:
            raise forged("a tree whose leaves lie outside of it")
    elif (right[leaf] != -1).any():
        raise forged("a tree whose nodes lie outside of it")
    if not np.isfinite(value[leaf] if width == 1 else weights).all():
        raise forged("a leaf that is no number")
    if (left[~leaf] < 0).any():
        raise forged("a tree whose nodes lie outside of it")
    check_trees(left, np.where(leaf, -1, right), feature, n_features)
    if parent[0] not in _NO_PARENT or (parent[1:] < 0).any() or (parent[1:] >= n_nodes).any():
        raise forged("a tree whose nodes lie outside of it")
    branch = np.flatnonzero(~leaf)
    if (parent[left[branch]] != branch).any() or (parent[right[branch]] != branch).any():
        raise forged("a tree whose nodes do not form a tree")
    return _check_branches(tree, np.flatnonzero(flags[1] == 1))


def _check_branches(tree: dict[str, Any], categorical: Array) -> int:
    """Branches by category, in the order of their nodes; how many bits their categories take in XGBoost."""
    nodes, category = (_array(tree, name, ">i4") for name in ("categories_nodes", "categories"))
    starts, sizes = (_array(tree, name, ">i8") for name in ("categories_segments", "categories_sizes"))
    if not np.array_equal(nodes, categorical) or not len(nodes) == len(starts) == len(sizes):
        raise forged("a tree whose categories lie outside of it")
    # one behind the other, without a gap: no sum here overflows
    if (sizes < 1).any() or (sizes > len(category)).any() or not np.array_equal(starts, np.cumsum(sizes) - sizes):
        raise forged("a tree whose categories lie outside of it")
    if int(sizes.sum()) != len(category) or (category < 0).any() or (category >= 1 << 24).any():
        raise forged("a tree whose categories lie outside of it")
    return int((np.maximum.reduceat(category, starts) + 32).sum(dtype=np.int64)) if len(nodes) else 0


def _check_categories(known: dict[str, Any], n_features: int) -> None:
    """The categories that it was trained on, by feature."""
    columns, ends, order = known["enc"], _array(known, "feature_segments", ">i4"), _array(known, "sorted_idx", ">i4")
    if any(not isinstance(known.get(name, False), bool) for name in ("is_ref", "sorted")):
        raise forged(BAD)
    counts = [_n_categories(column) for column in columns]
    if len(columns) not in (0, n_features) or not np.array_equal(ends, np.cumsum([0, *counts]) if counts else []):
        raise forged("categories of another number of features")
    if len(order) != sum(counts):
        raise forged("categories of another number of features")
    for of in np.split(order, ends[1:-1]):
        if not np.array_equal(np.sort(of), np.arange(len(of))):
            raise forged("categories that lie outside of their feature")


def _n_categories(column: dict[str, Any]) -> int:
    if "offsets" not in column:
        return len(_array(column, "values", _CATEGORY_TYPES[column["type"]]))
    ends, text = _array(column, "offsets", ">i4"), _array(column, "values", ">i1")
    if len(ends) and (ends[0] != 0 or (np.diff(ends.astype(np.int64)) < 0).any() or ends[-1] > len(text)):
        raise forged("categories that lie outside of their feature")
    return max(0, len(ends) - 1)


def _array(of: dict[str, Any], name: str, *dtypes: str) -> Array:
    array = of[name]
    if not isinstance(array, np.ndarray) or array.dtype not in map(np.dtype, dtypes):
        raise forged(BAD)
    return array


def _integers(of: list[int]) -> Array:
    if not isinstance(of, list) or any(type(number) is not int for number in of):
        raise forged(BAD)
    return np.array(of, dtype=np.int64)


def _integer(text: str) -> int:
    """A number, as XGBoost writes it: its own reader takes what Python's does not, and the other way round."""
    if not _INTEGER.fullmatch(text):
        raise forged(BAD)
    return int(text)
