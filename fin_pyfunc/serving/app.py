"""The ASGI application: what is where, on one screen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from functools import partial
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from fin_pyfunc.host.lifeline import Lifeline
from fin_pyfunc.serving import pages
from fin_pyfunc.serving.callers.credentials import open_credentials
from fin_pyfunc.serving.callers.principal import Scope
from fin_pyfunc.serving.endpoints import Predict, PredictBatch
from fin_pyfunc.serving.errors import RequestError
from fin_pyfunc.serving.logs.requests import JsonLines, TextLines
from fin_pyfunc.serving.metrics import definitions as m
from fin_pyfunc.serving.metrics.requests import RequestMetrics
from fin_pyfunc.serving.middleware.auth import Authenticate
from fin_pyfunc.serving.middleware.boundary import Boundary
from fin_pyfunc.serving.mlflow_app import Invocations
from fin_pyfunc.serving.motion.board import Board
from fin_pyfunc.serving.motion.routes import AdminRoutes
from fin_pyfunc.serving.observers import Observers
from fin_pyfunc.serving.routes import Routes
from fin_pyfunc.serving.server import ReadyHook, Server
from fin_pyfunc.serving.settings import Settings
from fin_pyfunc.serving.tracing import Traced

#: Headers that a browser's script may read from another origin.
EXPOSED = ["X-Request-ID", "X-Model-URI", "X-Model-ID", "X-Model-Backend", "Retry-After"]
#: What a caller must be allowed, a path that ends with a slash for all below it; any other route is open
#: (`middleware.auth.OPEN`) or takes every caller that is known.
SCOPES = {
    "/predict": Scope.PREDICT,
    "/predict/batch": Scope.PREDICT,
    "/invocations": Scope.PREDICT,
    "/models": Scope.MODELS,
    "/models/info": Scope.PREDICT,
    "/metrics": Scope.METRICS,
    "/admin": Scope.ADMIN,
    "/admin/": Scope.ADMIN,
}
#: Where nobody can prove over TCP that he is the operator.
ADMIN_PATHS = ("/admin", "/admin/{path:path}")
NO_ADMIN = (
    "This route is for the server's operator: use 'fin-pyfunc models …' on the server's machine, or another client of "
    "the Unix socket deployment.api.admin.socket, or set deployment.api.auth.mode to keys or jwt and send a credential "
    "with the scope 'admin'."
)
NOT_ADMIN = "The admin socket answers /admin/… and /health… only: send this request to the server's TCP port."
#: What is counted against a caller's rate: what costs, not what an operator's own machines ask.
LIMITED = [path for path, scope in SCOPES.items() if scope in (Scope.PREDICT, Scope.MODELS)]


def create_app(
    settings: Settings,
    on_ready: ReadyHook | None = None,
    on_fatal: Callable[[str], None] | None = None,
    on_stuck: Callable[[], None] | None = None,
    before_serving: Callable[[Server], Awaitable[None]] | None = None,
    metrics_folder: Path | None = None,
    board: Board | None = None,
    lifeline: Lifeline | None = None,
    folder: Path | None = None,
) -> ASGIApp:
    """Make the application of one worker.

    Parameters
    ----------
    settings : Settings
        Nothing is read from the environment or from globals.
    on_ready, on_fatal, on_stuck, before_serving, metrics_folder : optional
    board : Board, optional
    lifeline : Lifeline, optional
    folder : Path, optional
        As `Server` takes them.

    Returns
    -------
    ASGI application
        It opens no store, thread or file before its lifespan starts, so that it can be made before a fork; with
        authentication on it has read the file of keys, with ``admin.state_file`` that one.

    Raises
    ------
    KeyFileError, KeySetError, StateFileError
        A file of keys is missing, or one of these is unreadable or damaged.
    """
    server = Server(settings, on_ready, on_fatal, on_stuck, before_serving, metrics_folder, board, lifeline, folder)
    hot: dict[str, ASGIApp] = {
        "/predict": Predict(server.predictor, settings.limits, server.watchers),
        "/predict/batch": PredictBatch(server.predictor, settings.limits, server.watchers),
        "/invocations": Invocations(server.predictor, settings.limits, server.watchers),
    }
    other, admin = Routes(server), AdminRoutes(server)
    for_operators = [
        Route("/admin/models", admin.models),
        Route("/admin/models/stop", admin.stop, methods=["POST"]),
        Route("/admin/models/start", admin.start, methods=["POST"]),
        Route("/admin/shadow", admin.shadow, methods=["POST"]),
    ]
    of_health = [
        Route("/health", other.health),
        Route("/health/live", other.live),
        Route("/health/ready", other.ready),
    ]
    by_tcp = for_operators if settings.auth.is_on else [Route(path, Refusal(403, NO_ADMIN)) for path in ADMIN_PATHS]
    rest = Router(
        routes=[
            Route("/", other.root),
            *of_health,
            Route("/models", other.models),
            Route("/models/info", other.model_info),
            Route("/ping", other.ping),
            Route("/version", other.version),
            *by_tcp,
            *([Route("/metrics", other.metrics)] if settings.metrics.enabled else []),
            Route("/openapi.json", other.openapi),
            *pages.routes(),
        ],
        redirect_slashes=False,
        lifespan=server.lifespan,
    )
    app: ASGIApp = Shim(hot, rest)
    if settings.rate.requests is not None:
        # `limits`, a tenth of a second, for those who set a rate
        from fin_pyfunc.serving.middleware.rate_limit import RateLimit
        from fin_pyfunc.serving.rates import counter

        counting = counter(settings.rate)
        counting.on_trouble = partial(server.metrics.values.add, m.REDIS_ERRORS)
        app = RateLimit(app, counting, LIMITED, settings.rate.when_storage_fails == "open")
    if settings.auth.is_on:
        app = Authenticate(app, open_credentials(settings.auth), SCOPES)
    paths = {*hot, *(route.path for route in [*rest.routes, *for_operators] if isinstance(route, Route))}
    tell = _observers(server, paths).add
    app = Boundary(app, server, tell)
    others = Route("/{path:path}", Refusal(404, NOT_ADMIN))
    by_socket = Router([*for_operators, *of_health, others], redirect_slashes=False)
    server.admin_app = Boundary(Shim({}, by_socket), server, tell)
    if server.tracer is not None:
        app, server.admin_app = (Traced(each, server.tracer, paths) for each in (app, server.admin_app))
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


def _observers(server: Server, paths: Collection[str]) -> Observers:
    """Who is told of each request that was answered."""
    settings = server.settings
    is_json = settings.log_format == "json"
    is_all = settings.log_requests == "all" or (settings.log_requests == "auto" and is_json)
    lines = JsonLines(is_all, paths) if is_json else TextLines(is_all)
    if not settings.metrics.enabled:
        observers = Observers([lines])
    else:
        counting = RequestMetrics(server.metrics.values, paths)
        observers = Observers([counting, lines])
        server.metrics.before_flush += [observers.flush, counting.count]
    server.at_end.append(observers.flush)
    return observers


class Refusal:
    """An endpoint that refuses every request, whatever its method.

    Parameters
    ----------
    status : int
    detail : str
    """

    def __init__(self, status: int, detail: str) -> None:
        self._status, self._detail = status, detail

    async def __call__(self, *_: object) -> None:
        """Raise what the boundary answers."""
        raise RequestError(self._status, self._detail)


class Shim:
    """Sends the hot routes straight to their endpoints and everything else to Starlette's router."""

    def __init__(self, hot: dict[str, ASGIApp], rest: ASGIApp) -> None:
        self._hot, self._rest = hot, rest

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path = scope.get("path", "")
        app = self._hot.get(path)
        if app is None:
            if path.endswith("\n") and scope["type"] == "http":
                # the router's patterns would take it for the path before it, whose scope and rate it was not held to
                raise HTTPException(404)
            # with an "app" in its scope the router raises its 404 and 405 for the boundary to word
            return await self._rest({**scope, "app": self}, receive, send)
        return await app(scope, receive, send)
