"""Import the large libraries that a model needs, one thread at a time."""

from __future__ import annotations

import threading
from importlib import import_module

_lock = threading.Lock()
_imported: set[str] = set()


def import_libraries(*names: str) -> None:
    """Import modules under one lock for the whole process.

    Python's own locks are one a module. Where two threads enter a package with circular imports by different modules,
    Python breaks the deadlock by handing one of them a module that is not initialized yet, and its import fails.

    Parameters
    ----------
    *names : str
        Modules, such as ``skops.io``.

    Raises
    ------
    ImportError
        One of them is not installed.
    """
    if _imported.issuperset(names):
        return
    with _lock:
        for name in names:
            import_module(name)
            _imported.add(name)
