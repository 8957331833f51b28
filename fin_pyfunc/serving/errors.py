"""From what went wrong to a status and one sentence: the only place that knows both."""

from __future__ import annotations

import logging
import math
from typing import NamedTuple

import msgspec
from starlette.exceptions import HTTPException

from fin_pyfunc.model.errors import (
    MISSING,
    SEE_FEATURES,
    ArtifactError,
    BackendError,
    DeviceError,
    FeatureError,
    FinPyfuncError,
    ModelForbiddenError,
    ModelNotFoundError,
    ModelUnavailableError,
    ModelUriError,
    ScoringError,
    StoreUnavailableError,
)
from fin_pyfunc.serving.schemas import Error, FeatureProblem
from fin_pyfunc.serving.withheld import log_error

logger = logging.getLogger("fin_pyfunc.server")


class RequestError(FinPyfuncError):
    """A request that HTTP itself has words for.

    Parameters
    ----------
    status : int
        HTTP status.
    detail : str
        One sentence: what is wrong and what to do.
    headers : dict of str to str, optional
        Such as ``Allow`` or ``Retry-After``.
    """

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.headers = status, headers or {}


class Answer(NamedTuple):
    """What a client gets."""

    status: int
    body: Error
    headers: dict[str, str]


#: Seconds after which it is worth asking again, where waiting helps.
RETRY_AFTER = {"Retry-After": "1"}

#: Where a caller finds the names and types of features.
_SEE_FEATURES = "GET /models/info?model_uri=… shows what the model takes"

_STATUS: tuple[tuple[type[FinPyfuncError], int], ...] = (
    (FeatureError, 422),
    (ModelUriError, 422),
    (ModelForbiddenError, 403),
    (ModelNotFoundError, 404),
    (StoreUnavailableError, 503),
    (ModelUnavailableError, 503),
    (DeviceError, 503),
    (ScoringError, 500),
    (ArtifactError, 500),
    (BackendError, 500),
)


def answer(error: Exception, request_id: str) -> Answer:
    """The answer to a request that failed; what is not the client's doing goes to the log with its trace.

    Parameters
    ----------
    error : Exception
    request_id : str
        What the client is told in ``X-Request-ID``, so that the two can be brought together.
    """
    if isinstance(error, RequestError):
        return Answer(error.status, Error(detail=str(error)), error.headers)
    if isinstance(error, HTTPException):
        return _routing(error)
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    if status == 500:
        model_id = getattr(error, "model_id", "")
        log_error(logger, "request %s failed", request_id, error=error, request_id=request_id, model_id=model_id)
        said = f"{error}" if isinstance(error, FinPyfuncError) else "an unexpected error"
        detail = (
            f"Prediction failed: {said.rstrip('.')}; the server's log has the cause under this answer's X-Request-ID."
        )
        return Answer(500, Error(detail=detail), {})
    headers = RETRY_AFTER if status == 503 else {}
    if isinstance(error, ModelUnavailableError):
        headers = {"Retry-After": str(max(1, math.ceil(error.retry_seconds)))}
    if isinstance(error, FeatureError):
        said = error.sentence(_SEE_FEATURES if error.hint == SEE_FEATURES else error.hint)
        return Answer(status, Error(detail=said, errors=_problems(error)), headers)
    return Answer(status, Error(detail=str(error)), headers)


def _routing(error: HTTPException) -> Answer:
    """The router's 404 and 405."""
    headers = dict(error.headers or {})
    if error.status_code == 405:
        methods = ", ".join(sorted(headers.get("Allow", "").replace(",", " ").split()))
        return Answer(405, Error(detail=f"This route takes {methods} only: see /docs."), {"Allow": methods})
    return Answer(error.status_code, Error(detail="There is no such route: see /docs for those there are."), headers)


def _problems(error: FeatureError) -> list[FeatureProblem]:
    sent = {(meant, MISSING): name for name, meant in error.misspelt.items()}
    return [
        FeatureProblem(row=p.row, feature=p.feature, problem=p.problem, sent=sent.get(p[1:], msgspec.UNSET))
        for p in error.problems
    ]
