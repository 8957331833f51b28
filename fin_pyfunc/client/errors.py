"""What a call may end in instead of an answer. No message holds the API key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


class ClientError(Exception):
    """Any failure of a call.

    Attributes
    ----------
    request_id : str
        The id under which the server logs the request.
    answered : DataFrame or None
        For a batch that was sent in parts: the answers to the rows before the part that failed.
    """

    def __init__(self, message: str, *, request_id: str = "") -> None:
        super().__init__(message)
        self.request_id = request_id
        self.answered: pd.DataFrame | None = None


class ConnectError(ClientError):
    """No connection could be made, or it broke before the answer.

    Attributes
    ----------
    is_safe : bool
        Whether nothing had been sent, so that it is safe to try again.
    """

    is_safe = False

    @classmethod
    def refused(cls, url: str, request_id: str) -> ConnectError:
        """No connection was made."""
        error = cls(f"No server answers at {url}: start it, or check the URL.", request_id=request_id)
        error.is_safe = True
        return error

    @classmethod
    def broken(cls, url: str, request_id: str) -> ConnectError:
        """It broke after something had been sent."""
        return cls(
            f"The connection to {url} broke before the answer: whether request {request_id} was served is in the "
            "server's log.",
            request_id=request_id,
        )


class TimedOutError(ClientError):
    """The answer did not come within the time limit."""

    @classmethod
    def of(cls, url: str, request_id: str) -> TimedOutError:
        """Without a byte for as long as the client waits."""
        return cls(
            f"{url} did not answer request {request_id} in time: send fewer rows, or pass a longer timeout=….",
            request_id=request_id,
        )


class AnswerError(ClientError):
    """The server answered with an error.

    Attributes
    ----------
    status : int
        HTTP status.
    detail : str
        The server's own sentence.
    retry_after : float or None
        Seconds after which the server wants to be asked again.
    """

    def __init__(
        self, status: int, detail: str, *, request_id: str = "", retry_after: float | None = None, first_row: int = 0
    ) -> None:
        super().__init__(f"{detail} (status {status}, request {request_id or 'unknown'})", request_id=request_id)
        self.status, self.detail, self.retry_after, self.first_row = status, detail, retry_after, first_row


class ForbiddenError(AnswerError):
    """401 or 403: no or a wrong key, or a model or action that the policy does not allow."""


class NotFoundError(AnswerError):
    """404: no such model, version, alias, run, experiment or route."""


class RejectedError(AnswerError):
    """Another 4xx: the request itself is wrong.

    Attributes
    ----------
    errors : sequence of dict
        For features: ``row`` (counted in the whole DataFrame), ``feature`` and ``problem`` of each, at most 100.
    """

    def __init__(self, *arguments: Any, errors: Sequence[Mapping[str, Any]] = (), **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.errors = [{**e, "row": e["row"] + self.first_row} if e.get("row") is not None else dict(e) for e in errors]


class PredictionFailedError(AnswerError):
    """500: the estimator itself raised; `request_id` finds the trace in the server's log."""


class UnavailableError(AnswerError):
    """429, 503 or 504: too many requests, not ready, overloaded, or too slow; it may work later."""


def of_answer(status: int, body: Any, *, request_id: str, retry_after: float | None, first_row: int) -> AnswerError:
    """The error that an answer means.

    Parameters
    ----------
    status : int
    body : object
        The answer's JSON; what is not ``{"detail": …}`` (a proxy's page) is not quoted.
    request_id : str
    retry_after : float or None
    first_row : int
        Where in the whole DataFrame the request's first row is.
    """
    known = isinstance(body, Mapping) and isinstance(body.get("detail"), str)
    detail = body["detail"] if known else "The answer is not one of fin_pyfunc's: check the URL, and proxies before it."
    if first_row and status == 422:
        detail = f"{detail} Rows are counted from row {first_row}."
    common: dict[str, Any] = {"request_id": request_id, "retry_after": retry_after, "first_row": first_row}
    if status in (429, 503, 504):
        return UnavailableError(status, detail, **common)
    if status in (401, 403):
        return ForbiddenError(status, detail, **common)
    if status == 404:
        return NotFoundError(status, detail, **common)
    if 400 <= status < 500:
        return RejectedError(status, detail, errors=(body.get("errors") or ()) if known else (), **common)
    return (PredictionFailedError if status == 500 else AnswerError)(status, detail, **common)
