"""What the server answers, as Python has it; the fields are those of `/openapi.json`."""

from __future__ import annotations

from dataclasses import dataclass
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
    """

    model_uri: str
    run_id: str
    experiment_id: str
    metrics: dict[str, float | None]
    params: dict[str, Any]
    tags: dict[str, str]
