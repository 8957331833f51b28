"""A model in a process of its own, as the rest of the server sees it."""

from __future__ import annotations

import weakref
from functools import partial
from typing import Literal

import numpy as np

from fin_pyfunc.host.opening import Described, Failure, Invoked
from fin_pyfunc.host.wire import MAX_TEXT, answer_bytes, read_invoked, read_scores, send_invocations, send_table
from fin_pyfunc.model.decision import Label, Scores
from fin_pyfunc.model.errors import DeviceError, HostedError, ScoringError
from fin_pyfunc.model.features import Table
from fin_pyfunc.serving.hosts.connection import HostConnection, Outage

#: Longest answer to the body of a request, for each byte of it, besides `MAX_TEXT`.
_ANSWER_FACTOR = 64


class HostedModel:
    """A model that a host has open; the host is let go when nothing refers to this any more.

    Parameters
    ----------
    connection : HostConnection
        Open.
    described : Described
        What the host says of the model.
    """

    def __init__(self, connection: HostConnection, described: Described) -> None:
        self.described = described
        self.device = connection.opening.device
        self._connection = connection
        self._close = weakref.finalize(self, connection.close)

    @property
    def backend(self) -> HostedBackend:
        """For the model's `Dispatch`."""
        return HostedBackend(self)

    @property
    def pid(self) -> int:
        """Process id of its host."""
        return self._connection.pid

    @property
    def outage(self) -> Outage | None:
        """Why it does not answer now; None while it does."""
        return self._connection.outage

    def score(self, table: Table) -> Scores:
        """Class and probabilities of each row; see `Backend.score`.

        Raises
        ------
        ScoringError, DeviceError, ModelUnavailableError
        """
        n_rows, described = len(table), self.described
        if not n_rows:
            p = np.empty((0, len(described.classes))) if described.has_proba else None
            return Scores(classes=described.classes, index=np.empty(0, np.intp), probabilities=p)
        if described.features is not None:
            table = described.features.decode(
                table
            )  # its environment may have another pandas, which restores otherwise
        answered = self._connection.ask(
            partial(send_table, table=table),
            partial(read_scores, n_rows=n_rows, described=described),
            answer_bytes(n_rows, described),
        )
        if isinstance(answered, Failure):
            cause = HostedError(f"\n{answered.trace}") if answered.trace else None
            raise (DeviceError if answered.kind == "device" else ScoringError)(answered.said) from cause
        return answered

    def invocations(self, content_type: str, body: bytes) -> Invoked:
        """Answer a request's body by MLflow's scoring server, in the host.

        Raises
        ------
        ModelUnavailableError
        """
        return self._connection.ask(
            partial(send_invocations, content_type=content_type, body=body),
            read_invoked,
            MAX_TEXT + _ANSWER_FACTOR * len(body),
        )

    def close(self) -> None:
        """Let go of the host; it ends when all who use it have."""
        self._close()


class HostedBackend:
    """Scores with a model in its host; never on an event loop.

    Parameters
    ----------
    model : HostedModel
    """

    def __init__(self, model: HostedModel) -> None:
        self.model = model
        self.device: Literal["cpu", "gpu"] = model.device
        self.name = "pyfunc" if model.described.kind == "pyfunc" else "native"

    @property
    def classes(self) -> list[Label]:
        """Labels of the scores' columns."""
        return self.model.described.classes

    @property
    def has_proba(self) -> bool:
        """Whether its scores have probabilities."""
        return self.model.described.has_proba

    @property
    def type_name(self) -> str:
        """Name of the estimator's class."""
        return self.model.described.type_name

    def score(self, table: Table) -> Scores:
        """Class and probabilities of each row; see `Backend.score`."""
        return self.model.score(table)
