"""FunctionTransformer, of NumPy's and SciPy's functions by name."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.program.values import Builder, Value
from fin_pyfunc.model.program.numbers import FUNCTIONS, Function

#: dtypes of which a function makes float64; of smaller ones NumPy makes float16 or float32.
_WIDE = frozenset({
    "float64", "Float64", "int32", "int64", "uint32", "uint64", "Int32", "Int64", "UInt32", "UInt64",
})  # fmt: skip


def function_transformer(builder: Builder, step: Any, value: Value) -> Value:
    """Add a FunctionTransformer."""
    if step.func is None:  # what a ColumnTransformer makes of "passthrough"
        return value
    package, name = _named(step.func)
    if step.kw_args:
        raise NotCompilable(f"FunctionTransformer calls {name} with keywords")
    if value.is_sparse:
        raise NotCompilable(f"FunctionTransformer calls {name} of a sparse matrix")
    if value.has_codes:
        raise NotCompilable(f"FunctionTransformer calls {name} of text or categories")
    dtypes = {column.dtype for column in value.columns}
    if not dtypes <= _WIDE:
        raise NotCompilable(
            f"FunctionTransformer calls {name} of {min(dtypes - _WIDE)}, which is not computed in float64"
        )
    if dtypes - {"float64", "Float64"} and _keeps_integers(step.func):
        raise NotCompilable(f"FunctionTransformer calls {name} of whole numbers, and makes whole numbers of them")
    if step.validate:
        builder.require(value, takes_missing=False)
    return builder.add(Function(package=package, name=name), value)


def _named(function: Any) -> tuple[str, str]:
    """The package and the name of a function; raises NotCompilable where it is none that is known."""
    if isinstance(function, np.ufunc):
        for package, names in FUNCTIONS.items():
            module = import_module(package)
            for name in sorted(names):
                if getattr(module, name, None) is function:
                    return package, name
    name = getattr(function, "__name__", type(function).__name__)
    raise NotCompilable(f"FunctionTransformer calls {name}, which is no function of NumPy's or SciPy's that is known")


def _keeps_integers(function: np.ufunc) -> bool:
    return np.asarray(function(np.ones(1, dtype=np.int64))).dtype.kind != "f"
