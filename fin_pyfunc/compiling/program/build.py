"""The program of a fitted pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.grown import type_name
from fin_pyfunc.compiling.program import composition, encoders, functions, imputers, scalers
from fin_pyfunc.compiling.program.classifiers import classifier
from fin_pyfunc.compiling.program.feature_columns import column_of
from fin_pyfunc.compiling.program.values import Builder, Value
from fin_pyfunc.model.features import FeatureSpec
from fin_pyfunc.model.program.program import Program

#: By class (a subclass may compute something else): what adds a fitted transformer to a program.
TRANSFORMERS: Mapping[str, Callable[[Builder, Any, Value], Value]] = {
    "sklearn.compose._column_transformer.ColumnTransformer": composition.column_transformer,
    "sklearn.pipeline.FeatureUnion": composition.feature_union,
    "sklearn.pipeline.Pipeline": composition.pipeline,
    "sklearn.preprocessing._data.StandardScaler": scalers.standard_scaler,
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


def has_steps(estimator: Any) -> bool:
    """Whether an estimator is a Pipeline with a step before its classifier."""
    return type_name(estimator) == "sklearn.pipeline.Pipeline" and len(estimator.steps) > 1


def program_of(estimator: Any, spec: FeatureSpec) -> Program:
    """Build the program of a Pipeline.

    Parameters
    ----------
    estimator : Pipeline
        Fitted; it is not modified.
    spec : FeatureSpec
        Rows of it come as a float64 matrix; text and categories as codes.

    Raises
    ------
    NotCompilable
        A step of it is none that can be compiled; the clause names it.
    """
    builder = Builder(_transform)
    value = Value(0, tuple(column_of(feature) for feature in spec.features))
    for name, step in estimator.steps[:-1]:
        value = builder.transform(step, value, name)
    builder.finish(classifier(builder, estimator.steps[-1][1], value))
    return Program(n_features=len(spec.features), steps=builder.steps)


def _transform(builder: Builder, step: Any, value: Value) -> Value:
    kind = type_name(step)
    if (isinstance(step, str) and step == "passthrough") or getattr(step, "func", step) is None:
        return value  # a FunctionTransformer of no function is what a ColumnTransformer makes of "passthrough"
    add = TRANSFORMERS.get(kind)
    if add is None:
        raise NotCompilable("is not compiled")
    if kind not in _OF_ANY and value.has_codes:
        raise NotCompilable("is given text or categories")
    if kind not in _OF_ANY and value.is_narrow:
        raise NotCompilable("computes in float32, as what it is given is")
    return add(builder, step, value)
