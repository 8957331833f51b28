"""The MLflow signature of a logged model: its features, its answer, and `return_proba`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from fin_pyfunc.model.decision import Label, label_names
from fin_pyfunc.model.errors import NotLoggableError
from fin_pyfunc.model.feature import Feature
from fin_pyfunc.model.features import FeatureSpec, infer

if TYPE_CHECKING:
    from mlflow.models.signature import ModelSignature

_TYPES = {"number": "double", "integer": "long", "boolean": "boolean", "string": "string"}


def checked_signature(
    given: Any, X: pd.DataFrame, spec: FeatureSpec, classes: Sequence[Label], has_proba: bool
) -> ModelSignature:
    """The caller's signature if it names the features, else one that says all the model takes and answers.

    Raises
    ------
    NotLoggableError
        The signature given lacks a feature, which MLflow would then drop before the model sees it.
    """
    if given is None:
        return _infer(X, spec, classes, has_proba)
    named = given.inputs.input_names() if given.inputs is not None else []
    if missing := [name for name in spec.names if name not in named]:
        raise NotLoggableError(
            f"the signature given lacks {', '.join(map(repr, missing[:5]))}, which the estimator was trained on: "
            "add it, or leave signature out and one is made from X."
        )
    return given


def example_frame(row: Mapping[str, Any], signature: ModelSignature) -> pd.DataFrame:
    """One row as MLflow's schema lets it pass: it takes no integer, boolean or null column for a double."""
    frame = pd.DataFrame([dict(row)])
    doubles = [c.name for c in signature.inputs.inputs if getattr(c.type, "name", None) == "double"]
    return frame.astype({name: "float64" for name in doubles if name in frame})


def _infer(X: pd.DataFrame, spec: FeatureSpec, classes: Sequence[Label], has_proba: bool) -> ModelSignature:
    from mlflow.models.signature import ModelSignature
    from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema

    inputs = [ColSpec(_type(feature), feature.name) for feature in spec.features]
    for name in spec.identifiers:
        try:
            found = infer(X[[name]]).features
        except (KeyError, ValueError):
            continue  # not in the sample, or of a type without a name here: accepted all the same, as any extra column
        # MLflow reads no CSV where a column has no type of its own
        inputs += [ColSpec(_type(f), f.name, required=False) for f in found if f.kind != "datetime"]
    label = _label_type(classes)
    outputs = [ColSpec(label, "prediction")]
    if has_proba:
        outputs.append(ColSpec("double", "probability", required=False))
    outputs.append(ColSpec("string", "confidence"))
    if has_proba:
        outputs += [ColSpec("double", f"probability_{name}", required=False) for name in label_names(classes)]
    params = ParamSchema([ParamSpec("return_proba", "boolean", True)])
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs), params=params)


def _type(feature: Feature) -> Any:
    if feature.kind == "datetime":
        from mlflow.types.schema import AnyType

        # MLflow's datetime takes no time zone, and makes a time of any number
        return AnyType()
    kind = _label_type(feature.categories or []) if feature.kind == "category" else _TYPES[feature.kind]
    if feature.nullable and kind in ("long", "boolean"):
        # MLflow's long and boolean take no nulls (its boolean makes False of them, unasked). In a double an integer
        # stays itself and a boolean becomes 1.0 or 0.0, which the feature check reads back; "string" passes objects.
        return "string" if feature.kind == "category" and kind == "boolean" else "double"
    return kind


def _label_type(labels: Sequence[Label]) -> str:
    kinds = {type(label) for label in labels}
    return {frozenset({bool}): "boolean", frozenset({int}): "long"}.get(
        frozenset(kinds), "double" if kinds <= {int, float} else "string"
    )
