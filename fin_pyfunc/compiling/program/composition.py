"""Steps that hold others: Pipeline, ColumnTransformer, FeatureUnion."""

from __future__ import annotations

from typing import Any

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.program.scalers import weighted
from fin_pyfunc.compiling.program.values import Builder, Value


def pipeline(builder: Builder, step: Any, value: Value) -> Value:
    """Add the steps of a Pipeline, one after the other."""
    for _, inner in step.steps:
        value = builder.transform(inner, value)
    return value


def column_transformer(builder: Builder, step: Any, value: Value) -> Value:
    """Add the parts of a ColumnTransformer, side by side."""
    parts: list[Value] = []
    for name, transformer, _ in step.transformers_:
        positions = list(step._transformer_to_input_indices[name])
        if (isinstance(transformer, str) and transformer == "drop") or not positions:
            continue
        chosen = builder.select(value, positions)
        parts.append(chosen if transformer == "passthrough" else builder.transform(transformer, chosen))
    if not parts:
        raise NotCompilable("a ColumnTransformer of it makes no columns")
    return builder.concat(parts, is_sparse=bool(step.sparse_output_))


def feature_union(builder: Builder, step: Any, value: Value) -> Value:
    """Add the parts of a FeatureUnion, side by side."""
    parts, weights = [], step.transformer_weights or {}
    for name, transformer in step.transformer_list:
        if transformer == "drop":
            continue
        part = value if transformer == "passthrough" else builder.transform(transformer, value)
        parts.append(part if weights.get(name) is None else weighted(builder, part, weights[name]))
    if not parts:
        raise NotCompilable("a FeatureUnion of it makes no columns")
    return builder.concat(parts, is_sparse=any(part.is_sparse for part in parts))
