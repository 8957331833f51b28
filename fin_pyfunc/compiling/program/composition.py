"""Steps that hold others: Pipeline, ColumnTransformer, FeatureUnion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.program.scalers import weighted
from fin_pyfunc.compiling.program.values import Builder, Value


def pipeline(builder: Builder, step: Any, value: Value) -> Value:
    """Add the steps of a Pipeline, one after the other."""
    for name, inner in step.steps:
        value = builder.transform(inner, value, name)
    return value


def column_transformer(builder: Builder, step: Any, value: Value) -> Value:
    """Add the parts of a ColumnTransformer, side by side (sklearn/compose/_column_transformer.py)."""
    at, weights = _input_columns(step, value), step.transformer_weights or {}
    parts: list[Value] = []
    for name, transformer, columns in step.transformers_:
        if isinstance(transformer, str) and transformer == "drop":
            continue
        positions = [at(int(i)) for i in step._transformer_to_input_indices[name]]
        if not positions:
            continue
        if np.isscalar(columns):  # what is given one column is not a matrix
            kind = type(transformer).__name__
            if kind.endswith("Vectorizer"):  # which takes no list of columns
                raise NotCompilable(f"the step {name!r} ({kind}) is not compiled")
            raise NotCompilable(f"gives {name!r} one column by itself: give it a list of one")
        chosen = builder.select(value, positions)
        made = chosen if isinstance(transformer, str) else builder.transform(transformer, chosen, name)
        parts.append(made if weights.get(name) is None else weighted(builder, made, weights[name]))
    if not parts:
        raise NotCompilable("makes no columns")
    return builder.concat(parts, is_sparse=bool(step.sparse_output_))


def _input_columns(step: Any, value: Value) -> Callable[[int], int]:
    """Where each column that a ColumnTransformer was fitted on is: it goes by names where there are names."""
    names = getattr(step, "feature_names_in_", None)
    known = {column.name: i for i, column in enumerate(value.columns) if column.name is not None}
    if names is not None and len(known) == value.width and known.keys() <= set(names):
        of_names = {i: known[name] for i, name in enumerate(names) if name in known}
    elif value.width == step.n_features_in_:
        of_names = {i: i for i in range(value.width)}
    else:
        raise NotCompilable("was fitted on another number of columns than it is given")

    def at(i: int) -> int:
        if i not in of_names:
            raise NotCompilable("uses a column that is no feature")
        return of_names[i]

    return at


def feature_union(builder: Builder, step: Any, value: Value) -> Value:
    """Add the parts of a FeatureUnion, side by side."""
    parts, weights = [], step.transformer_weights or {}
    for name, transformer in step.transformer_list:
        if transformer == "drop":
            continue
        part = value if transformer == "passthrough" else builder.transform(transformer, value, name)
        parts.append(part if weights.get(name) is None else weighted(builder, part, weights[name]))
    if not parts:
        raise NotCompilable("makes no columns")
    return builder.concat(parts, is_sparse=any(part.is_sparse for part in parts))
