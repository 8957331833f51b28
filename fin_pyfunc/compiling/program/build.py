"""The program of a fitted pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.program import composition, encoders, functions, scalers
from fin_pyfunc.compiling.program.classifiers import classifier
from fin_pyfunc.compiling.program.values import Builder, Column, Value
from fin_pyfunc.model.backends.nameless import type_name
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
}


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
    value = Value(0, tuple(Column(name=feature.name) for feature in spec.features))
    classifier(builder, estimator, value)
    return Program(n_features=len(spec.features), steps=builder.steps)


def _transform(builder: Builder, step: Any, value: Value) -> Value:
    if isinstance(step, str) and step == "passthrough":
        return value
    add = TRANSFORMERS.get(type_name(step))
    if add is None:
        raise NotCompilable(f"the step {type(step).__name__} is not compiled")
    return add(builder, step, value)
