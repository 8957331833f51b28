"""The bodies of the API: what decodes a request, encodes an answer and describes both in /openapi.json.

A number is a JSON number (not a boolean, not text) and unknown keys are refused; msgspec checks both while it parses.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

#: One feature's value as JSON can carry it.
Value = float | int | str | bool | None
#: A class label as it was trained.
Label = int | float | str | bool

ModelUri = Annotated[
    str,
    Meta(
        description="The model to ask: `runs:/<run_id>/<name>`, `models:/<name>/<version>`, `models:/<name>@<alias>`, "
        "`models:/<name>/latest`, `models:/m-<id>` or `file:///…`. Default: the server's default model.",
        examples=["runs:/abc123def456/model"],
    ),
]
Features = Annotated[
    dict[str, Value] | list[Value],
    Meta(
        description="One row: feature name to value, in any order. `GET /models/info` lists a model's features. Of a "
        "model that knows no names of its features: a list of the values in training order.",
        examples=[{"bar_id": 12345, "bidPrice": 1.1, "askPrice": 1.1005, "spread": 0.0005}],
    ),
]
ReturnProba = Annotated[bool, Meta(description="Fill `probability` and `probabilities`.")]
Probability = Annotated[float, Meta(ge=0, le=1)]
Confidence = Annotated[
    str,
    Meta(description="`high`, `medium` or `low` by the predicted class's probability; `unknown` where there is none."),
]


class PredictRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """One row to be classified."""

    features: Features
    model_uri: ModelUri | None = None
    return_proba: ReturnProba = False


class PredictResponse(msgspec.Struct, kw_only=True, frozen=True):
    """The class of one row, and how sure the model is."""

    prediction: Label
    probability: Probability | None
    probabilities: (
        Annotated[dict[str, Probability], Meta(description="Label as text to probability, in `classes_` order.")] | None
    )
    confidence: Confidence


class BatchRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Rows to be classified, all or none."""

    features_list: Annotated[
        list[Features], Meta(min_length=1, description="At least one row, at most `limits.max_batch_rows`.")
    ]
    model_uri: ModelUri | None = None
    return_proba: ReturnProba = False


class BatchResponse(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """The class of each row, in the order of the request."""

    predictions: list[Label]
    probabilities: list[dict[str, Probability]] | None
    count: int
    confidences: (
        Annotated[list[Confidence], Meta(description="Only when `return_proba` is true.")] | msgspec.UnsetType
    ) = msgspec.UNSET


class Health(msgspec.Struct, kw_only=True, frozen=True):
    """Whether this worker can score."""

    status: Annotated[
        str,
        Meta(description="`healthy`, `degraded` (MLflow does not answer, a model in memory scores) or `unhealthy`."),
    ]
    mlflow_connected: bool
    gpu_available: bool
    cached_models: int


class RegisteredVersion(msgspec.Struct, kw_only=True, frozen=True):
    """A version of a registered model, `models:/<name>/<version>` or `models:/<name>@<alias>`."""

    name: str
    version: str
    aliases: list[str]


class ModelEntry(msgspec.Struct, kw_only=True, frozen=True):
    """A run that has a logged model."""

    model_uri: str
    run_id: str
    experiment_id: str
    metrics: dict[str, float | None]
    params: dict[str, Any]
    tags: dict[str, str]
    registered: (
        Annotated[list[RegisteredVersion], Meta(description="Versions of the run's models; only with `names=true`.")]
        | msgspec.UnsetType
    ) = msgspec.UNSET


class ModelList(msgspec.Struct, kw_only=True, frozen=True):
    """Runs with a model, newest first."""

    models: list[ModelEntry]
    count: int


class FeatureInfo(msgspec.Struct, kw_only=True, frozen=True):
    """One feature that a model takes."""

    name: str
    type: Annotated[
        str,
        Meta(
            description="`number`, `integer`, `boolean`, `string`, `category`, `datetime` (ISO 8601) or `any`, which "
            "is not checked."
        ),
    ]
    dtype: Annotated[str, Meta(description="Type of the column in the training data, as pandas names it.")]
    nullable: Annotated[bool, Meta(description="Whether null is taken: there were nulls in the training data.")]
    optional: Annotated[bool, Meta(description="Whether it may be left out, and is null then.")]
    training_min: Annotated[float | None, Meta(description="Least value in the training sample; not enforced.")]
    training_max: Annotated[float | None, Meta(description="Greatest value in the training sample; not enforced.")]
    categories: Annotated[
        list[Label] | None, Meta(description="The values that a `category` takes; null for other types.")
    ]


class ThresholdsInfo(msgspec.Struct, kw_only=True, frozen=True):
    """From which probability of the predicted class its confidence is `high` or `medium`; below it is `low`."""

    high: Probability
    medium: Probability


class ExampleInfo(msgspec.Struct, kw_only=True, frozen=True):
    """A row of medians and most frequent values of the training sample, and what the model answered when logged."""

    features: dict[str, Value]
    prediction: Label
    probabilities: dict[str, Probability] | None


class ModelInfo(msgspec.Struct, kw_only=True, frozen=True):
    """What a model takes, what it answers, and where it came from; null is what is not known of it."""

    model_uri: Annotated[str, Meta(description="What was asked for, or the URI of the default model.")]
    model_id: Annotated[str, Meta(description="The immutable thing that the URI leads to now.")]
    run_id: Annotated[str | None, Meta(description="The MLflow run that logged it.")]
    artifact_sha256: Annotated[str, Meta(description="Digest of its files, hexadecimal.")]
    created: Annotated[str | None, Meta(description="When it was logged with fin_pyfunc: ISO 8601, UTC.")]
    estimator: Annotated[str | None, Meta(description="Name of the estimator's class.")]
    features: Annotated[
        list[FeatureInfo] | None,
        Meta(description="In training order; null for a model that was logged without a word on its features."),
    ]
    identifiers: Annotated[list[str], Meta(description="Names that are accepted and never scored.")]
    extra: Annotated[
        str | None, Meta(description="What becomes of any other name: `ignore` or `forbid`; null where none is known.")
    ]
    classes: Annotated[list[Label] | None, Meta(description="Labels, in the order of `probabilities`.")]
    has_probabilities: bool | None
    thresholds: ThresholdsInfo
    backend: Annotated[str, Meta(description="What computes one row now.")]
    backends: Annotated[list[str], Meta(description="What can compute it here, the one to prefer first.")]
    example: ExampleInfo | None


class FeatureProblem(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """One feature of one row that was refused."""

    row: int
    feature: str
    problem: str
    sent: (
        Annotated[str, Meta(description="A name in the request that probably means this missing feature.")]
        | msgspec.UnsetType
    ) = msgspec.UNSET


class Error(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """What was wrong and what to do, in one sentence."""

    detail: str
    errors: Annotated[list[FeatureProblem], Meta(max_length=100)] | msgspec.UnsetType = msgspec.UNSET


class Root(msgspec.Struct, kw_only=True, frozen=True):
    """Where to go from here."""

    message: str
    version: str
    docs: str
    health: str
