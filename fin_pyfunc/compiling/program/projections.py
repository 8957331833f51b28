"""Steps that are a matrix product (sklearn/decomposition, sklearn/kernel_approximation.py)."""

from __future__ import annotations

from typing import Any

import numpy as np

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.program.scalers import numbers
from fin_pyfunc.compiling.program.values import Builder, Value
from fin_pyfunc.model.program.arithmetic import Scale
from fin_pyfunc.model.program.classifiers import Linear
from fin_pyfunc.model.program.numbers import Function


def pca(builder: Builder, step: Any, value: Value) -> Value:
    """Add a PCA, which is centred after its product (sklearn/decomposition/_base.py)."""
    rows = numbers(step.components_)
    shift = np.zeros(len(rows)) if step.mean_ is None else -(np.reshape(step.mean_, (1, -1)) @ rows.T).ravel()
    value = builder.add(Linear(coef=rows, intercept=shift, link="none"), value, is_sparse=False)
    if step.whiten:
        scale = np.sqrt(numbers(step.explained_variance_))
        scale[scale < np.finfo(np.float64).eps] = np.finfo(np.float64).eps
        value = builder.add(Scale(how="divide", by=scale), value)
    return value


def components(builder: Builder, step: Any, value: Value) -> Value:
    """Add a product with a step's components (TruncatedSVD, random projections, NeighborhoodComponentsAnalysis)."""
    if value.is_sparse and type(step).__name__.endswith("RandomProjection"):
        raise NotCompilable(f"{type(step).__name__} is given a sparse matrix")
    held = step.components_
    return _product(builder, held.toarray() if hasattr(held, "toarray") else held, value)


def fast_ica(builder: Builder, step: Any, value: Value) -> Value:
    """Add a FastICA (sklearn/decomposition/_fastica.py)."""
    if step.whiten:
        value = builder.add(Scale(how="subtract", by=numbers(step.mean_)), value)
    return _product(builder, step.components_, value)


def discriminants(builder: Builder, step: Any, value: Value) -> Value:
    """Add a LinearDiscriminantAnalysis that is no classifier here (sklearn/discriminant_analysis.py)."""
    if step.solver == "svd":
        value = builder.add(Scale(how="subtract", by=numbers(step.xbar_)), value)
    return _product(builder, np.transpose(step.scalings_)[: step._max_components], value)


def _product(builder: Builder, rows: Any, value: Value) -> Value:
    node = Linear(coef=numbers(rows), intercept=np.zeros(len(rows)), link="none")
    return builder.add(node, value, is_sparse=False)


def rbf_sampler(builder: Builder, step: Any, value: Value) -> Value:
    """Add an RBFSampler."""
    weights = numbers(np.transpose(step.random_weights_))
    node = Linear(coef=weights, intercept=numbers(step.random_offset_), link="none")
    value = builder.add(Function(package="numpy", name="cos"), builder.add(node, value, is_sparse=False))
    return builder.add(Scale(how="multiply", by=np.full(len(weights), (2.0 / step.n_components) ** 0.5)), value)
