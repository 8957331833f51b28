"""What a fitted estimator compares a feature with, read off its arrays: thresholds, edges, quantiles, categories."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

#: Values kept a feature, and from one array.
_MOST, _OF_ONE = 400, 60
_OURS = ("sklearn.", "lightgbm.", "xgboost.", "catboost.", "imblearn.", "interpret.")

Known = dict[str, list[Any]]


def constants(estimator: Any, names: Sequence[str]) -> Known:
    """Values that the estimator's own arrays hold for each feature, as far as its parts see features as they come.

    Parameters
    ----------
    estimator : object
        Fitted; a Pipeline, a ColumnTransformer or anything that holds others.
    names : sequence of str
        Of the features.

    Returns
    -------
    dict of str to list
        At most 400 a feature, numbers or, of categories, whatever they are.
    """
    found: dict[str, dict[Any, None]] = defaultdict(dict)
    for name, values in _walk(estimator, list(names), set()):
        for value in values:
            if isinstance(value, str) or (isinstance(value, int | float | np.number) and np.isfinite(value)):
                found[name][value.item() if isinstance(value, np.generic) else value] = None
    rng = np.random.default_rng(0)
    return {name: _some(list(values), _MOST, rng) for name, values in found.items()}


def _some(values: list[Any], most: int, rng: np.random.Generator) -> list[Any]:
    if len(values) <= most:
        return values
    return [values[i] for i in np.sort(rng.choice(len(values), most, replace=False))]


def _walk(part: Any, names: list[str], seen: set[int]) -> Iterator[tuple[str, Sequence[Any]]]:
    if id(part) in seen or isinstance(part, type):
        return
    seen.add(id(part))
    if isinstance(part, list | tuple) or (isinstance(part, np.ndarray) and part.dtype == object):
        for each in np.ravel(part) if isinstance(part, np.ndarray) else part:
            yield from _walk(each, names, seen)
    elif isinstance(part, dict):
        yield from _walk(list(part.values()), names, seen)
    elif hasattr(part, "steps"):  # what the later ones see is for `edges` to find
        yield from _walk(part.steps[0][1], names, seen)
    elif hasattr(part, "transformers_"):
        for _, transformer, columns in part.transformers_:
            if columns := _named(columns, names):
                yield from _walk(transformer, columns, seen)
    elif hasattr(part, "__dict__") and type(part).__module__.startswith(_OURS):
        yield from _of(part, names)
        yield from _walk(list(vars(part).values()), names, seen)


def _named(columns: Any, names: list[str]) -> list[str]:
    if isinstance(columns, str):
        return [columns]
    if isinstance(columns, slice):
        return names[columns]
    chosen = list(columns)
    if chosen and all(isinstance(each, bool | np.bool_) for each in chosen):
        return [name for name, is_in in zip(names, chosen, strict=True) if is_in]
    return [each if isinstance(each, str) else names[each] for each in chosen]


def _of(part: Any, names: list[str]) -> Iterator[tuple[str, Sequence[Any]]]:
    """What one object says of each feature."""
    for column, values in (*_splits(part), *_arrays(part, len(names))):
        if 0 <= column < len(names):
            yield names[column], values


def _splits(part: Any) -> Iterator[tuple[int, Sequence[Any]]]:
    """Splits of trees, of whichever library."""
    tree = vars(part).get("tree_")
    if tree is not None and hasattr(tree, "threshold"):
        yield from _by_feature(tree.feature, tree.threshold)
    nodes = vars(part).get("nodes")
    if isinstance(nodes, np.ndarray) and nodes.dtype.names and "num_threshold" in nodes.dtype.names:
        inner = nodes[nodes["is_leaf"] == 0]
        yield from _by_feature(inner["feature_idx"], inner["num_threshold"])
    kind = f"{type(part).__module__}.{type(part).__name__}"
    if kind == "lightgbm.basic.Booster":
        frame, known = part.trees_to_dataframe(), part.feature_name()
        frame = frame[(frame["decision_type"] == "<=")]
        yield from _by_feature(np.array([known.index(n) for n in frame["split_feature"]]), frame["threshold"])
    elif kind == "xgboost.core.Booster" and "gblinear" not in part.save_config():
        try:
            frame = part.trees_to_dataframe()
        except Exception:  # it has no words for some trees: `edges` finds where they split
            return
        frame = frame[(frame["Feature"] != "Leaf") & frame["Split"].notna()]
        known = part.feature_names or [f"f{i}" for i in range(part.num_features())]
        yield from _by_feature(np.array([known.index(n) for n in frame["Feature"]]), frame["Split"])


def _by_feature(feature: Any, threshold: Any) -> Iterator[tuple[int, Sequence[Any]]]:
    feature, threshold = np.asarray(feature), np.asarray(threshold, dtype=np.float64)
    for column in np.unique(feature[feature >= 0]) if len(feature) else ():
        yield int(column), threshold[feature == column].tolist()


def _arrays(part: Any, n: int) -> Iterator[tuple[int, Sequence[Any]]]:
    """Arrays with a place for each feature, and the one number that all features are compared with."""
    rng = np.random.default_rng(1)
    for name, value in list(vars(part).items()):
        if name == "threshold" and isinstance(value, int | float):
            yield from ((i, [float(value)]) for i in range(n))
        elif name in ("bin_edges_", "categories_", "bins_", "data_binned_", "encodings_", "bin_thresholds_"):
            if len(value) == n:
                yield from ((i, _some(list(np.ravel(np.asarray(value[i], dtype=object))), _OF_ONE, rng))
                            for i in range(n))  # fmt: skip
        elif isinstance(value, np.ndarray) and value.dtype.kind in "fiu" and name.endswith("_"):
            if value.shape == (n,):
                yield from ((i, [value[i]]) for i in range(n))
            elif value.ndim == 2 and value.shape[1] == n:
                yield from ((i, _some(value[:, i].tolist(), _OF_ONE, rng)) for i in range(n))
