"""A worker, and the server in it: how it starts, leaves and stops."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
import ssl
import sys
import time
from functools import partial
from typing import Any, cast

import uvicorn
from gunicorn.arbiter import Arbiter
from uvicorn_worker import UvicornWorker

from fin_pyfunc.serving.admin.listener import AdminListener
from fin_pyfunc.serving.life.arbiter import LEAVE, REASONS
from fin_pyfunc.serving.life.succession import take_signals
from fin_pyfunc.serving.memory import resident_bytes
from fin_pyfunc.serving.protocol import AdminProtocol, Protocol, Sweeper
from fin_pyfunc.serving.server import Server
from fin_pyfunc.serving.settings import Limits, Settings

logger = logging.getLogger("fin_pyfunc.server")

#: With every answer, whatever it is of.
SAFE_HEADERS = [
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
]
HTTPS_HEADERS = [("strict-transport-security", "max-age=31536000")]

#: Seconds for which a thread may keep Python's lock from another that wants it.
SWITCH_SECONDS = 0.0005
#: Seconds that a worker which leaves or stops waits for clients that are connected and ask nothing: the answer to their
#: next request tells them to connect anew, and none of them asks while its connection is being closed.
IDLE_SECONDS = 2.0


class Worker(UvicornWorker):  # type: ignore[misc] # no types
    """uvicorn's worker, silent about its version and patient for as long as a drain may take.

    Attributes
    ----------
    is_ready, why_replace : RawValue
        What the arbiter is told: that this worker answers; why it should be replaced, a place in `REASONS`.
    """

    CONFIG_KWARGS = {"loop": "auto", "http": "auto", "server_header": False, "access_log": False, "ws": "none"}  # noqa: RUF012

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.is_ready, self.why_replace = multiprocessing.RawValue("b", 0), multiprocessing.RawValue("b", 0)
        self._server: DrainingServer | None = None
        self.config.timeout_graceful_shutdown = self.cfg.graceful_timeout
        self.config.http = partial(Protocol, self.limits)
        self.config.ssl_version = ssl.PROTOCOL_TLS_SERVER  # TLS 1.2 or later; gunicorn's default is any version
        self.config.proxy_headers = bool(self.cfg.forwarded_allow_ips)
        self.config.headers += SAFE_HEADERS + (HTTPS_HEADERS if self.cfg.is_ssl else [])
        logging.getLogger("uvicorn.error").setLevel(max(self.log.error_log.level, logging.WARNING))

    @property
    def is_ending(self) -> bool:
        """Whether it has been told to leave or to stop."""
        return self._server is not None and self._server.is_ending

    @property
    def limits(self) -> Limits:
        """Those of our settings; the defaults where gunicorn runs another application in this worker."""
        settings: Settings = getattr(self.app, "settings", Settings())
        return settings.limits

    def ask_for_replacement(self, reason: str) -> None:
        """Let the arbiter put another worker in the place of this one, which goes on meanwhile."""
        self.why_replace.value = REASONS.index(reason)

    def init_signals(self) -> None:
        """As the parent does; a SIGHUP to a whole group of processes, as of a terminal, is the arbiter's affair."""
        super().init_signals()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        take_signals()

    async def _serve(self) -> None:
        """As the parent does, with a server that drains."""
        # a thread that loads a model must not hold up an answer for the 5 ms of Python's default, a few times over
        sys.setswitchinterval(SWITCH_SECONDS)
        self.app.worker = self
        self.config.app = self.wsgi
        self._server = server = DrainingServer(self)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(LEAVE, server.leave)
        loop.add_signal_handler(signal.SIGQUIT, server.quit)  # the parent's handler tells only gunicorn's own workers
        await server.serve(sockets=self.sockets)
        if not server.started and not server.is_ending:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
        if server.is_ending:
            # at once, as uvicorn ends a worker after SIGTERM: C++ libraries do not all survive Python's own end, and a
            # thread that still scores would be waited for
            logging.shutdown()
            os._exit(0)


class DrainingServer(uvicorn.Server):
    """Goes on listening after SIGTERM until the predictions under way are answered, and says 503 meanwhile.

    After that it answers what comes over the connections it has, with `Connection: close`, and ends once there are none
    or `IDLE_SECONDS` have passed. Told to leave, it refuses nothing: others listen, so it answers what comes over the
    connections it has, and ends once there are none.

    Parameters
    ----------
    worker : Worker
    """

    def __init__(self, worker: Worker) -> None:
        super().__init__(worker.config)
        self._worker, self._parent = worker, os.getppid()
        self._sweeper = Sweeper(worker.limits.client_seconds)
        self._drain_until: float | None = None
        self._leave_until: float | None = None
        self._idle_until = 0.0
        self._is_limit_moot = False

    @property
    def is_ending(self) -> bool:
        """Whether it has been told to leave or to stop."""
        return self.should_exit or self._leave_until is not None

    def leave(self) -> None:
        """Take no new connection, and end once those there are have been answered."""
        if self._leave_until is not None:
            return
        now = time.monotonic()
        self._leave_until, self._idle_until = now + self._drain_seconds, now + IDLE_SECONDS
        if not self.started:
            self.should_exit = True
            return
        for server in self.servers:
            server.close()
        if self._ours is not None:
            self._ours.is_leaving = True

    def quit(self) -> None:
        """End within a second: what is under way is not waited for, but what was recorded is kept."""
        self.should_exit, self._drain_until = True, time.monotonic()
        if self._ours is not None:
            self._ours.predictor.drain()
            self._ours.is_leaving = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As the parent does, and accept on the admin socket, too: without TLS, and with an application of its own."""
        await super().startup(sockets)
        admin: AdminListener | None = getattr(self._worker.app, "admin", None)
        if admin is None or self._ours is None or self._ours.admin_app is None:
            return
        protocol = partial(
            AdminProtocol,
            self._ours.admin_app,
            self._worker.limits,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        # from Python 3.13 on, the first worker that closes it would remove it
        kept: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
        listening = socket.socket(fileno=os.dup(admin.descriptor))
        server = await asyncio.get_running_loop().create_unix_server(protocol, sock=listening, **kept)
        self.servers.append(server)
        if self.is_ending:
            server.close()

    async def on_tick(self, counter: int) -> bool:
        """Say, ten times a second, whether to stop now."""
        if counter % 10 == 0:
            self._sweeper.sweep(cast("set[Protocol]", self.server_state.connections))
            self._look_around()
        if self._leave_until is not None and not self.should_exit:
            self._go_on_leaving(self._leave_until)
        if self.should_exit and not self.force_exit:
            if self._drain_until is None:
                self._drain_until = time.monotonic() + self._drain_seconds
                if self._ours is not None:
                    self._ours.predictor.drain()
                    self._ours.is_leaving = True
            left = self._drain_until - time.monotonic()
            if self._ours is not None and left > 0 and not self._is_drained(self._ours):
                return False
            self.config.timeout_graceful_shutdown = max(1, round(left))  # all of it is to be over by then
        return await super().on_tick(counter)

    @property
    def _ours(self) -> Server | None:
        server: Server | None = self.lifespan.state.get("server")
        return server

    @property
    def _drain_seconds(self) -> float:
        return self._worker.cfg.graceful_timeout or 0

    def _is_drained(self, ours: Server) -> bool:
        """Whether the predictions are answered, and the clients that are connected have had time to ask once more."""
        if not ours.predictor.is_idle:
            return False
        if not self._idle_until:
            self._idle_until = time.monotonic() + IDLE_SECONDS
            for server in self.servers:
                server.close()
        return not self.server_state.connections or time.monotonic() > self._idle_until

    def _look_around(self) -> None:
        """Once a second: what the arbiter is to know, and whether there still is one."""
        if os.getppid() != self._parent and not self.should_exit:
            logger.error("the arbiter is gone: this worker ends, so that another server can listen")
            self.should_exit = True
        ours = self._ours
        if ours is None or self.is_ending:
            return
        if not self._worker.is_ready.value:
            self._worker.is_ready.value = ours.health.not_ready() is None
            self._watch_memory(ours, is_new=bool(self._worker.is_ready.value))
        elif not self._worker.why_replace.value:
            self._watch_memory(ours, is_new=False)

    def _watch_memory(self, ours: Server, is_new: bool) -> None:
        limit = ours.settings.limits.worker_memory
        if limit is None or self._is_limit_moot or (taken := resident_bytes()) <= limit:
            return
        if is_new:
            self._is_limit_moot = True
            logger.error(
                "limits.worker_memory (%d bytes) is less than a worker takes when it starts (%d): it is not heeded",
                limit,
                taken,
            )
        elif self._worker.is_ready.value:
            self._worker.ask_for_replacement("memory")

    def _go_on_leaving(self, until: float) -> None:
        now = time.monotonic()
        if now > self._idle_until:
            for connection in list(self.server_state.connections):
                connection.shutdown()  # at once if it is idle, else after its answer
        if not self.server_state.connections or now > until:
            self.should_exit = True
