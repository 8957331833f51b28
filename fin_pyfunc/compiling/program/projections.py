"""Steps that are a matrix product (sklearn/decomposition, sklearn/kernel_approximation.py)."""

from __future__ import annotations

from typing import Any

import numpy as np

from fin_pyfunc.compiling.program.scalers import numbers
from fin_pyfunc.compiling.program.values import Builder, Value
from fin_pyfunc.model.program.arithmetic import Scale
from fin_pyfunc.model.program.classifiers import Linear
from fin_pyfunc.model.program.numbers import Function


def pca(builder: Builder, step: Any, value: Value) -> Value:
    """Add a PCA, which is centred after its product (sklearn/decomposition/_base.py)."""
    components = numbers(step.components_)
    shift = np.zeros(len(components))
    if step.mean_ is not None:
        shift = -(np.reshape(step.mean_, (1, -1)) @ components.T).ravel()
    value = builder.add(Linear(coef=components, intercept=shift, link="none"), value, is_sparse=False)
    if step.whiten:
        scale = np.sqrt(numbers(step.explained_variance_))
        scale[scale < np.finfo(np.float64).eps] = np.finfo(np.float64).eps
        value = builder.add(Scale(how="divide", by=scale), value)
    return value


def truncated_svd(builder: Builder, step: Any, value: Value) -> Value:
    """Add a TruncatedSVD."""
    components = numbers(step.components_)
    node = Linear(coef=components, intercept=np.zeros(len(components)), link="none")
    return builder.add(node, value, is_sparse=False)


def rbf_sampler(builder: Builder, step: Any, value: Value) -> Value:
    """Add an RBFSampler."""
    weights = numbers(np.transpose(step.random_weights_))
    node = Linear(coef=weights, intercept=numbers(step.random_offset_), link="none")
    value = builder.add(Function(package="numpy", name="cos"), builder.add(node, value, is_sparse=False))
    return builder.add(Scale(how="multiply", by=np.full(len(weights), (2.0 / step.n_components) ** 0.5)), value)
