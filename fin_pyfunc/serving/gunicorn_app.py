"""gunicorn with uvicorn's worker around `create_app`: what `fin-pyfunc serve` starts."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import resource
import signal
import socket
import ssl
import sys
import time
from functools import partial
from typing import Any, cast

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
from fin_pyfunc.serving.protocol import Protocol, Sweeper
from fin_pyfunc.serving.server import ReadyHook, Server
from fin_pyfunc.serving.settings import Limits, Settings
from fin_pyfunc.serving.warming import warm

#: gunicorn's own, so that its lines and ours read alike.
LOG_FORMAT, DATE_FORMAT = "%(asctime)s [%(process)d] [%(levelname)s] %(message)s", "[%Y-%m-%d %H:%M:%S %z]"

#: With every answer, whatever it is of.
SAFE_HEADERS = [
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
]
HTTPS_HEADERS = [("strict-transport-security", "max-age=31536000")]
#: Files, of which each connection is one, that a process asks to be allowed.
MAX_FILES = 65_536

#: Seconds for which a thread may keep Python's lock from another that wants it.
SWITCH_SECONDS = 0.0005


class Worker(UvicornWorker):  # type: ignore[misc] # no types
    """uvicorn's worker, silent about its version and patient for as long as a drain may take."""

    CONFIG_KWARGS = {"loop": "auto", "http": "auto", "server_header": False, "access_log": False, "ws": "none"}  # noqa: RUF012

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.config.timeout_graceful_shutdown = self.cfg.graceful_timeout
        self.config.http = partial(Protocol, self._limits)
        self.config.proxy_headers = bool(self.cfg.forwarded_allow_ips)
        self.config.headers += SAFE_HEADERS + (HTTPS_HEADERS if self.cfg.is_ssl else [])
        logging.getLogger("uvicorn.error").setLevel(max(self.log.error_log.level, logging.WARNING))
        # a thread that loads a model must not hold up an answer for the 5 ms of Python's default, a few times over
        sys.setswitchinterval(SWITCH_SECONDS)

    @property
    def _limits(self) -> Limits:
        """Those of our settings; the defaults where gunicorn runs another application in this worker."""
        return self.app.settings.limits if isinstance(self.app, GunicornApp) else Limits()

    async def _serve(self) -> None:
        """As the parent does, with a server that drains."""
        self.config.app = self.wsgi
        server = DrainingServer(self.config, Sweeper(self._limits.client_seconds))
        self._install_sigquit_handler()
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)


class DrainingServer(uvicorn.Server):
    """Goes on listening after a signal until the predictions under way are answered, and says 503 meanwhile.

    Parameters
    ----------
    config : uvicorn.Config
    sweeper : Sweeper
        Ends connections whose clients are too slow.
    """

    _drain_until: float | None = None

    def __init__(self, config: uvicorn.Config, sweeper: Sweeper) -> None:
        super().__init__(config)
        self._sweeper = sweeper

    async def on_tick(self, counter: int) -> bool:
        """Say, ten times a second, whether to stop now."""
        if counter % 10 == 0:
            self._sweeper.sweep(cast("set[Protocol]", self.server_state.connections))
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
        self.settings, self._on_ready = settings, on_ready
        #: set by the first worker whose default model is ready: from then on a worker that cannot load waits, not ends
        self._has_served = multiprocessing.Value("b", 0)
        self._board = Board()
        super().__init__()

    def load_config(self) -> None:
        """Tell gunicorn what our settings say."""
        s = self.settings
        options: dict[str, Any] = {
            "bind": f"[{s.host}]:{s.port}" if ":" in s.host else f"{s.host}:{s.port}",
            "workers": s.workers,
            "worker_class": f"{Worker.__module__}.{Worker.__qualname__}",
            "loglevel": s.log_level,
            "graceful_timeout": s.drain_seconds,
            "timeout": 60,
            "keepalive": 75,
            "proc_name": "fin-pyfunc",
            "forwarded_allow_ips": ",".join(s.rate.trusted_proxies),
            "certfile": s.tls.certfile,
            "keyfile": s.tls.keyfile,
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
        warm(self.settings)
        app = create_app(
            self.settings,
            on_ready=self._note_served,
            on_fatal=self._end_if_never_served,
            on_stuck=_retire,
            board=self._board,
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
    _refuse_bad_certificate(settings)
    _allow_open_files()
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


def _refuse_bad_certificate(settings: Settings) -> None:
    """Say so at once where every worker would fail with a trace, and be started again."""
    tls = settings.tls
    if tls.certfile is None:
        if tls.keyfile is not None:
            raise FinPyfuncError("deployment.api.tls.keyfile is a certificate's key: name it in tls.certfile, too.")
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.certfile, tls.keyfile, _no_password)
    except (OSError, ValueError) as e:
        strerror = None if isinstance(e, ssl.SSLError) else getattr(e, "strerror", None)
        reason = "no certificate with its private key" if strerror is None else strerror.lower()
        raise FinPyfuncError(
            f"The certificate of deployment.api.tls cannot be used ({reason}): certfile and keyfile must be PEM files "
            "that the server's user can read, the key without a password and of the same certificate."
        ) from None


def _no_password() -> str:
    """Instead of a question at the terminal."""
    return ""


def _allow_open_files() -> None:
    """Let every connection have its file: a shell's usual 1,024 would keep others out when a thousand are idle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _retire() -> None:
    """Have gunicorn put a new worker in the place of this one, which answers what it has accepted first."""
    os.kill(os.getpid(), signal.SIGTERM)
