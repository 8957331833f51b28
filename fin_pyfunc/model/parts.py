"""An estimator with some of the parts that it is made of exchanged for others, whatever it is that holds them."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

#: A part -> what is to be in its place, or None where it stays.
Instead = Callable[[Any], Any]


def exchanged(estimator: Any, instead: Instead) -> Any:
    """A copy of an estimator in which other parts stand for some.

    Parameters
    ----------
    estimator : object
        A Pipeline, a search, a vote of several, or the part itself; it is not modified.
    instead : callable
        Asked of every object that the estimator holds, but of no class.

    Returns
    -------
    object
    """
    import cloudpickle

    others: list[Any] = []

    class _Writer(cloudpickle.Pickler):  # type: ignore[misc] # it ships no types
        def persistent_id(self, part: Any) -> int | None:
            if isinstance(part, type) or not hasattr(part, "get_params"):
                return None
            other = instead(part)
            if other is None:
                return None
            others.append(other)
            return len(others) - 1

    class _Reader(pickle.Unpickler):
        def persistent_load(self, pid: Any) -> Any:
            return others[pid]

    written = io.BytesIO()
    _Writer(written).dump(estimator)
    written.seek(0)
    return _Reader(written).load()


def qualified_name(kind: type) -> str:
    """Module and name of a class."""
    return f"{kind.__module__}.{kind.__qualname__}"


def to_host(values: Any) -> Any:
    """An array in this machine's memory: cupy's arrays and cuDF's columns do not become one by themselves."""
    if isinstance(values, np.ndarray | dict | list | tuple):
        return values
    for method in ("get", "to_numpy"):  # cupy; cuDF, pandas
        if callable(move := getattr(values, method, None)):
            try:
                return move()
            except TypeError:  # a Series has a `get` of its own, which wants a key
                continue
    return values
