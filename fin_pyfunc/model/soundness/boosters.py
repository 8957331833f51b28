"""Models of LightGBM and XGBoost as a skops file carries them, and LightGBM's text read as data first: it takes
positions as they are.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from fin_pyfunc.model.soundness.trees import Array, check_trees, forged, unsupported
from fin_pyfunc.model.soundness.ubjson import BAD
from fin_pyfunc.model.soundness.xgboost import check_xgboost

_LIGHTGBM, _XGBOOST = "a LightGBM", "an XGBoost"
_BOOSTERS = {"lightgbm.basic.Booster": _LIGHTGBM, "xgboost.core.Booster": _XGBOOST}
_BAD = f"{_LIGHTGBM} model that is cut off or damaged"
_IS_CATEGORICAL = 1  # of `decision_type`


def check_boosters(nodes: Iterable[dict[str, Any]], read: Callable[[str], bytes]) -> None:
    """Check the LightGBM and XGBoost models of a skops file.

    Parameters
    ----------
    nodes : iterable of dict
        Every JSON object of its schema, as `estimators.skops_nodes` yields them.
    read : callable of str to bytes
        A part of the file, by name.

    Raises
    ------
    ArtifactError
    """
    seen = [node for node in nodes if node.get("__loader__") != "CachedNode"]
    # skops takes a node whose id it has met for the object it has met, and writes an object that is there twice twice
    ids: Counter[Any] = Counter(node["__id__"] for node in seen if "__id__" in node)
    boosters = [node for node in seen if _name(node) in _BOOSTERS]
    own = Counter((node.get("__id__"), _name(node)) for node in boosters)
    for node in boosters:
        library = _BOOSTERS[_name(node)]
        state = node.get("content")
        parts = state.get("content") if isinstance(state, dict) else None
        if not isinstance(state, dict) or not isinstance(parts, dict) or node.get("__loader__") != "ObjectNode":
            raise forged(f"{library} model that is cut off or damaged")
        if (_name(state), state.get("__loader__")) != ("builtins.dict", "DictNode"):  # else its content is another's
            raise forged(f"{library} model that is cut off or damaged")
        this = node.get("__id__")
        if ids[this] != own[this, _name(node)] or ids[state.get("__id__")] != 1:
            raise forged("two objects of one name")
        if library == _XGBOOST:
            _check_bytes(parts, ids, read)
        else:
            _check_texts(parts, ids)


def _name(node: dict[str, Any]) -> str:
    return f"{node.get('__module__')}.{node.get('__class__')}"


def _check_texts(parts: dict[str, Any], ids: Counter[Any]) -> None:
    for text in [parts[name] for name in ("_handle", "handle") if name in parts]:
        if not isinstance(text, dict) or text.get("__loader__") != "JsonNode" or ids.get(text.get("__id__"), 1) != 1:
            raise forged(_BAD)
        # null is no model, and LightGBM follows its address
        check_lightgbm(json.loads(text["content"]) if isinstance(text.get("content"), str) else None)


def _check_bytes(parts: dict[str, Any], ids: Counter[Any], read: Callable[[str], bytes]) -> None:
    """The one thing that an XGBoost model is: another key could become `handle` by the type that the file gives it."""
    handle = parts.get("handle")
    if set(parts) != {"handle"} or not isinstance(handle, dict) or ids[handle.get("__id__")] != 1:
        raise forged(BAD)
    if (_name(handle), handle.get("__loader__")) != ("builtins.bytearray", "BytearrayNode"):
        raise forged(BAD)
    check_xgboost(read(handle["file"]))


def check_lightgbm(text: Any) -> None:
    """Check a model in LightGBM's text format.

    Raises
    ------
    ArtifactError
    """
    if not isinstance(text, str):
        raise forged(_BAD)
    content = text.encode()
    start = content.find(b"\nTree=0\n") + 1
    header = _fields(content[: start or len(content)])
    try:
        n_features = int(header["max_feature_idx"]) + 1
        n_classes, per_iteration = int(header["num_class"]), int(header["num_tree_per_iteration"])
        sizes = [int(size) for size in header["tree_sizes"].split()]
        said = re.search(r"num_class:(\d+)", header.get("objective", ""))
    except (KeyError, ValueError) as e:
        raise forged(_BAD) from e
    if not 0 < n_features < 1 << 20 or n_classes != per_iteration or (said and int(said[1]) != n_classes):
        raise forged("a LightGBM model of another number of classes")
    if not start or not sizes or len(sizes) % n_classes or min(sizes) <= 0 or start + sum(sizes) > len(content):
        raise forged(_BAD)
    for i, size in enumerate(sizes):
        tree = content[start : start + size]
        if not tree.startswith(b"Tree=%d\n" % i) or tree.count(b"Tree=") != 1:
            raise forged(_BAD)
        _check_tree(_fields(tree), n_features)
        start += size
    if not content[start:].startswith(b"end of trees"):
        raise forged(_BAD)


def _check_tree(tree: dict[str, str], n_features: int) -> None:
    try:
        n_leaves, n_categories = int(tree["num_leaves"]), int(tree["num_cat"])
        left, right, feature, decision = (
            _numbers(tree, name) for name in ("left_child", "right_child", "split_feature", "decision_type")
        )
        threshold = _numbers(tree, "threshold", np.float64)
        values = _numbers(tree, "leaf_value", np.float64)
        starts, words = _numbers(tree, "cat_boundaries"), _numbers(tree, "cat_threshold")
    except (KeyError, ValueError, OverflowError) as e:
        raise forged(_BAD) from e
    if tree.get("is_linear", "0") != "0":
        raise unsupported(
            "a LightGBM model with linear trees (linear_tree=True), which cannot be checked in a skops file",
            "log it with serialization='cloudpickle' if you trust where it will be loaded, or train it with "
            "linear_tree=False",
        )
    branches = n_leaves - 1
    if (
        n_leaves < 1
        or len(values) != n_leaves
        or {len(a) for a in (left, right, feature, decision, threshold)} != {branches}
    ):
        raise forged("trees of uneven length")
    if n_categories and (
        len(starts) != n_categories + 1 or starts[0] < 0 or (np.diff(starts) < 0).any() or starts[-1] > len(words)
    ):
        raise forged("a tree whose categories lie outside of it")
    categorical = threshold[(decision & _IS_CATEGORICAL) == _IS_CATEGORICAL]
    if not ((categorical >= 0) & (categorical < n_categories)).all():  # NaN is neither
        raise forged("a tree whose categories lie outside of it")
    if not branches:
        return
    # a leaf is -(its number + 1); here leaves lie behind the branches
    sides = [np.where(side < 0, branches - side - 1, side) for side in (left, right)]
    if any(((side >= branches) & (of >= 0)).any() for side, of in zip(sides, (left, right), strict=True)):
        raise forged("a tree whose nodes lie outside of it")
    none = np.full(n_leaves, -1)
    left, right, feature = (np.concatenate([of, none]) for of in (*sides, feature))
    check_trees(left, right, feature, n_features)


def _numbers(tree: dict[str, str], name: str, dtype: type = np.int64) -> Array:
    return np.array(tree.get(name, "").split(), dtype=np.float64 if dtype is np.float64 else object).astype(dtype)


def _fields(text: bytes) -> dict[str, str]:
    lines = (line.partition("=") for line in text.decode("utf-8", "replace").split("\n") if "=" in line)
    fields: dict[str, str] = {}
    for name, _, value in lines:
        if name in fields:
            raise forged("a field that is there twice")
        fields[name] = value
    return fields
