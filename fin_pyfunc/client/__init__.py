"""A client of the server's REST API: rows and DataFrames in, typed answers and DataFrames out.

It needs `requests` (and httpx for `AsyncClient`) and nothing of the server or of MLflow; pandas is imported when a
batch is first sent, pyarrow where it is there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fin_pyfunc.client.answers import FeatureInfo, Health, ModelEntry, ModelInfo, Prediction
from fin_pyfunc.client.client import Client
from fin_pyfunc.client.errors import (
    AnswerError,
    ClientError,
    ConnectError,
    ForbiddenError,
    NotFoundError,
    PredictionFailedError,
    RejectedError,
    TimedOutError,
    UnavailableError,
)
from fin_pyfunc.client.retry import Retry

if TYPE_CHECKING:
    from fin_pyfunc.client.async_client import AsyncClient

__all__ = [
    "AnswerError",
    "AsyncClient",
    "Client",
    "ClientError",
    "ConnectError",
    "FeatureInfo",
    "ForbiddenError",
    "Health",
    "ModelEntry",
    "ModelInfo",
    "NotFoundError",
    "Prediction",
    "PredictionFailedError",
    "RejectedError",
    "Retry",
    "TimedOutError",
    "UnavailableError",
]


def __getattr__(name: str) -> Any:
    if name != "AsyncClient":
        raise AttributeError(f"module 'fin_pyfunc.client' has no attribute {name!r}")
    from fin_pyfunc.client.async_client import AsyncClient

    return AsyncClient
