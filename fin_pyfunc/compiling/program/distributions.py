"""Steps that change how each column is distributed (sklearn/preprocessing/_data.py, _discretization.py)."""

from __future__ import annotations

from typing import Any

import numpy as np

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.program.scalers import numbers, standard_scaler
from fin_pyfunc.compiling.program.values import Builder, Value
from fin_pyfunc.model.backends.nameless import type_name
from fin_pyfunc.model.program.categories import OneHot
from fin_pyfunc.model.program.numbers import Threshold
from fin_pyfunc.model.program.power import Power
from fin_pyfunc.model.program.quantiles import Bins, Quantiles


def power_transformer(builder: Builder, step: Any, value: Value) -> Value:
    """Add a PowerTransformer."""
    method = step.method if step.method == "box-cox" else _yeo_johnson(step)
    value = builder.add(Power(method=method, lambdas=numbers(step.lambdas_)), value)
    if method == "box-cox":
        builder.require(value, takes_missing=True)
    return standard_scaler(builder, step._scaler, value) if step.standardize else value


def quantile_transformer(builder: Builder, step: Any, value: Value) -> Value:
    """Add a QuantileTransformer."""
    if value.is_sparse:
        raise NotCompilable("QuantileTransformer is given a sparse matrix")
    is_normal = step.output_distribution == "normal"
    node = Quantiles(
        quantiles=numbers(step.quantiles_), references=numbers(step.references_), is_normal=is_normal
    )  # fmt: skip
    return builder.add(node, value)


def bins_discretizer(builder: Builder, step: Any, value: Value) -> Value:
    """Add a KBinsDiscretizer."""
    if step.dtype not in (None, np.float64):
        raise NotCompilable("KBinsDiscretizer computes in another dtype than float64")
    between = [numbers(of)[1:-1] for of in step.bin_edges_]
    sizes = np.array([len(of) for of in between], dtype=np.int64)
    value = builder.add(
        Bins(sizes=sizes, edges_between=np.concatenate([np.empty(0), *between])), value, is_sparse=False
    )
    if step.encode == "ordinal":
        return value
    encoder = step._encoder
    known = [np.arange(size + 1) for size in sizes]
    if not all(np.array_equal(*both) for both in zip(encoder.categories_, known, strict=True)) or encoder.drop:
        raise NotCompilable("KBinsDiscretizer has an encoder that does not know its bins")
    starts = np.cumsum([0, *(sizes + 1)])
    table = [np.append(start + of, [-1, -1]) for start, of in zip(starts[:-1], known, strict=True)]
    node = OneHot(sizes=sizes + 1, table=np.concatenate(table), n_columns=int(starts[-1]))
    return builder.add(node, value, is_sparse=step.encode == "onehot")


def binarizer(builder: Builder, step: Any, value: Value) -> Value:
    """Add a Binarizer."""
    return builder.add(Threshold(threshold=float(step.threshold)), value, columns=value.columns)


def _yeo_johnson(step: Any) -> str:
    """By which formula: another one in each of the versions of scikit-learn and SciPy."""
    rows = np.array([[0.1], [-0.1], [7.3], [-2.9]]) * np.ones(len(step.lambdas_))
    plain = type(step)(standardize=False)
    plain.lambdas_, plain.n_features_in_ = step.lambdas_, len(step.lambdas_)
    expected = plain.transform(rows)
    for method in ("yeo-johnson", "power"):
        if np.array_equal(Power(method=method, lambdas=numbers(step.lambdas_))(rows), expected, equal_nan=True):
            return method
    raise NotCompilable(f"{type_name(step)} computes by a formula that is not known")
