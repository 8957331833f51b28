"""gunicorn's arbiter, under which no request is lost when workers are replaced.

A worker is never ended to make room: the new one is started beside it, and once that answers, the old one is told to
leave (SIGUSR2): it takes no new connections, answers what comes over those it has, asks each client to connect anew,
and ends. SIGHUP replaces all workers so, by new code and configuration, after both were tried out in a process of their
own. SIGTERM alone is for the end of the whole server.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import time
from typing import TYPE_CHECKING, Any

from gunicorn import sock
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from fin_pyfunc.model.errors import FinPyfuncError
from fin_pyfunc.serving.life import succession
from fin_pyfunc.serving.metrics import definitions as m
from fin_pyfunc.serving.metrics import folder as folders

if TYPE_CHECKING:
    from fin_pyfunc.serving.gunicorn_app import GunicornApp

logger = logging.getLogger("fin_pyfunc.server")

#: Tells a worker to leave.
LEAVE = signal.SIGUSR2
#: Why a worker may ask for another in its place; the first is that it does not.
REASONS = ("", "memory", "stuck")
_SAID = {
    "memory": "it takes more than limits.worker_memory",
    "stuck": "too many of its scoring threads do not come back",
}
#: Seconds that a worker gets, beyond those to finish in, before it is killed.
GRACE_SECONDS = 5.0


class _Leaving:
    """A worker that goes once others are ready.

    Parameters
    ----------
    pid : int
    drain_seconds : int
    reason : str
        Why it leaves, for the metric.
    """

    def __init__(self, pid: int, drain_seconds: int, reason: str) -> None:
        self.pid, self.drain_seconds, self.reason = pid, drain_seconds, reason
        #: when it will be killed; None until it has been told to leave
        self.deadline: float | None = None


class ReplacingArbiter(Arbiter):  # type: ignore[misc] # no types
    """The parent of all workers.

    Parameters
    ----------
    app : GunicornApp
    estate : Estate or None
        What the arbiter before this one has left.
    """

    def __init__(self, app: GunicornApp, estate: succession.Estate | None) -> None:
        self._trial: succession.Trial | None = None
        self._is_stopping = self._is_asked_again = False
        self._leaving: dict[int, _Leaving] = {}
        self._estate = estate
        super().__init__(app)
        if estate is not None:
            self._leaving = {pid: _Leaving(pid, estate.drain_seconds, "reload") for pid in estate.workers}

    def start(self) -> None:
        """As the parent does, on the sockets that were listened on before if they are still wanted."""
        if self._estate is not None:
            if self._estate.bind == _bind(self.cfg):
                self.LISTENERS = sock.create_sockets(self.cfg, self.log, self._estate.listeners)
            else:
                for descriptor in self._estate.listeners:
                    os.close(descriptor)
        super().start()
        self.app.listen_for_operators(self.LISTENERS[0].getsockname()[1])

    def init_signals(self) -> None:
        """As the parent does; then come those that were sent while this program started."""
        super().init_signals()
        succession.take_signals()

    def handle_hup(self) -> None:
        """Try the new code and configuration out; `manage_workers` goes on from there."""
        if self._trial is not None:
            self._is_asked_again = True
            return
        logger.info("SIGHUP: trying the new configuration and code out; the workers go on meanwhile")
        self._trial = succession.Trial(_bind(self.cfg), self.cfg.env_orig)

    def handle_usr2(self) -> None:
        """Nothing: gunicorn would start a second arbiter, which SIGHUP makes needless."""
        logger.warning("SIGUSR2 does nothing: SIGHUP takes new code and configuration")

    def manage_workers(self) -> None:
        """As the parent does, in every turn of its loop; and see to those that come and go."""
        for pid, worker in list(self.WORKERS.items()):
            if worker.why_replace.value:
                reason = REASONS[worker.why_replace.value]
                self._leaving[pid] = _Leaving(pid, self.cfg.graceful_timeout, reason)
                del self.WORKERS[pid]
                worker.tmp.close()
                logger.warning("another worker takes the place of %d: %s", pid, _SAID[reason])
        super().manage_workers()
        are_ready = [bool(worker.is_ready.value) for worker in self.WORKERS.values()]
        self.app.note_serving(sum(are_ready) + len(self._leaving))
        if all(are_ready) and len(are_ready) >= self.num_workers:
            self._let_go()
        self._end_overdue()
        if self._trial is not None and self._trial.is_over():
            self._after_trial(self._trial)

    def spawn_worker(self) -> int:
        """As the parent does; a signal that is sent to the worker before it takes any waits until it does."""
        succession.hold_signals()
        try:
            pid: int = super().spawn_worker()
            return pid
        finally:
            succession.take_signals()

    def wait_for_signals(self, timeout: float = 1.0) -> list[Any]:
        """As the parent does; with something under way, look more often."""
        if self._leaving or self._trial is not None or not all(w.is_ready.value for w in self.WORKERS.values()):
            timeout = 0.1
        signals: list[Any] = super().wait_for_signals(timeout)
        return signals

    def kill_worker(self, pid: int, sig: int) -> None:
        """As the parent does; but one worker too many leaves rather than refusing what it is asked."""
        super().kill_worker(pid, LEAVE if sig == signal.SIGTERM and not self._is_stopping else sig)

    def reap_workers(self) -> None:
        """Collect what has ended: those that leave, the trial, then, as the parent does, all others."""
        for pid in list(self._leaving):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG) == (0, 0):
                    continue
            self._bury(pid, self._leaving.pop(pid).reason)
        if self._trial is not None:
            self._trial.is_over()  # lets Popen collect it
        try:
            super().reap_workers()
        except HaltServer:
            if not self._is_stopping:  # else it stops already, for what another worker has said
                raise

    def halt(self, reason: str | None = None, exit_status: int = 0) -> None:
        """As the parent does; a start that failed ends with our reason instead of with gunicorn's.

        Raises
        ------
        FinPyfuncError
            A worker could not be started.
        """
        if exit_status not in (self.APP_LOAD_ERROR, self.WORKER_BOOT_ERROR):
            super().halt(reason, exit_status)
        self.stop()
        raise FinPyfuncError(self.app.refusal)

    def stop(self, graceful: bool = True) -> None:
        """As the parent does; those that leave stop with the others."""
        self._is_stopping = True
        if self._trial is not None:
            self._trial.stop()
        for leaving in self._leaving.values():
            self.WORKERS[leaving.pid] = _Stub(leaving.pid)
        self._leaving.clear()
        super().stop(graceful)

    def buried(self, worker: Any) -> None:
        """Called once a worker has ended and was collected."""
        self._bury(worker.pid, "stopped" if self._is_stopping else "died")

    def _bury(self, pid: int, reason: str) -> None:
        self.app.values.add(m.WORKER_EXITS, reason)
        self.app.values.flush()
        if self.app.values.folder is not None:
            folders.bury(self.app.values.folder, pid)

    def _let_go(self) -> None:
        for leaving in self._leaving.values():
            if leaving.deadline is None:
                logger.info("worker %d is told to leave: others are ready", leaving.pid)
                leaving.deadline = time.monotonic() + leaving.drain_seconds + GRACE_SECONDS
                _send(leaving.pid, LEAVE)

    def _end_overdue(self) -> None:
        for leaving in self._leaving.values():
            if leaving.deadline is not None and time.monotonic() > leaving.deadline:
                logger.error("worker %d has not left in time and is killed", leaving.pid)
                _send(leaving.pid, signal.SIGKILL)

    def _after_trial(self, trial: succession.Trial) -> None:
        self._trial = None
        refusal = trial.refusal()
        self.app.values.add(m.RELOADS, "taken" if refusal is None else "refused")
        self.app.values.flush()
        if refusal is not None:
            logger.error("SIGHUP: the new configuration or code is not taken, all goes on as it was: %s", refusal)
            if self._is_asked_again:
                self._is_asked_again = False
                self.handle_hup()
            return
        logger.info("SIGHUP: the new configuration and code are taken")
        estate = succession.Estate(
            bind=_bind(self.cfg),
            listeners=[listener.fileno() for listener in self.LISTENERS],
            workers=[*self.WORKERS, *self._leaving],
            drain_seconds=max([self.cfg.graceful_timeout, *(gone.drain_seconds for gone in self._leaving.values())]),
            folder=str(self.app.folder),
            admin=self.app.admin,
        )
        try:
            succession.start_again(estate, self.cfg.env_orig)
        except OSError as e:
            logger.error("SIGHUP: the program could not be started again, all goes on as it was: %s", e.strerror)


class _Stub:
    """Stands for a worker of the arbiter before this one, for as long as gunicorn waits for it to stop."""

    def __init__(self, pid: int) -> None:
        self.pid, self.age, self.aborted, self.tmp = pid, 0, False, self

    def close(self) -> None:
        """There is nothing to close."""


def _send(pid: int, sig: int) -> None:
    try:
        os.kill(pid, sig)
    except OSError as e:
        if e.errno != errno.ESRCH:
            raise


def _bind(cfg: Any) -> str:
    return ",".join(cfg.settings["bind"].get())
