"""Which backend computes how many rows on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from fin_pyfunc.model.backends import Backend
from fin_pyfunc.model.decision import Scores
from fin_pyfunc.model.device import gpu_refusal
from fin_pyfunc.model.errors import BackendError
from fin_pyfunc.model.features import Table

#: What `backend=` takes besides a backend's own name.
DEVICES = ("auto", "cpu", "gpu")


class Dispatch:
    """Sends a table to the backend that is to compute it.

    Parameters
    ----------
    backends : sequence of Backend
        Those this machine can run for this model, the one to prefer first.
    wanted : str, default "auto"
        "auto", "cpu", "gpu", or a backend's name.

    Raises
    ------
    BackendError
        What was asked for cannot be had; it is never quietly replaced.
    """

    def __init__(self, backends: Sequence[Backend], wanted: str = "auto") -> None:
        self.wanted = wanted
        if wanted == "gpu" and (refusal := gpu_refusal()):
            raise BackendError(f"backend 'gpu' was asked for, but {refusal}; use backend='auto' or 'cpu'.")
        fitting = [b for b in backends if wanted == "auto" or wanted in (b.name, b.device)]
        if not fitting:
            names = ", ".join(repr(name) for name in (*DEVICES, *(b.name for b in backends)))
            raise BackendError(f"backend {wanted!r} is not available for this model; expected one of {names}.")
        self.backends = tuple(fitting)

    def choose(self, n_rows: int) -> Backend:  # noqa: ARG002 - one backend so far: the measured plan comes with the second
        """The backend for this many rows."""
        return self.backends[0]

    def score(self, table: Table) -> tuple[Scores, str]:
        """Scores of a table, and the name of the backend that computed them."""
        backend = self.choose(len(table))
        return backend.score(table), backend.name
