"""The program of a fitted pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.program import (
    composition,
    distributions,
    encoders,
    expansions,
    functions,
    projections,
    scalers,
    selectors,
)
from fin_pyfunc.compiling.program.classifiers import classifier
from fin_pyfunc.compiling.program.requirements import require_input, vouched
from fin_pyfunc.compiling.program.values import Builder, Column, Value
from fin_pyfunc.model.backends.nameless import type_name
from fin_pyfunc.model.features import FeatureSpec
from fin_pyfunc.model.program.program import Program

#: By class (a subclass may compute something else): what adds a fitted transformer to a program.
TRANSFORMERS: Mapping[str, Callable[[Builder, Any, Value], Value]] = {
    "sklearn.compose._column_transformer.ColumnTransformer": composition.column_transformer,
    "sklearn.pipeline.FeatureUnion": composition.feature_union,
    "sklearn.pipeline.Pipeline": composition.pipeline,
    "sklearn.decomposition._fastica.FastICA": projections.fast_ica,
    "sklearn.decomposition._incremental_pca.IncrementalPCA": projections.pca,
    "sklearn.decomposition._pca.PCA": projections.pca,
    "sklearn.decomposition._truncated_svd.TruncatedSVD": projections.components,
    "sklearn.discriminant_analysis.LinearDiscriminantAnalysis": projections.discriminants,
    "sklearn.feature_selection._from_model.SelectFromModel": selectors.selector,
    "sklearn.feature_selection._rfe.RFE": selectors.selector,
    "sklearn.feature_selection._rfe.RFECV": selectors.selector,
    "sklearn.feature_selection._sequential.SequentialFeatureSelector": selectors.selector,
    "sklearn.feature_selection._univariate_selection.GenericUnivariateSelect": selectors.selector,
    "sklearn.feature_selection._univariate_selection.SelectFdr": selectors.selector,
    "sklearn.feature_selection._univariate_selection.SelectFpr": selectors.selector,
    "sklearn.feature_selection._univariate_selection.SelectFwe": selectors.selector,
    "sklearn.feature_selection._univariate_selection.SelectKBest": selectors.selector,
    "sklearn.feature_selection._univariate_selection.SelectPercentile": selectors.selector,
    "sklearn.feature_selection._variance_threshold.VarianceThreshold": selectors.selector,
    "sklearn.impute._base.MissingIndicator": selectors.missing_indicator,
    "sklearn.kernel_approximation.RBFSampler": projections.rbf_sampler,
    "sklearn.neighbors._nca.NeighborhoodComponentsAnalysis": projections.components,
    "sklearn.preprocessing._data.Binarizer": distributions.binarizer,
    "sklearn.preprocessing._data.MaxAbsScaler": scalers.max_abs_scaler,
    "sklearn.preprocessing._data.MinMaxScaler": scalers.min_max_scaler,
    "sklearn.preprocessing._data.Normalizer": scalers.normalizer,
    "sklearn.preprocessing._data.PowerTransformer": distributions.power_transformer,
    "sklearn.preprocessing._data.QuantileTransformer": distributions.quantile_transformer,
    "sklearn.preprocessing._data.RobustScaler": scalers.robust_scaler,
    "sklearn.preprocessing._data.StandardScaler": scalers.standard_scaler,
    "sklearn.preprocessing._discretization.KBinsDiscretizer": distributions.bins_discretizer,
    "sklearn.preprocessing._polynomial.PolynomialFeatures": expansions.polynomial_features,
    "sklearn.preprocessing._polynomial.SplineTransformer": expansions.spline_transformer,
    "sklearn.random_projection.GaussianRandomProjection": projections.components,
    "sklearn.random_projection.SparseRandomProjection": projections.components,
    "sklearn.preprocessing._function_transformer.FunctionTransformer": functions.function_transformer,
    "sklearn.preprocessing._encoders.OneHotEncoder": encoders.one_hot_encoder,
}
#: Those that know nothing of text.
NUMERIC = frozenset(
    name for name, add in TRANSFORMERS.items() if add.__module__ in (
        distributions.__name__, expansions.__name__, projections.__name__, scalers.__name__
    )
)  # fmt: skip


def program_of(estimator: Any, spec: FeatureSpec) -> Program:
    """Build the program of a classifier.

    Parameters
    ----------
    estimator : object
        Fitted; it is not modified.
    spec : FeatureSpec
        Rows of it come as a float64 matrix; text and categories as codes.

    Raises
    ------
    NotCompilable
        A part of it is none that can be compiled; the clause names it.
    """
    builder = Builder(_transform)
    value = Value(0, tuple(Column(name=feature.name, dtype=feature.dtype) for feature in spec.features))
    scores = classifier(builder, estimator, value)
    vouched(builder, scores, np.array([feature.nullable for feature in spec.features]))
    return Program(n_features=len(spec.features), steps=builder.steps)


def _transform(builder: Builder, step: Any, value: Value) -> Value:
    if isinstance(step, str) and step == "passthrough":
        return value
    add = TRANSFORMERS.get(type_name(step))
    if add is None:
        raise NotCompilable(f"the step {type(step).__name__} is not compiled")
    if value.has_codes and type_name(step) in NUMERIC:
        raise NotCompilable(f"the step {type(step).__name__} is given text or categories")
    require_input(builder, step, value)
    return add(builder, step, value)
