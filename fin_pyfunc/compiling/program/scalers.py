"""Steps that move and stretch each column by itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from fin_pyfunc.compiling.program.values import Builder, Value
from fin_pyfunc.model.program.arithmetic import Scale


def standard_scaler(builder: Builder, step: Any, value: Value) -> Value:
    """Add a StandardScaler (sklearn/preprocessing/_data.py: first the mean, then the scale)."""
    if step.with_mean:
        value = builder.add(Scale(how="subtract", by=_numbers(step.mean_)), value)
    if step.with_std:
        value = builder.add(Scale(how="divide", by=_numbers(step.scale_)), value)
    return value


def _numbers(of: Any) -> Any:
    return np.ascontiguousarray(of, dtype=np.float64)
