"""All models of one worker that run in processes of their own."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from weakref import WeakKeyDictionary

from fin_pyfunc.host.confinement import reduced
from fin_pyfunc.host.fork_client import ForkClient
from fin_pyfunc.host.lifeline import Lifeline
from fin_pyfunc.host.messages import Finished, Reason, Run
from fin_pyfunc.host.opening import Opening
from fin_pyfunc.serving.hosts.connection import HostConnection, Limits, Outage
from fin_pyfunc.serving.hosts.hosted_model import HostedModel
from fin_pyfunc.serving.metrics import definitions as m
from fin_pyfunc.serving.metrics.values import Values

logger = logging.getLogger("fin_pyfunc.server")

#: Added to the niceness of a process that compiles: those that answer come first.
COMPILE_NICE = 10


class Hosts:
    """Opens models in hosts. Safe for threads.

    Parameters
    ----------
    limits : Limits
    environment : sequence of str, default ()
        Names of environment variables that models may see besides the usual ones.
    lifeline : Lifeline, optional
        What all workers of one server were given by their parent; default one of this process's own.
    values : Values, optional
        Where ends of hosts are counted.
    """

    def __init__(
        self,
        limits: Limits,
        environment: Sequence[str] = (),
        lifeline: Lifeline | None = None,
        values: Values | None = None,
    ) -> None:
        self._limits, self._values = limits, values or Values(None)
        self._own = Lifeline() if lifeline is None else None
        self._client = ForkClient(lifeline or self._own or Lifeline(), reduced(os.environ, environment))
        self._names: WeakKeyDictionary[HostedModel, str] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._names)

    def start(self) -> None:
        """Start the fork server, so that the first model need not wait for its imports; does not wait itself.

        Raises
        ------
        ForkServerError
        """
        self._client.start()

    def open(self, opening: Opening, name: str) -> HostedModel:
        """Open a model in a host, and wait until it is open.

        Parameters
        ----------
        opening : Opening
        name : str
            The model's id, for the log and for `outages`.

        Raises
        ------
        ArtifactError, BackendError
            It cannot be opened.
        ModelUnavailableError
            Its process cannot be started, or does not answer in time.
        """
        connection = HostConnection(self._client, opening, name, self._limits, self._count)
        model = HostedModel(connection, connection.open())
        with self._lock:
            self._names[model] = name
        logger.info("%s runs in a process of its own, with pid %d", name, model.pid)
        return model

    def compile(self, folder: Path, seconds: float) -> Finished:
        """Do the compile job in a folder (see `fin_pyfunc.compiling.job`), and wait for its end.

        Raises
        ------
        ForkServerError
        """
        run = Run(
            target="fin_pyfunc.compiling.job:run",
            folder=str(folder),
            seconds=seconds,
            memory_bytes=self._limits.memory_bytes,
            nice=COMPILE_NICE,
        )
        return self._client.run(run)

    def outages(self) -> dict[str, Outage]:
        """Models whose process does not answer now, by name."""
        return {name: outage for model, name in self._all() if (outage := model.outage) is not None}

    def pids(self) -> dict[str, int]:
        """Process ids of the hosts, by the model's name."""
        return {name: model.pid for model, name in self._all()}

    def close(self) -> None:
        """Let go of all models."""
        for model, _ in self._all():
            model.close()
        if self._own is not None:
            self._own.close()

    def _all(self) -> list[tuple[HostedModel, str]]:
        with self._lock:
            return list(self._names.items())

    def _count(self, reason: Reason) -> None:
        self._values.add(m.HOST_RESTARTS, reason)
