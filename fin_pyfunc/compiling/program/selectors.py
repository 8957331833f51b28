"""Steps that keep some columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.program.values import Builder, Value


def selector(builder: Builder, step: Any, value: Value) -> Value:
    """Add a selector of features (sklearn/feature_selection/_base.py)."""
    chosen = np.flatnonzero(step.get_support())
    if not len(chosen):
        raise NotCompilable(f"{type(step).__name__} keeps no column")
    return builder.select(value, chosen.tolist())
