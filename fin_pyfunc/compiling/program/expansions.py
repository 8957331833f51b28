"""Steps that make many columns of few (sklearn/preprocessing/_polynomial.py)."""

from __future__ import annotations

from typing import Any

import numpy as np

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.program.scalers import numbers
from fin_pyfunc.compiling.program.values import Builder, Value
from fin_pyfunc.compiling.trees import Array
from fin_pyfunc.model.program.node import MAX_WIDTH
from fin_pyfunc.model.program.polynomials import Polynomials
from fin_pyfunc.model.program.spline_bases import SplineBases


def polynomial_features(builder: Builder, step: Any, value: Value) -> Value:
    """Add PolynomialFeatures; for sparse matrices, too, scikit-learn multiplies in this order."""
    if step._n_out_full > MAX_WIDTH:
        raise NotCompilable(f"PolynomialFeatures makes more than {MAX_WIDTH:,} columns")
    if step._max_degree == 0:
        raise NotCompilable("PolynomialFeatures makes nothing but ones")
    n_features, blocks = value.width, []
    index, made = [*range(n_features), n_features], n_features
    for _ in range(2, step._max_degree + 1):  # PolynomialFeatures.transform
        following, end = [], index[-1]
        for i in range(n_features):
            start = index[i] + (index[i + 1] - index[i] if step.interaction_only else 0)
            following.append(made)
            if end <= start:
                break
            blocks.append((start, end, i))
            made += end - start
        index = [*following, made]
    has_bias = bool(step.include_bias)
    first = has_bias + made - step.n_output_features_ if step._min_degree > 1 else 0
    node = Polynomials(blocks=np.array(blocks, dtype=np.int64).reshape(-1, 3), has_bias=has_bias, first=first)
    return builder.add(node, value)


def spline_transformer(builder: Builder, step: Any, value: Value) -> Value:
    """Add a SplineTransformer."""
    splines, degree = step.bsplines_, step.degree
    knots = [numbers(spline.t) for spline in splines]
    targets = [_target(spline) for spline in splines]
    n_splines = splines[0].c.shape[1]
    if degree < 1 or any(
        spline.k != degree or len(of) != len(knots[0]) for spline, of in zip(splines, knots, strict=True)
    ):
        raise NotCompilable("SplineTransformer has splines of degree 0, or of several degrees")
    if any(not np.array_equal(target, targets[0]) for target in targets):
        raise NotCompilable("SplineTransformer has splines with coefficients of their own")
    if step.sparse_output:  # a spline that is 0 is stored, or not, as SciPy has it
        raise NotCompilable("SplineTransformer makes a sparse matrix")
    extrapolation = step.extrapolation
    mode = "beyond" if extrapolation in ("constant", "linear") else extrapolation
    ends, lines = (
        _beyond(step) if mode == "beyond" else (np.zeros((2, len(splines))), np.zeros((4 * len(splines), n_splines)))
    )
    node = SplineBases(
        knots=np.array(knots), degree=degree, target=targets[0], n_splines=n_splines, mode=mode, ends=ends, lines=lines
    )  # fmt: skip
    takes_missing = getattr(step, "handle_missing", "error") == "zeros"  # since scikit-learn 1.8
    builder.require(value, takes_missing=takes_missing)
    value = builder.add(node, value)
    if mode == "error":
        builder.require(value, takes_missing=False)
    if not step.include_bias:
        value = builder.select(value, [i for i in range(value.width) if (i + 1) % n_splines != 0])
    return value


def _target(spline: Any) -> Array:
    n_bases = len(spline.t) - spline.k - 1
    coefficients = np.asarray(spline.c)[:n_bases]
    if coefficients.shape[0] != n_bases or not ((coefficients == 0) | (coefficients == 1)).all():
        raise NotCompilable("SplineTransformer has splines with coefficients of their own")
    if not (coefficients.sum(axis=1) == 1).all():
        raise NotCompilable("SplineTransformer has splines with coefficients of their own")
    target: Array = coefficients.argmax(axis=1).astype(np.int64)
    return target


def _beyond(step: Any) -> tuple[Array, Array]:
    """Between which ends each column's splines are used, and the lines beyond them."""
    degree, ends, lines = step.degree, [], []
    for spline in step.bsplines_:
        low, high = spline.t[degree], spline.t[-degree - 1]
        ends.append((low, high))
        line = [np.zeros(spline.c.shape[1]) for _ in range(4)]
        if step.extrapolation == "linear" and degree <= 1:
            degree += 1  # for the columns that follow, too, as SplineTransformer.transform has it
        chosen = slice(degree), slice(-degree, None)
        for i, (end, where) in enumerate(zip((low, high), chosen, strict=True)):
            line[2 * i][where] = spline(end)[where]
            if step.extrapolation == "linear":
                line[2 * i + 1][where] = spline(end, nu=1)[where]
        lines += line
    return np.ascontiguousarray(np.array(ends, dtype=np.float64).T), np.array(lines, dtype=np.float64)
