"""Describe a loaded model to the callers who may ask it: what ``GET /models/info`` answers."""

from __future__ import annotations

from typing import Any

from fin_pyfunc.model.artifact import Example
from fin_pyfunc.model.decision import label_names
from fin_pyfunc.model.feature import Feature
from fin_pyfunc.serving.loaded_model import LoadedModel
from fin_pyfunc.serving.schemas import ExampleInfo, FeatureInfo, Label, ModelInfo, ThresholdsInfo


def describe(loaded: LoadedModel, asked: str | None) -> ModelInfo:
    """Describe a model.

    Parameters
    ----------
    loaded : LoadedModel
    asked : str or None
        The URI that the caller sent; None for the server's default model.

    Returns
    -------
    ModelInfo
        Without any path of the server; of the training data it has the ranges, categories and medians that are in the
        manifest of a model logged by this project.
    """
    model, resolved = loaded.model, loaded.resolved
    spec, manifest, dispatch = model.features, model.manifest, model.dispatch
    ranges = {} if manifest is None else manifest.ranges
    # the estimator itself is the last one, whatever was compiled of it
    estimator: Any = dispatch.backends[-1]
    if manifest is None:
        classes, name = list(getattr(estimator, "classes", ())) or None, getattr(estimator, "type_name", None)
        has_probabilities = getattr(estimator, "has_proba", None)
    else:
        classes, name, has_probabilities = manifest.classes, manifest.estimator, manifest.has_proba
    return ModelInfo(
        model_uri=resolved.public(loaded.asked_by(None)) if asked is None else asked,
        model_id=resolved.model_id,
        run_id=resolved.run_id,
        artifact_sha256=loaded.artifact_sha256,
        created=None if manifest is None else manifest.created,
        estimator=name,
        features=None if spec is None else [_feature(each, ranges.get(each.name)) for each in spec.features],
        identifiers=[] if spec is None else spec.identifiers,
        extra=None if spec is None else spec.extra,
        classes=classes,
        has_probabilities=has_probabilities,
        thresholds=ThresholdsInfo(high=model.thresholds.high, medium=model.thresholds.medium),
        backend=dispatch.choose(1).name,
        backends=[backend.name for backend in dispatch.backends],
        example=None if manifest is None else _example(manifest.example, manifest.classes),
    )


def _feature(feature: Feature, training_range: tuple[float, float] | None) -> FeatureInfo:
    least, greatest = training_range or (None, None)
    return FeatureInfo(
        name=feature.name,
        type=feature.kind,
        dtype=feature.dtype,
        nullable=feature.nullable or feature.kind == "any",
        optional=feature.optional,
        training_min=least,
        training_max=greatest,
        categories=feature.categories or feature.known,
    )


def _example(example: Example, classes: list[Label]) -> ExampleInfo:
    p = example.probabilities
    return ExampleInfo(
        features=example.features,
        prediction=example.prediction,
        probabilities=None if p is None else dict(zip(label_names(classes), p, strict=True)),
    )
