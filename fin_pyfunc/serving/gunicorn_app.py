"""gunicorn with uvicorn's worker around `create_app`: what `fin-pyfunc serve` starts."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import multiprocessing
import os
import resource
import shutil
import socket
import ssl
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from starlette.types import ASGIApp

from fin_pyfunc.host.lifeline import Lifeline
from fin_pyfunc.model.errors import FinPyfuncError
from fin_pyfunc.serving.admin.listener import AdminListener, listen
from fin_pyfunc.serving.admin.socket_path import AUTO, AdminSocketError, prepare
from fin_pyfunc.serving.app import create_app
from fin_pyfunc.serving.life import succession, trial
from fin_pyfunc.serving.life.arbiter import ReplacingArbiter
from fin_pyfunc.serving.life.worker import Worker
from fin_pyfunc.serving.loaded_model import LoadedModel
from fin_pyfunc.serving.logs.lines import GunicornLogger, set_up
from fin_pyfunc.serving.metrics.values import Values
from fin_pyfunc.serving.middleware.auth import warn_if_exposed
from fin_pyfunc.serving.motion.board import Board
from fin_pyfunc.serving.server import ReadyHook, Server
from fin_pyfunc.serving.settings import Settings
from fin_pyfunc.serving.store import upgrade_database
from fin_pyfunc.serving.warming import store_uris, warm

logger = logging.getLogger("fin_pyfunc.server")

#: A worker that is ready waits this long for the one that listens, which is to be ready first.
PATIENCE_SECONDS = 5.0
#: Files, of which each connection is one, that a process asks to be allowed.
MAX_FILES = 65_536


class GunicornApp(BaseApplication):  # type: ignore[misc] # no types
    """gunicorn, configured from our settings instead of from its own command line.

    Parameters
    ----------
    settings : Settings
    on_ready : callable, optional
        Called by the first worker that is ready, with its default model or None.
    estate : Estate, optional
        What was left by the program that this one succeeds in the same process.
    """

    def __init__(
        self, settings: Settings, on_ready: ReadyHook | None = None, estate: succession.Estate | None = None
    ) -> None:
        self.settings, self._on_ready, self._estate = settings, on_ready, estate
        #: set by the first worker whose default model is ready: from then on a worker that cannot load waits, not ends
        self._has_served = multiprocessing.Value("b", 0 if estate is None else 1)
        #: the worker that listens before it is ready, so that somebody says how far the start is; 0 for none yet
        self._spokesman = multiprocessing.Value("i", 0)
        #: workers that serve now, as the arbiter counts them
        self._serving = multiprocessing.RawValue("i", 0)
        #: where everything that this server's processes keep lies, until it ends
        self.folder = Path(tempfile.mkdtemp(prefix="fin_pyfunc-") if estate is None else estate.folder)  # 0700
        self._refusal = self.folder / "refusal"
        #: what the arbiter itself counts
        self.values = Values(self.folder if settings.metrics.enabled else None)
        #: shared with the workers of the program before, too, while they finish
        self._board = Board(self.folder / "board")
        #: by which all workers share the processes that models run in, and these end with the last of them
        self._lifeline = Lifeline(self.folder) if settings.models.isolation == "process" else None
        #: the admin socket, for all workers
        self.admin: AdminListener | None = None if estate is None else estate.admin
        self._arbiter = os.getpid()
        #: the worker that this is, once it is one
        self.worker: Worker | None = None
        super().__init__()

    def run(self) -> None:
        """Serve until a signal says stop."""
        try:
            ReplacingArbiter(self, self._estate).run()
        finally:
            if os.getpid() == self._arbiter:
                shutil.rmtree(self.folder, ignore_errors=True)
                if self.admin is not None:
                    self.admin.close()

    def load_config(self) -> None:
        """Tell gunicorn what our settings say."""
        s = self.settings
        options: dict[str, Any] = {
            "bind": bind(s),
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
            "child_exit": lambda arbiter, worker: arbiter.buried(worker),
        }
        if s.log_format == "json":
            options["logger_class"] = GunicornLogger
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
            on_stuck=self._replace_worker,
            before_serving=self._until_needed,
            metrics_folder=self.values.folder,
            board=self._board,
            lifeline=self._lifeline,
            folder=self.folder,
        )
        # what is there now stays; a collection in a worker would touch all of it, and make it that worker's own memory
        gc.collect()
        gc.freeze()
        return app

    def listen_for_operators(self, port: int) -> None:
        """Open the admin socket, or go on with the one there is; called by the arbiter once it listens.

        Raises
        ------
        AdminSocketError
            A path that the settings name cannot be used, and nothing serves yet.
        """
        wanted = self.settings.admin.socket
        try:
            if self.admin is not None and not self.admin.is_at(wanted, port):
                self.admin.close()
                self.admin = None
            if self.admin is None:
                self.admin = listen(wanted, port)
        except AdminSocketError as e:
            if wanted != AUTO and self._estate is None:
                raise
            logger.warning("there is no admin socket: %s", e)
        if self.admin is not None:
            logger.info("the admin socket is %s", self.admin.path)

    def note_serving(self, workers: int) -> None:
        """Let each worker know how many serve now; called by the arbiter."""
        self._serving.value = workers

    async def _until_needed(self, server: Server) -> None:
        """Before a worker listens: it is to be ready first, so that no request meets a 503 once one was answered."""
        assert self.worker is not None  # noqa: S101 - for the type checker
        ready_since: float | None = None
        while not self.worker.is_ending:
            if ready_since is None and server.health.not_ready() is None:
                ready_since = time.monotonic()
            if self._has_served.value:
                if ready_since is not None:
                    break
                if server.default.settled.is_set() and not self._serving.value:
                    break  # MLflow is away and nobody else is there: somebody has to say so
            elif self._is_spokesman():
                break
            elif ready_since is not None and time.monotonic() > ready_since + PATIENCE_SECONDS:
                self._note_first(server.default.loaded)
                break
            self.worker.notify()
            await asyncio.sleep(0.02)

    def _replace_worker(self) -> None:
        """Have another worker take the place of this one, whose scoring threads do not come back."""
        assert self.worker is not None  # noqa: S101 - for the type checker
        self.worker.ask_for_replacement("stuck")

    def _is_spokesman(self) -> bool:
        """Whether this worker is the one that listens before it is ready; it is where nobody else is."""
        with self._spokesman.get_lock():
            if not (self._spokesman.value and _is_alive(self._spokesman.value)):
                self._spokesman.value = os.getpid()
            return bool(self._spokesman.value == os.getpid())

    def _note_served(self, default: LoadedModel | None) -> None:
        """The models of this worker answer; others may have been ready before, but did not listen."""
        if self._has_served.value or self._is_spokesman():
            self._note_first(default)

    def _note_first(self, default: LoadedModel | None) -> None:
        with self._has_served.get_lock():
            first, self._has_served.value = not self._has_served.value, 1
        if first and self._on_ready is not None:
            self._on_ready(default)

    @property
    def refusal(self) -> str:
        """Why a worker ended the start, in a sentence."""
        try:
            return self._refusal.read_text()
        except FileNotFoundError:
            return "the server could not be started: the log above has the cause."

    def _end_if_never_served(self, reason: str) -> None:
        """A model that can never load ends the start; later, the server goes on serving what it has.

        The reason is left to the arbiter, which says it last, and once for all workers.
        """
        if not self._has_served.value:
            with contextlib.suppress(FileExistsError), self._refusal.open("x") as first:
                first.write(reason)
            logging.shutdown()
            # at once: uvicorn logs a SystemExit from a task as a crash, and after a signal the arbiter starts another
            os._exit(Arbiter.APP_LOAD_ERROR)


def run(settings: Settings, on_ready: ReadyHook | None = None) -> None:
    """Serve until a signal says stop; parameters as `GunicornApp` takes them.

    Where the arbiter of a running server wants to know whether this configuration works, it is only tried out.
    """
    set_up(settings.log_level, settings.log_format == "json")
    _find_room_for_files()
    logging.getLogger("gunicorn.error").addFilter(_is_news)
    estate, beside = succession.inherited(), succession.tried_beside()
    taken = estate.bind if estate is not None else beside
    if beside is None:
        warn_if_exposed(settings)
    try:
        if bind(settings) != taken:
            _refuse_taken_port(settings)
        _refuse_bad_certificate(settings)
        if settings.admin.socket not in (None, AUTO):
            prepare(Path(settings.admin.socket))
        _allow_open_files()
        if beside is not None:
            trial.run(settings)
            return
        if settings.mlflow.upgrade_store:
            for uri in store_uris(settings):
                if upgrade_database(uri):
                    logger.warning("the MLflow store was of an older MLflow, and has been upgraded")
        GunicornApp(settings, on_ready, estate).run()
    except FinPyfuncError as e:
        if settings.log_format == "text" or beside is not None:
            raise
        logger.error("%s", e)
        sys.exit(1)


def bind(settings: Settings) -> str:
    """What to listen on, as gunicorn has it."""
    return f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}"


def _find_room_for_files() -> None:
    """Keep what is temporary in memory where nothing else can be written to, as in a read-only container."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        if os.access("/dev/shm", os.W_OK):  # noqa: S108
            os.environ["TMPDIR"] = tempfile.tempdir = "/dev/shm"  # noqa: S108


def _is_news(record: logging.LogRecord) -> bool:
    """Leave out what gunicorn says at every stop, when uvicorn has closed the sockets before it, and of a worker that
    has ended the start, for which the arbiter says why.
    """
    if "exited with code" in record.msg and Arbiter.APP_LOAD_ERROR in (record.args or ()):
        return False
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


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _no_password() -> str:
    """Instead of a question at the terminal."""
    return ""


def _allow_open_files() -> None:
    """Let every connection have its file: a shell's usual 1,024 would keep others out when a thousand are idle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
