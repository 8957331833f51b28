"""The client for asyncio, on httpx: `Client` with ``await``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from fin_pyfunc.client import wire
from fin_pyfunc.client.answers import Health, ModelEntry, ModelInfo, Prediction
from fin_pyfunc.client.client import CHUNK_ROWS, TIMEOUT
from fin_pyfunc.client.errors import AnswerError, ClientError, ConnectError, TimedOutError
from fin_pyfunc.client.retry import STATUSES, Retry
from fin_pyfunc.client.rows import Unnamed, all_rows, one_row, part_of

try:
    import httpx
except ImportError as missing:
    raise ImportError("AsyncClient needs httpx: pip install 'fin_pyfunc[async]'.") from missing

if TYPE_CHECKING:
    import pandas as pd


class AsyncClient:
    """As `fin_pyfunc.client.Client`, for asyncio; close it with `aclose`, or use it in an ``async with`` block.

    Parameters
    ----------
    url, api_key, model_uri, timeout, retry, connections
        As `Client` takes them.

    Raises
    ------
    ImportError
        httpx is not installed.
    ValueError
        `url` is no URL of a server.
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
        self._retry = retry or Retry()
        self._arrow = wire.has_arrow()
        self._http = httpx.AsyncClient(
            headers={} if api_key is None else {"Authorization": f"Bearer {api_key}"},  # which httpx's repr hides
            timeout=httpx.Timeout(timeout[1], connect=timeout[0]),
            limits=httpx.Limits(max_keepalive_connections=connections, max_connections=None),
            follow_redirects=False,
        )

    def __repr__(self) -> str:
        return f"AsyncClient({self.url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def predict(self, features: Any, *, model_uri: str | None = None, return_proba: bool = True) -> Prediction:
        """Classify one row, as `Client.predict` does."""
        uri, row = model_uri or self.model_uri, one_row(features)
        named = row.named((await self.info(uri)).names)[0] if isinstance(row, Unnamed) else row
        call = wire.one(named, uri, return_proba)
        return wire.prediction(wire.checked(await self._send(call), call))

    async def predict_batch(
        self,
        frame: Any,
        *,
        model_uri: str | None = None,
        return_proba: bool = True,
        chunk_rows: int = CHUNK_ROWS,
    ) -> pd.DataFrame:
        """Classify many rows, as `Client.predict_batch` does."""
        uri, given = model_uri or self.model_uri, all_rows(frame)
        rows = given.named((await self.info(uri)).names) if isinstance(given, Unnamed) else given
        if not len(rows) or chunk_rows < 1:
            raise ValueError("A batch takes at least one row, and chunk_rows of at least 1.")
        pieces: list[pd.DataFrame] = []
        replies: list[wire.Reply] = []
        try:
            for first in range(0, len(rows), chunk_rows):
                part = part_of(rows, first, chunk_rows)
                reply = await self._send_batch(part, first, uri, return_proba)
                pieces.append(wire.frame_of(reply, wire.index_of(part, first), return_proba))
                replies.append(reply)
        except ClientError as e:
            e.answered = wire.joined(pieces, replies) if pieces else None
            raise
        return wire.joined(pieces, replies)

    async def health(self) -> Health:
        """Whether the server can score, as `Client.health` says it."""
        call = wire.get("/health")
        reply = await self._once(call)
        return wire.health(reply if reply.status == 503 else wire.checked(reply, call))

    async def models(self, experiment_name: str | None = None, *, limit: int = 100) -> list[ModelEntry]:
        """Runs of an experiment that have a model, as `Client.models` lists them."""
        call = wire.models_call(experiment_name, limit)
        return wire.models(wire.checked(await self._send(call), call))

    async def info(self, model_uri: str | None = None) -> ModelInfo:
        """Describe a model, as `Client.info` does."""
        call = wire.info_call(model_uri or self.model_uri)
        return wire.info(wire.checked(await self._send(call), call))

    async def _send_batch(
        self, rows: pd.DataFrame | Sequence[Mapping[str, Any]], first: int, uri: str | None, return_proba: bool
    ) -> wire.Reply:
        call = wire.batch(rows, first, uri, return_proba, self._arrow)
        try:
            return wire.checked(await self._send(call), call)
        except AnswerError as e:
            if not (self._arrow and wire.refuses_arrow(e)):
                raise
        self._arrow = False
        return await self._send_batch(rows, first, uri, return_proba)

    async def _send(self, call: wire.Call) -> wire.Reply:
        """The reply, tried again while it is safe to."""
        for tried in range(1, self._retry.attempts + 1):
            try:
                reply = await self._once(call)
            except ConnectError as e:
                delay = self._retry.delay(tried) if e.is_safe else None
                if delay is None:
                    raise
            else:
                delay = self._retry.delay(tried, wire.retry_after(reply)) if reply.status in STATUSES else None
                if delay is None:
                    return reply
            await asyncio.sleep(delay)
        raise AssertionError("the last try has no delay")

    async def _once(self, call: wire.Call) -> wire.Reply:
        request_id = call.headers["X-Request-ID"]
        try:
            answer = await self._http.request(
                call.method, self.url + call.path, params=call.params, content=call.body, headers=call.headers
            )
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise ConnectError.refused(self.url, request_id) from None
        except httpx.TimeoutException:
            raise TimedOutError.of(self.url, request_id) from None
        except httpx.HTTPError:
            raise ConnectError.broken(self.url, request_id) from None
        return wire.Reply(answer.status_code, {k.lower(): v for k, v in answer.headers.items()}, answer.content)
