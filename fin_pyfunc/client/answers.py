"""What the server answers, as Python has it; the fields are those of `/openapi.json`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

#: A class label as it was trained.
Label = int | float | str | bool


@dataclass(frozen=True)
class Prediction:
    """The class of one row, how sure the model is, and where the answer came from.

    Parameters
    ----------
    prediction : int, float, str or bool
    probability : float or None
        Of the predicted class; None unless asked for, or where the model has none.
    probabilities : dict of str to float, or None
        Label as text to probability, in ``classes_`` order.
    confidence : str
        ``high``, ``medium``, ``low`` or ``unknown``.
    request_id : str
        Finds the request in the server's log.
    model_id : str
        The immutable model that answered.
    backend : str
        What computed it.
    """

    prediction: Label
    probability: float | None
    probabilities: dict[str, float] | None
    confidence: str
    request_id: str
    model_id: str
    backend: str


@dataclass(frozen=True)
class Health:
    """Whether the server can score.

    Parameters
    ----------
    status : str
        ``healthy``, ``degraded`` (MLflow does not answer, a model in memory scores) or ``unhealthy``.
    mlflow_connected : bool
    gpu_available : bool
    cached_models : int
        Of the worker that answered.
    """

    status: str
    mlflow_connected: bool
    gpu_available: bool
    cached_models: int


@dataclass(frozen=True)
class ModelEntry:
    """A run that has a logged model.

    Parameters
    ----------
    model_uri, run_id, experiment_id : str
    metrics : dict of str to float or None
    params : dict of str to object
    tags : dict of str to str
    registered : list of dict, default empty
        Versions that the run's models are registered as: ``name``, ``version`` and ``aliases``; only where the server
        was asked for names.
    """

    model_uri: str
    run_id: str
    experiment_id: str
    metrics: dict[str, float | None]
    params: dict[str, Any]
    tags: dict[str, str]
    registered: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class FeatureInfo:
    """One feature that a model takes.

    Parameters
    ----------
    name : str
    type : str
        ``number``, ``integer``, ``boolean``, ``string``, ``category`` or ``any``.
    dtype : str
        Of the training data, as pandas names it.
    nullable, optional : bool
        Whether it may be null, and whether it may be left out.
    training_min, training_max : float or None
        Least and greatest value in the training sample; not enforced.
    categories : list of int, float, str or bool, or None
        What a ``category`` takes.
    """

    name: str
    type: str
    dtype: str
    nullable: bool
    optional: bool
    training_min: float | None
    training_max: float | None
    categories: list[Label] | None


@dataclass(frozen=True)
class ModelInfo:
    """What a model takes, what it answers, and where it came from; None is what is not known of it.

    Parameters
    ----------
    model_uri, model_id : str
        What was asked for, and the immutable thing that it leads to now.
    run_id : str or None
    artifact_sha256 : str
    created : str or None
        ISO 8601, UTC.
    estimator : str or None
        Name of its class.
    features : list of FeatureInfo or None
        In training order.
    identifiers : list of str
        Names that are accepted and never scored.
    extra : str or None
        What becomes of any other name: ``ignore`` or ``forbid``.
    classes : list of int, float, str or bool, or None
        Labels, in the order of `Prediction.probabilities`.
    has_probabilities : bool or None
    thresholds : dict of str to float
        From which probability a confidence is ``high`` or ``medium``.
    backend : str
        What computes one row now.
    backends : list of str
    example : dict or None
        ``features`` (a row of medians), and the model's ``prediction`` and ``probabilities`` for it.
    """

    model_uri: str
    model_id: str
    run_id: str | None
    artifact_sha256: str
    created: str | None
    estimator: str | None
    features: list[FeatureInfo] | None
    identifiers: list[str]
    extra: str | None
    classes: list[Label] | None
    has_probabilities: bool | None
    thresholds: dict[str, float]
    backend: str
    backends: list[str]
    example: dict[str, Any] | None

    @property
    def names(self) -> list[str] | None:
        """Names of the features in training order."""
        return None if self.features is None else [feature.name for feature in self.features]
