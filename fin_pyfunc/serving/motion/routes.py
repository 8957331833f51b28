"""The routes for operators: what is loaded, stop and start, and the shadow. `create_app` says who reaches them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Mapping
from datetime import UTC, datetime
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from fin_pyfunc.model.errors import ArtifactError, BackendError, FinPyfuncError
from fin_pyfunc.serving.content_types import require_json
from fin_pyfunc.serving.errors import RequestError
from fin_pyfunc.serving.http import encode, read_body
from fin_pyfunc.serving.loaded_model import LoadedModel
from fin_pyfunc.serving.motion.schemas import (
    LoadedEntry,
    LoadedModels,
    PlanStep,
    RejectedVersion,
    ShadowRequest,
    ShadowState,
    StartRequest,
    StopList,
    StoppedModel,
    StopRequest,
)
from fin_pyfunc.serving.motion.state import NotStoppedError
from fin_pyfunc.serving.server import Server

T = TypeVar("T")
#: More than the longest name and reason take.
MAX_BODY_BYTES = 1 << 16
#: Seconds that an answer waits for MLflow or a disk, both of which go on afterwards.
WAIT_SECONDS = 5.0
_KEYS: Mapping[type, str] = {
    StopRequest: "'name' and 'reason', both text (1 to 1,024 and 1 to 500 characters)",
    StartRequest: "'name', text",
    ShadowRequest: "'model_uri', text or null, and, if it likes, 'share', from 0 to 1, and 'of', text or null",
}


class AdminRoutes:
    """Endpoints over one server.

    Parameters
    ----------
    server : Server
    """

    def __init__(self, server: Server) -> None:
        self._server = server

    async def models(self, _: Request) -> Response:
        """`GET /admin/models`: what this worker has loaded."""
        cache, stops = self._server.cache, self._server.stops
        uris: dict[str, list[str]] = {}
        for uri, model_id in cache.led_to():
            if uri.startswith(("models:/", "runs:/")) or (uri, False) in cache:  # no path that only the operator knows
                of_model = uris.setdefault(model_id, [])
                if uri not in of_model:  # it may be the operator's and a client's
                    of_model.append(uri)
        entries = [self._entry(model, uris.get(model.resolved.model_id, [])) for model in cache.models()]
        now = time.monotonic()
        rejected = [
            RejectedVersion(
                model_uri=key[0] if key[0].startswith(("models:/", "runs:/", "file:")) else "the default model",
                model_id=of.model_id or None,
                reason=of.reason,
                times=of.times,
                retry_in_seconds=round(max(0.0, of.retry_at - now), 1),
            )
            for key, of in self._server.follower.rejected.items()
        ]
        return _json(
            LoadedModels(
                worker=os.getpid(),
                models=entries,
                stopped=self._stopped(),
                kept=stops.is_kept,
                rejected=rejected,
                shadow=self._shadow(),
            )
        )

    async def stop(self, request: Request) -> Response:
        """`POST /admin/models/stop`: answer 503 with a reason, in all workers, before this is answered."""
        asked = await self._body(request, StopRequest)
        server = self._server
        stop = server.stops.add(asked.name, asked.reason, _principal(request))
        await _patiently(asyncio.to_thread(server.stops.keep))
        await _patiently(server.motion.learn_ids(stop.name))
        await _patiently(asyncio.to_thread(server.stops.keep))
        return _json(StopList(stopped=self._stopped(), kept=server.stops.is_kept))

    async def start(self, request: Request) -> Response:
        """`POST /admin/models/start`: let it answer again."""
        asked = await self._body(request, StartRequest)
        server = self._server
        try:
            server.stops.remove(asked.name, _principal(request))
        except NotStoppedError as e:
            raise RequestError(404, str(e)) from None
        await _patiently(asyncio.to_thread(server.stops.keep))
        return _json(StopList(stopped=self._stopped(), kept=server.stops.is_kept))

    async def shadow(self, request: Request) -> Response:
        """`POST /admin/shadow`: put a model in the shadow, or none, in all workers."""
        asked = await self._body(request, ShadowRequest)
        if asked.model_uri is not None:
            try:
                await self._server.cache.get(asked.model_uri)  # before the workers are told of it
            except (ArtifactError, BackendError) as e:
                raise RequestError(422, str(e)) from e
        await self._server.motion.choose_shadow(asked.model_uri, asked.share, asked.of)
        return _json(self._shadow())

    async def _body(self, request: Request, kind: type[T]) -> T:
        require_json(request.scope)
        body = await read_body(request.scope, request.receive, MAX_BODY_BYTES, self._server.predictor.held)
        try:
            asked = msgspec.json.decode(body, type=kind)
            texts = [value for value in msgspec.to_builtins(asked).values() if isinstance(value, str)]
            if not all(text.isprintable() for text in texts):  # what is logged must not make lines of its own
                raise msgspec.ValidationError
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise RequestError(
                422, f"The body must be a JSON object with the keys {_KEYS[kind]}, of printable characters."
            ) from None
        return asked

    def _entry(self, loaded: LoadedModel, uris: list[str]) -> LoadedEntry:
        model, resolved, default = loaded.model, loaded.resolved, self._server.default.loaded
        is_default = default is not None and default.resolved.model_id == resolved.model_id
        stops = self._server.stops
        found = (stops.stop_of(uri, loaded) for uri in [*uris, *([None] if is_default else []), resolved.model_id])
        stop = next((stop for stop in found if stop is not None), None)
        plan = model.dispatch.plan
        hosts = self._server.hosts
        outage = None if hosts is None else hosts.outages().get(resolved.model_id)
        return LoadedEntry(
            model_id=resolved.model_id,
            run_id=resolved.run_id,
            model_uris=uris,
            is_default=is_default,
            estimator=None if model.manifest is None else model.manifest.estimator,
            backends=[backend.name for backend in model.dispatch.backends],
            plan=None if plan is None else [PlanStep(from_rows=s.from_rows, backend=s.backend) for s in plan.steps],
            bytes=loaded.size,
            hits=loaded.hits,
            loaded_at=datetime.fromtimestamp(loaded.loaded_at, UTC).isoformat(timespec="milliseconds"),
            stopped=None if stop is None else stop.reason,
            pid=None if hosts is None else hosts.pids().get(resolved.model_id),
            outage=None if outage is None else outage.reason,
        )

    def _stopped(self) -> list[StoppedModel]:
        return [
            StoppedModel(name=s.name, reason=s.reason, since=s.since, by=s.by, model_ids=list(s.ids))
            for s in self._server.stops.now()
        ]

    def _shadow(self) -> ShadowState:
        shadow, tally = self._server.shadow, self._server.tally
        compared, loaded = tally.total("shadow_compared"), shadow.loaded
        uri = shadow.chosen.model_uri
        stop = None if loaded is None else self._server.stops.stop_of(uri, loaded)
        is_shown = uri is None or uri.startswith(("models:/", "runs:/")) or not shadow.chosen.is_operators
        return ShadowState(
            model_uri=uri if is_shown else None,
            model_id=None if loaded is None else loaded.resolved.model_id,
            share=shadow.chosen.share,
            of=shadow.chosen.of,
            problem=shadow.problem if stop is None else f"it is stopped: {stop.reason}",
            agreed=int(tally.total("shadow_agreed")),
            differed={" -> ".join(pair): int(n) for pair, n in tally.by_label("shadow_differed").items()},
            dropped=int(tally.total("shadow_dropped")),
            failed=int(tally.total("shadow_failed")),
            waiting=shadow.waiting,
            max_difference=shadow.greatest if compared else None,
            mean_difference=tally.total("shadow_difference") / compared if compared else None,
        )


def _principal(request: Request) -> str | None:
    principal: str | None = request.scope.get("state", {}).get("principal")
    return principal


async def _patiently(work: Awaitable[object]) -> None:
    """Wait for what may hang, but not long; what it was to do is done in the background."""
    with contextlib.suppress(TimeoutError, FinPyfuncError):
        async with asyncio.timeout(WAIT_SECONDS):
            await asyncio.shield(asyncio.ensure_future(work))


def _json(body: msgspec.Struct) -> Response:
    return Response(encode(body), media_type="application/json")
