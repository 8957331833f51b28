"""Which backend was asked for, of all who may ask: the nearest to the running process wins."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

#: Environment variable that asks for a backend wherever a model is loaded: a notebook, MLflow's server, ours, Spark.
VARIABLE = "FIN_PYFUNC_BACKEND"
#: What the code that has MLflow load a model asks for, which MLflow itself cannot be told apart from the model's own.
_ASKED: ContextVar[str | None] = ContextVar("backend", default=None)


def nearest(given: str | None, configured: str | None = None) -> str | None:
    """The backend to load a model with.

    Parameters
    ----------
    given : str or None
        What this very call asks for: an argument, an option, a server's setting.
    configured : str or None, default None
        What travels with the model: its default, or MLflow's `model_config`.

    Returns
    -------
    str or None
        `given`, else what `asking_for` holds, else the environment's, else `configured`.
    """
    return given or _ASKED.get() or os.environ.get(VARIABLE) or configured


@contextmanager
def asking_for(backend: str | None) -> Iterator[None]:
    """Have models that are loaded within, by whomever, take this backend; None asks for nothing."""
    token = _ASKED.set(backend)
    try:
        yield
    finally:
        _ASKED.reset(token)
