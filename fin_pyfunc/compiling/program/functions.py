"""FunctionTransformer, of NumPy's functions by name."""

from __future__ import annotations

from typing import Any

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.program.values import Builder, Value


def function_transformer(builder: Builder, step: Any, value: Value) -> Value:  # noqa: ARG001 - as all of them
    """Add a FunctionTransformer."""
    if step.func is None:  # what a ColumnTransformer makes of "passthrough"
        return value
    raise NotCompilable("FunctionTransformer calls a function of your own")
