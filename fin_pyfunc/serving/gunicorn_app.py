"""gunicorn with uvicorn's worker around `create_app`: what `fin-pyfunc serve` starts."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import re
import socket
import sys
import time
from importlib import import_module
from typing import Any

import uvicorn
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from starlette.types import ASGIApp
from uvicorn_worker import UvicornWorker

from fin_pyfunc.model.errors import FinPyfuncError
from fin_pyfunc.serving.app import create_app
from fin_pyfunc.serving.loader import LoadedModel
from fin_pyfunc.serving.middleware.auth import warn_if_exposed
from fin_pyfunc.serving.motion.board import Board
from fin_pyfunc.serving.server import ReadyHook, Server
from fin_pyfunc.serving.settings import Settings

#: gunicorn's own, so that its lines and ours read alike.
LOG_FORMAT, DATE_FORMAT = "%(asctime)s [%(process)d] [%(levelname)s] %(message)s", "[%Y-%m-%d %H:%M:%S %z]"

#: Seconds for which a thread may keep Python's lock from another that wants it.
SWITCH_SECONDS = 0.0005


class Worker(UvicornWorker):  # type: ignore[misc] # no types
    """uvicorn's worker, silent about its version and patient for as long as a drain may take."""

    CONFIG_KWARGS = {"loop": "auto", "http": "auto", "server_header": False, "access_log": False, "ws": "none"}  # noqa: RUF012

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.config.timeout_graceful_shutdown = self.cfg.graceful_timeout
        logging.getLogger("uvicorn.error").setLevel(max(self.log.error_log.level, logging.WARNING))
        # a thread that loads a model must not hold up an answer for the 5 ms of Python's default, a few times over
        sys.setswitchinterval(SWITCH_SECONDS)

    async def _serve(self) -> None:
        """As the parent does, with a server that drains."""
        self.config.app = self.wsgi
        server = DrainingServer(config=self.config)
        self._install_sigquit_handler()
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)


class DrainingServer(uvicorn.Server):
    """Goes on listening after a signal until the predictions under way are answered, and says 503 meanwhile."""

    _drain_until: float | None = None

    async def on_tick(self, counter: int) -> bool:
        """Say, ten times a second, whether to stop now."""
        if self.should_exit and not self.force_exit:
            ours: Server | None = self.lifespan.state.get("server")
            if self._drain_until is None:
                self._drain_until = time.monotonic() + (self.config.timeout_graceful_shutdown or 0)
                if ours is not None:
                    ours.predictor.drain()
            if ours is not None and not ours.predictor.is_idle and time.monotonic() < self._drain_until:
                return False
        return await super().on_tick(counter)


class GunicornApp(BaseApplication):  # type: ignore[misc] # no types
    """gunicorn, configured from our settings instead of from its own command line.

    Parameters
    ----------
    settings : Settings
    on_ready : callable, optional
        Called by the first worker that is ready, with its default model or None.
    """

    def __init__(self, settings: Settings, on_ready: ReadyHook | None = None) -> None:
        self._settings, self._on_ready = settings, on_ready
        #: set by the first worker whose default model is ready: from then on a worker that cannot load waits, not ends
        self._has_served = multiprocessing.Value("b", 0)
        self._board = Board()
        super().__init__()

    def load_config(self) -> None:
        """Tell gunicorn what our settings say."""
        s = self._settings
        options: dict[str, Any] = {
            "bind": f"[{s.host}]:{s.port}" if ":" in s.host else f"{s.host}:{s.port}",
            "workers": s.workers,
            "worker_class": f"{Worker.__module__}.{Worker.__qualname__}",
            "loglevel": s.log_level,
            "graceful_timeout": s.drain_seconds,
            "timeout": 60,
            "keepalive": 75,
            "proc_name": "fin-pyfunc",
            # the application is made before the fork, so that workers share the memory of its imports; it opens nothing
            "preload_app": True,
            "control_socket_disable": True,
        }
        if os.access("/dev/shm", os.W_OK):  # noqa: S108 - gunicorn's heartbeat file, which needs no disk there
            options["worker_tmp_dir"] = "/dev/shm"  # noqa: S108
        for name, value in options.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> ASGIApp:
        """The application, made once in the arbiter."""
        _warm_imports(self._settings)
        app = create_app(
            self._settings, on_ready=self._note_served, on_fatal=self._end_if_never_served, board=self._board
        )
        # what is there now stays; a collection in a worker would touch all of it, and make it that worker's own memory
        gc.collect()
        gc.freeze()
        return app

    def _note_served(self, default: LoadedModel | None) -> None:
        with self._has_served.get_lock():
            first, self._has_served.value = not self._has_served.value, 1
        if first and self._on_ready is not None:
            self._on_ready(default)

    def _end_if_never_served(self) -> None:
        """A default model that can never load ends the start; later, the server goes on serving what it has."""
        if not self._has_served.value:
            logging.shutdown()
            # at once: uvicorn logs a SystemExit from a task as a crash, and after a signal the arbiter starts another
            os._exit(Arbiter.APP_LOAD_ERROR)


def run(settings: Settings, on_ready: ReadyHook | None = None) -> None:
    """Serve until a signal says stop; parameters as `GunicornApp` takes them."""
    logging.basicConfig(level=settings.log_level.upper(), format=LOG_FORMAT, datefmt=DATE_FORMAT, stream=sys.stderr)
    for noisy in ("alembic", "httpx", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("gunicorn.error").addFilter(_is_news)
    warn_if_exposed(settings)
    _refuse_taken_port(settings)
    GunicornApp(settings, on_ready).run()


def _is_news(record: logging.LogRecord) -> bool:
    """Leave out what gunicorn says at every stop, when uvicorn has closed the sockets before it."""
    return "Error while closing socket" not in record.msg


def _refuse_taken_port(settings: Settings) -> None:
    """Say so at once where gunicorn would try for five seconds."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as e:
            raise FinPyfuncError(
                f"{settings.host}:{settings.port} cannot be listened on ({e.strerror}): choose another port with "
                "--port (make serve PORT=…), or end the program that has it."
            ) from e


def _warm_imports(settings: Settings) -> None:
    """Import before the fork what every worker needs, without opening anything.

    A single worker shares its imports with nobody, and MLflow's take longer than all else that a start does: where the
    model is a local file or folder, it answers first, and MLflow is imported beside that.
    """
    names = ["onnxruntime", "uvicorn.lifespan.on", "uvicorn.loops.auto", "uvicorn.protocols.http.auto"]
    if settings.workers > 1 or (settings.model_uri or "").startswith(("models:", "runs:")):
        names += ["mlflow.artifacts", "mlflow.pyfunc.scoring_server", "mlflow.tracking"]
        # MLflow's own default is a database, too
        if re.match(r"(sqlite|postgres|mysql|mssql)", settings.mlflow.tracking_uri or "sqlite"):
            names += ["mlflow.store.tracking.sqlalchemy_store", "mlflow.store.model_registry.sqlalchemy_store"]
            names += ["sqlalchemy.dialects.sqlite"]
    for name in names:
        import_module(name)
    if "sqlalchemy" in sys.modules:
        import_module("sqlalchemy.orm").configure_mappers()  # which every worker would do by itself
