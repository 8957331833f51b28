"""Serve MLflow classifiers in finance: log a fitted classifier once, and every MLflow way of running it answers alike.

Importing this imports nothing heavy; the functions below bring in MLflow and pandas when they are first named.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fin_pyfunc._version import __version__

if TYPE_CHECKING:
    from fin_pyfunc.authoring.log import log_model, save_model
    from fin_pyfunc.model.wrapper import FinPyfuncModel, load_model

__all__ = ["FinPyfuncModel", "__version__", "load_model", "log_model", "save_model"]

# ONNX Runtime (1.29 and later) tells Microsoft the names and digests of models, unless this is there before its import
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "FinPyfuncModel": "fin_pyfunc.model.wrapper",
    "load_model": "fin_pyfunc.model.wrapper",
    "log_model": "fin_pyfunc.authoring.log",
    "save_model": "fin_pyfunc.authoring.log",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fin_pyfunc' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
