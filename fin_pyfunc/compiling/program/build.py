"""The program of a fitted pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.program import (
    composition,
    distributions,
    encoders,
    expansions,
    functions,
    imputers,
    projections,
    scalers,
    selectors,
)
from fin_pyfunc.compiling.program.classifiers import classifier
from fin_pyfunc.compiling.program.feature_columns import column_of
from fin_pyfunc.compiling.program.requirements import require_input, vouched
from fin_pyfunc.compiling.program.values import Builder, Value
from fin_pyfunc.model.backends.nameless import type_name
from fin_pyfunc.model.feature import NUMERIC
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
    "sklearn.preprocessing._encoders.OrdinalEncoder": encoders.ordinal_encoder,
    "sklearn.preprocessing._target_encoder.TargetEncoder": encoders.target_encoder,
    "sklearn.impute._base.MissingIndicator": imputers.missing_indicator,
    "sklearn.impute._base.SimpleImputer": imputers.simple_imputer,
}
#: Those that take text and categories, and what is not float64: they compute nothing with it.
_OF_ANY = frozenset(
    {
        "sklearn.compose._column_transformer.ColumnTransformer",
        "sklearn.impute._base.MissingIndicator",
        "sklearn.impute._base.SimpleImputer",
        "sklearn.pipeline.FeatureUnion",
        "sklearn.pipeline.Pipeline",
        "sklearn.preprocessing._encoders.OneHotEncoder",
        "sklearn.preprocessing._encoders.OrdinalEncoder",
        "sklearn.preprocessing._target_encoder.TargetEncoder",
    }
)


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
    value = Value(0, tuple(column_of(feature) for feature in spec.features))
    is_missing = np.array([column.nullable for column in value.columns])
    answer = vouched(builder, classifier(builder, estimator, value), is_missing)
    return Program(n_features=len(spec.features), steps=builder.steps_to(answer))


def step_in_the_way(estimator: Any, spec: FeatureSpec) -> str | None:
    """Which step takes text or times in a way that is not compiled, as a clause; None where that cannot be told."""
    bare = {feature.name: feature.kind not in NUMERIC and feature.codes is None for feature in spec.features}
    features = [
        msgspec.structs.replace(each, codes=each.categories or []) if bare[each.name] else each
        for each in spec.features
    ]
    try:
        program_of(estimator, msgspec.structs.replace(spec, features=features))
    except NotCompilable as e:
        return str(e)
    except Exception:  # an estimator of any kind at all
        return None
    return None


def _transform(builder: Builder, step: Any, value: Value) -> Value:
    kind = type_name(step)
    if isinstance(step, str) and step == "passthrough":
        return value
    if kind.endswith(".FunctionTransformer") and step.func is None and not step.validate:
        return value  # what a ColumnTransformer makes of "passthrough"
    add = TRANSFORMERS.get(kind)
    if add is None:
        raise NotCompilable("is not compiled")
    if kind not in _OF_ANY and value.has_codes:
        raise NotCompilable("is given text or categories")
    if kind not in _OF_ANY and value.is_narrow:
        raise NotCompilable("computes in float32, as what it is given is")
    if kind not in _OF_ANY:
        require_input(builder, step, value)
    return add(builder, step, value)
