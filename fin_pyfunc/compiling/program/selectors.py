"""Steps that keep some columns, and those that say which are missing."""

from __future__ import annotations

from typing import Any

import numpy as np

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.program.values import Builder, Column, Value
from fin_pyfunc.model.program.arithmetic import IsMissing


def selector(builder: Builder, step: Any, value: Value) -> Value:
    """Add a selector of features (sklearn/feature_selection/_base.py)."""
    chosen = np.flatnonzero(step.get_support())
    if not len(chosen):
        raise NotCompilable(f"{type(step).__name__} keeps no column")
    return builder.select(value, chosen.tolist())


def missing_indicator(builder: Builder, step: Any, value: Value) -> Value:
    """Add a MissingIndicator of NaN (sklearn/impute/_base.py)."""
    is_nan = isinstance(step.missing_values, float) and np.isnan(step.missing_values)
    if not is_nan or value.has_codes or value.is_sparse:
        raise NotCompilable("MissingIndicator looks for another value than NaN, or in text or a sparse matrix")
    if step.sparse not in ("auto", False):
        raise NotCompilable("MissingIndicator makes a sparse matrix")
    if step.features == "missing-only":
        chosen = np.asarray(step.features_).tolist()
        others = sorted(set(range(value.width)) - set(chosen))
        if step.error_on_new and others:
            builder.require(builder.select(value, others), takes_missing=False)
        if not chosen:
            raise NotCompilable("MissingIndicator makes no column")
        value = builder.select(value, chosen)
    return builder.add(IsMissing(), value, columns=[Column(dtype="bool")] * value.width)
