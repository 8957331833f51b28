"""The ASGI application: what is where, on one screen."""

from __future__ import annotations

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from fin_pyfunc.serving import pages
from fin_pyfunc.serving.endpoints import Predict, PredictBatch
from fin_pyfunc.serving.middleware.boundary import Boundary
from fin_pyfunc.serving.mlflow_app import Invocations
from fin_pyfunc.serving.routes import health, list_models, live, no_such_route, ping, ready, root, version, wrong_method
from fin_pyfunc.serving.server import ReadyHook, Server
from fin_pyfunc.serving.settings import Settings

#: Headers that a browser's script may read from another origin.
EXPOSED = ["X-Request-ID", "X-Model-URI", "X-Model-ID", "X-Model-Backend", "Retry-After"]


def create_app(
    settings: Settings, on_ready: ReadyHook | None = None, on_fatal: Callable[[], None] | None = None
) -> ASGIApp:
    """Make the application of one worker.

    Parameters
    ----------
    settings : Settings
        Nothing is read from the environment or from globals.
    on_ready, on_fatal : callable, optional
        As `Server` takes them.

    Returns
    -------
    ASGI application
        It opens no store, thread or file before its lifespan starts, so that it can be made before a fork.
    """
    server = Server(settings, on_ready, on_fatal)
    hot: dict[str, ASGIApp] = {
        "/predict": Predict(server.predictor, settings.limits),
        "/predict/batch": PredictBatch(server.predictor, settings.limits),
        "/invocations": Invocations(server.default, settings.limits),
    }
    rest = Starlette(
        routes=[
            Route("/", root),
            Route("/health", health),
            Route("/health/live", live),
            Route("/health/ready", ready),
            Route("/models", list_models),
            Route("/ping", ping),
            Route("/version", version),
            *pages.routes(),
        ],
        exception_handlers={404: no_such_route, 405: wrong_method},
        lifespan=server.lifespan,
    )
    rest.state.server = server
    app: ASGIApp = Boundary(Shim(hot, rest))
    cors = settings.cors
    if cors.allow_origins:
        app = CORSMiddleware(
            app,
            allow_origins=cors.allow_origins,
            allow_credentials=cors.allow_credentials,
            allow_methods=cors.allow_methods,
            allow_headers=cors.allow_headers,
            expose_headers=EXPOSED,
        )
    return app


class Shim:
    """Sends the hot routes straight to their endpoints and everything else to Starlette."""

    def __init__(self, hot: dict[str, ASGIApp], rest: ASGIApp) -> None:
        self._hot, self._rest = hot, rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        app = self._hot.get(scope["path"], self._rest) if scope["type"] == "http" else self._rest
        await app(scope, receive, send)
