"""The routes that are not hot: health, the list of models, and the small ones."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from fin_pyfunc._version import __version__
from fin_pyfunc.serving.errors import RETRY_AFTER, RequestError
from fin_pyfunc.serving.http import encode
from fin_pyfunc.serving.schemas import Error, Root
from fin_pyfunc.serving.server import Server

MAX_LIMIT = 1000


async def root(_: Request) -> Response:
    """`GET /`: where to go from here."""
    return _json(
        Root(message="fin_pyfunc serves MLflow classifiers", version=__version__, docs="/docs", health="/health")
    )


async def health(request: Request) -> Response:
    """`GET /health`: 200 when something can be scored, else 503; it reads what is known and waits for nothing."""
    body = _server(request).health.health()
    return _json(body, 503 if body.status == "unhealthy" else 200)


async def live(_: Request) -> Response:
    """`GET /health/live`: 200 as long as the event loop turns."""
    return _json({"status": "alive"})


async def ready(request: Request) -> Response:
    """`GET /health/ready`: 200 once the default model, if any, has scored its warm-up row."""
    reason = _server(request).health.not_ready()
    return _json({"status": "ready"}) if reason is None else _json(Error(detail=reason), 503, RETRY_AFTER)


async def list_models(request: Request) -> Response:
    """`GET /models?experiment_name=&limit=`: runs with a logged model, newest first."""
    unknown = set(request.query_params) - {"experiment_name", "limit"}
    if unknown:
        raise RequestError(422, "This route takes the query parameters 'experiment_name' and 'limit' only.")
    text = request.query_params.get("limit", "100")
    limit = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if not 1 <= limit <= MAX_LIMIT:
        raise RequestError(422, f"The query parameter 'limit' must be an integer from 1 to {MAX_LIMIT}.")
    name = request.query_params.get("experiment_name")
    return _json(await asyncio.to_thread(_server(request).catalog.list_models, name, limit))


async def ping(request: Request) -> Response:
    """`GET /ping`: MLflow's liveness check, as MLflow answers it; 503 while the default model is not there yet."""
    reason = _server(request).health.not_ready()
    if reason is not None:
        return _json(Error(detail=reason), 503, RETRY_AFTER)
    return Response("\n", media_type="application/json")


async def version(_: Request) -> Response:
    """`GET /version`: MLflow's version, as MLflow answers it."""
    from mlflow.version import VERSION

    return Response(VERSION, media_type="application/json")


async def no_such_route(_: Request, __: Exception) -> Response:
    """404 for any other path."""
    return _json(Error(detail="There is no such route: see /docs for those there are."), 404)


async def wrong_method(_: Request, error: Exception) -> Response:
    """405 with the methods there are."""
    headers = dict(getattr(error, "headers", None) or {})
    return _json(Error(detail=f"This route takes {headers.get('Allow', 'GET')} only: see /docs."), 405, headers)


def _server(request: Request) -> Server:
    server: Server = request.app.state.server
    return server


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(encode(body), status, headers, media_type="application/json")
