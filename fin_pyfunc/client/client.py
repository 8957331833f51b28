"""The client for ordinary code, on requests."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, ReadTimeoutError

from fin_pyfunc.client import wire
from fin_pyfunc.client.answers import Health, ModelEntry, ModelInfo, Prediction
from fin_pyfunc.client.errors import AnswerError, ClientError, ConnectError, TimedOutError
from fin_pyfunc.client.retry import STATUSES, Retry
from fin_pyfunc.client.rows import Unnamed, all_rows, one_row, part_of

if TYPE_CHECKING:
    import pandas as pd

#: Rows of one request: a tenth of what a server takes by default, so that none waits long behind it.
CHUNK_ROWS = 1000
#: Seconds to connect, and seconds without a byte of the answer: twice what a server lets a request take.
TIMEOUT = (5.0, 60.0)


class Client:
    """Calls a fin_pyfunc server; connections are kept and used again.

    Safe to use from many threads. Close it, or use it in a ``with`` block.

    Parameters
    ----------
    url : str
        Such as ``http://127.0.0.1:8000``.
    api_key : str, optional
        Sent as a bearer token, to this server alone: redirects are not followed.
    model_uri : str, optional
        The model to ask; default the server's own.
    timeout : tuple of float, default (5, 60)
        Seconds to connect, and seconds without a byte of the answer.
    retry : Retry, optional
        Default: four tries.
    connections : int, default 10
        How many are kept.

    Raises
    ------
    ValueError
        `url` is no URL of a server.

    Examples
    --------
    >>> with Client("http://127.0.0.1:8000") as client:  # doctest: +SKIP
    ...     client.predict({"bidPrice": 1.1, "askPrice": 1.1005}).confidence
    'high'
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        model_uri: str | None = None,
        timeout: tuple[float, float] = TIMEOUT,
        retry: Retry | None = None,
        connections: int = 10,
    ) -> None:
        self.url = wire.base_url(url)
        self.model_uri = model_uri
        self._timeout, self._retry = timeout, retry or Retry()
        self._arrow = wire.has_arrow()
        self._session = requests.Session()
        self._session.auth = _Bearer(api_key)  # also where there is no key, or requests would take one from ~/.netrc
        adapter = HTTPAdapter(pool_connections=1, pool_maxsize=connections)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, adapter)

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._session.close()

    def predict(self, features: Any, *, model_uri: str | None = None, return_proba: bool = True) -> Prediction:
        """Classify one row.

        Parameters
        ----------
        features : mapping of str to number, str, bool or None
            In any order; numpy's numbers and Decimal count as numbers, NaN as missing. Or a Series, a namedtuple, a
            DataFrame of one row, a list of one dict; or a list or array of values in the model's order of features,
            which is asked for with `info` first.
        model_uri : str, optional
            Default: the client's.
        return_proba : bool, default True

        Returns
        -------
        Prediction

        Raises
        ------
        ClientError
            Any of its kinds.
        TypeError, ValueError
            It is no row, or several; a value is none that a feature can have.
        """
        uri, row = model_uri or self.model_uri, one_row(features)
        named = row.named(self.info(uri).names)[0] if isinstance(row, Unnamed) else row
        call = wire.one(named, uri, return_proba)
        return wire.prediction(wire.checked(self._send(call), call))

    def predict_batch(
        self,
        frame: Any,
        *,
        model_uri: str | None = None,
        return_proba: bool = True,
        chunk_rows: int = CHUNK_ROWS,
    ) -> pd.DataFrame:
        """Classify many rows: a DataFrame as Arrow where both sides have it, all else as JSON.

        Parameters
        ----------
        frame : DataFrame of shape (n_rows, n_features)
            Of pandas, Polars or Arrow. Or a list of dicts, Series or namedtuples; a dict of columns; or a list of lists
            or an array of values in the model's order of features, which is asked for with `info` first.
        model_uri : str, optional
            Default: the client's. Rows that are sent while an alias moves may meet two models: ``attrs["model_ids"]``
            of the answer says so; an immutable URI rules it out.
        return_proba : bool, default True
            Whether there are columns ``probability`` and ``probability_<label>``, too.
        chunk_rows : int, default 1000
            Rows of one request.

        Returns
        -------
        DataFrame of shape (n_rows, n_columns)
            ``prediction``, ``confidence`` and the probabilities, with the index of a DataFrame, else numbered.
            ``attrs`` has ``model_ids`` and ``request_ids``.

        Raises
        ------
        ClientError
            Any of its kinds; ``answered`` holds the answers to the rows before the request that failed, and a
            `RejectedError` counts rows in the whole of `frame`.
        TypeError, ValueError
            These are no rows, or none; `chunk_rows` is below 1.
        """
        uri, given = model_uri or self.model_uri, all_rows(frame)
        rows = given.named(self.info(uri).names) if isinstance(given, Unnamed) else given
        if not len(rows) or chunk_rows < 1:
            raise ValueError("A batch takes at least one row, and chunk_rows of at least 1.")
        pieces: list[pd.DataFrame] = []
        replies: list[wire.Reply] = []
        try:
            for first in range(0, len(rows), chunk_rows):
                part = part_of(rows, first, chunk_rows)
                reply = self._send_batch(part, first, uri, return_proba)
                pieces.append(wire.frame_of(reply, wire.index_of(part, first), return_proba))
                replies.append(reply)
        except ClientError as e:
            e.answered = wire.joined(pieces, replies) if pieces else None
            raise
        return wire.joined(pieces, replies)

    def health(self) -> Health:
        """Whether the server can score; one that cannot answers, too, and raises nothing.

        Raises
        ------
        ClientError
            There is no answer, or not one of this server's.
        """
        call = wire.get("/health")
        reply = self._once(call)
        return wire.health(reply if reply.status == 503 else wire.checked(reply, call))

    def models(self, experiment_name: str | None = None, *, limit: int = 100) -> list[ModelEntry]:
        """Runs of an experiment that have a model, newest first.

        Parameters
        ----------
        experiment_name : str, optional
            Default: the server's.
        limit : int, default 100
            From 1 to 1000.

        Raises
        ------
        ClientError
            Any of its kinds.
        """
        call = wire.models_call(experiment_name, limit)
        return wire.models(wire.checked(self._send(call), call))

    def info(self, model_uri: str | None = None) -> ModelInfo:
        """Describe a model: its features in training order, their types and ranges, its classes and thresholds.

        Parameters
        ----------
        model_uri : str, optional
            Default: the client's, else the server's default model.

        Raises
        ------
        ClientError
            Any of its kinds.
        """
        call = wire.info_call(model_uri or self.model_uri)
        return wire.info(wire.checked(self._send(call), call))

    def _send_batch(
        self, rows: pd.DataFrame | Sequence[Mapping[str, Any]], first: int, uri: str | None, return_proba: bool
    ) -> wire.Reply:
        call = wire.batch(rows, first, uri, return_proba, self._arrow)
        try:
            return wire.checked(self._send(call), call)
        except AnswerError as e:
            if not (self._arrow and wire.refuses_arrow(e)):
                raise
        self._arrow = False
        return self._send_batch(rows, first, uri, return_proba)

    def _send(self, call: wire.Call) -> wire.Reply:
        """The reply, tried again while it is safe to."""
        for tried in range(1, self._retry.attempts + 1):
            try:
                reply = self._once(call)
            except ConnectError as e:
                delay = self._retry.delay(tried) if e.is_safe else None
                if delay is None:
                    raise
            else:
                delay = self._retry.delay(tried, wire.retry_after(reply)) if reply.status in STATUSES else None
                if delay is None:
                    return reply
            time.sleep(delay)
        raise AssertionError("the last try has no delay")

    def _once(self, call: wire.Call) -> wire.Reply:
        request_id = call.headers["X-Request-ID"]
        try:
            answer = self._session.request(
                call.method,
                self.url + call.path,
                params=call.params,
                data=call.body,
                headers=call.headers,
                timeout=self._timeout,
                allow_redirects=False,
            )
        except requests.RequestException as e:
            raise _failure(e, self.url, request_id) from None  # whose text holds the URL's query
        return wire.Reply(answer.status_code, {k.lower(): v for k, v in answer.headers.items()}, answer.content)


class _Bearer(requests.auth.AuthBase):
    """The API key, in no repr and no log."""

    def __init__(self, key: str | None) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key is not None:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request


def _failure(e: requests.RequestException, url: str, request_id: str) -> ClientError:
    """What a failure of the network means; whether a connection had been made decides whether it is safe to repeat."""
    cause: Any = e.args[0] if e.args else None
    cause = getattr(cause, "reason", cause)
    if isinstance(e, requests.ConnectTimeout) or isinstance(cause, NewConnectionError | ConnectTimeoutError):
        return ConnectError.refused(url, request_id)
    if isinstance(e, requests.Timeout) or isinstance(cause, ReadTimeoutError):
        return TimedOutError.of(url, request_id)
    return ConnectError.broken(url, request_id)
