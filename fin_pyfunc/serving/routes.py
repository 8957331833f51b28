"""The routes that are not hot: health, the list of models, and the small ones."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from fin_pyfunc._version import __version__
from fin_pyfunc.serving.callers.principal import Scope, require_model
from fin_pyfunc.serving.endpoints import identity
from fin_pyfunc.serving.errors import RETRY_AFTER, RequestError
from fin_pyfunc.serving.http import encode
from fin_pyfunc.serving.loaded_model import LoadedModel
from fin_pyfunc.serving.model_info import describe
from fin_pyfunc.serving.openapi import openapi
from fin_pyfunc.serving.patterns import allows
from fin_pyfunc.serving.places import Places
from fin_pyfunc.serving.schemas import ModelEntry, ModelList, Root
from fin_pyfunc.serving.server import Server

DEFAULT_LIMIT, MAX_LIMIT = 100, 1000
#: Lists that are made or waited for at once, and how many of them MLflow is asked for: on threads of their own, since a
#: store that does not answer must not take those of others.
MAX_LISTS, LIST_THREADS = 16, 4


class Routes:
    """Endpoints over one server.

    Parameters
    ----------
    server : Server
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._threads = ThreadPoolExecutor(LIST_THREADS, thread_name_prefix="list")
        self._lists = Places(MAX_LISTS, server.settings.limits.request_seconds)
        self._documents: dict[str, bytes] = {}

    async def root(self, _: Request) -> Response:
        """`GET /`: where to go from here."""
        message = "fin_pyfunc serves MLflow classifiers"
        return _json(Root(message=message, version=__version__, docs="/docs", health="/health"))

    async def health(self, request: Request) -> Response:
        """`GET /health`: 200 when something can be scored, else 503; it reads what is known and waits for nothing."""
        body = self._health(request)
        return _json(body, 503 if body["status"] == "unhealthy" else 200)

    async def live(self, request: Request) -> Response:
        """`GET /health/live`: 200 as long as the event loop turns."""
        return _json(self._health(request))

    async def ready(self, request: Request) -> Response:
        """`GET /health/ready`: 200 once the default model, if any, has scored its warm-up row; 503 while draining."""
        self._require_ready()
        return _json(self._health(request))

    async def models(self, request: Request) -> Response:
        """`GET /models?experiment_name=&limit=&names=`: runs with a logged model, newest first."""
        asked = request.query_params
        if set(asked) - {"experiment_name", "limit", "names"}:
            raise RequestError(422, "This route takes the query parameters 'experiment_name', 'limit', 'names' only.")
        text = asked.get("limit", str(DEFAULT_LIMIT))
        limit = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
        if not 1 <= limit <= MAX_LIMIT:
            raise RequestError(422, f"The query parameter 'limit' must be an integer from 1 to {MAX_LIMIT}.")
        if asked.get("names", "false") not in ("true", "false"):
            raise RequestError(422, "The query parameter 'names' must be true or false.")
        listing = partial(
            self._server.catalog.list_models,
            asked.get("experiment_name"),
            limit,
            with_names=asked.get("names") == "true",
        )
        async with self._lists.take():
            found = await asyncio.get_running_loop().run_in_executor(self._threads, listing)
        if (patterns := request.scope["state"].get("models")) is not None:
            shown = [entry for each in found.models if (entry := _as_allowed(each, patterns)) is not None]
            found = ModelList(models=shown, count=len(shown))
        return _json(found)

    async def model_info(self, request: Request) -> Response:
        """`GET /models/info?model_uri=`: what a model takes, for those who may ask it; it is loaded as for a row."""
        sent = request.query_params.multi_items()
        if [name for name, _ in sent] not in ([], ["model_uri"]):
            raise RequestError(422, "This route takes the query parameter 'model_uri' only, at most once.")
        uri, predictor = request.query_params.get("model_uri"), self._server.predictor
        require_model(request.scope, uri, predictor.default_uri)
        async with predictor.place():
            loaded = await predictor.find(uri)
        return _json(describe(loaded, uri), headers=identity(uri, loaded))

    async def openapi(self, request: Request) -> Response:
        """`GET /openapi.json`, with examples of the default model for those who may ask it."""
        default, state = self._server.default, request.scope["state"]
        loaded = default.loaded
        if self._server.settings.auth.is_on and Scope.PREDICT not in state.get("scopes", ()):
            loaded = None
        if "models" in state and not (default.uri and allows(state["models"], default.uri)):
            loaded = None
        return Response(self._document(loaded), 200, {"Cache-Control": "no-store"}, "application/json")

    async def ping(self, _: Request) -> Response:
        """`GET /ping`: MLflow's liveness check, as MLflow answers it; 503 while the default model is not there yet."""
        self._require_ready()
        return Response("\n", media_type="application/json")

    async def version(self, _: Request) -> Response:
        """`GET /version`: MLflow's version, as MLflow answers it."""
        from mlflow.version import VERSION

        return Response(VERSION, media_type="application/json")

    async def metrics(self, request: Request) -> Response:
        """`GET /metrics`: what all workers counted, for Prometheus."""
        body, content_type = await self._server.metrics.expose(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type})

    def _document(self, loaded: LoadedModel | None) -> bytes:
        """The OpenAPI document with a model's examples, made once for the same model and backend."""
        key = "" if loaded is None else f"{loaded.resolved.model_id} {loaded.model.dispatch.choose(1).name}"
        if key not in self._documents:
            if len(self._documents) > 1:  # of the model before
                self._documents.clear()
            self._documents[key] = encode(openapi(__version__, None if loaded is None else describe(loaded, None)))
        return self._documents[key]

    def _health(self, request: Request) -> dict[str, Any]:
        """What is known; where callers are asked who they are, one that is not known is told the status only."""
        known = msgspec.structs.asdict(self._server.health.health())
        if self._server.settings.auth.is_on and "principal" not in request.scope["state"]:
            return {"status": known["status"]}
        return known

    def _require_ready(self) -> None:
        reason = self._server.health.not_ready()
        if reason is not None:
            raise RequestError(503, reason, RETRY_AFTER)


def _as_allowed(entry: ModelEntry, patterns: Sequence[str]) -> ModelEntry | None:
    """What of an entry a caller may know by its patterns; None where it may ask for the model by no URI of it."""
    if entry.registered is msgspec.UNSET:
        return entry if allows(patterns, entry.model_uri) else None
    registered = []
    for each in entry.registered:
        aliases = [alias for alias in each.aliases if allows(patterns, f"models:/{each.name}@{alias}")]
        if aliases or allows(patterns, f"models:/{each.name}/{each.version}"):
            registered.append(msgspec.structs.replace(each, aliases=aliases))
    is_allowed = registered or allows(patterns, entry.model_uri)
    return msgspec.structs.replace(entry, registered=registered) if is_allowed else None


def _json(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(encode(body), status, {"Cache-Control": "no-store", **(headers or {})}, "application/json")
