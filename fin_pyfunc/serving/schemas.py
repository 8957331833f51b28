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
        examples=["models:/eurusd_rf@champion"],
    ),
]
Features = Annotated[
    dict[str, Value],
    Meta(
        description="One row: feature name to value, in any order. `fin-pyfunc inspect` lists a model's features.",
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


class ModelEntry(msgspec.Struct, kw_only=True, frozen=True):
    """A run that has a logged model."""

    model_uri: str
    run_id: str
    experiment_id: str
    metrics: dict[str, float | None]
    params: dict[str, Any]
    tags: dict[str, str]


class ModelList(msgspec.Struct, kw_only=True, frozen=True):
    """Runs with a model, newest first."""

    models: list[ModelEntry]
    count: int


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
