"""Import heavy libraries once, on one thread, before anything listens; opens no files or connections.

Called before the fork, so that workers share the memory of the libraries, and again when an application starts, which
need not be a child of our arbiter. MLflow's modules import each other in circles: if two threads import them at once,
one gets a module that is not initialized yet. So no request, health check or model load may be the first to import them
(`tests/test_imports.py`). scikit-learn and skops are not imported here: a server of compiled models needs neither, and
they take 90 MB. `model.library_imports` keeps their import to one thread.
"""

from __future__ import annotations

import contextlib
import os
import pkgutil
from importlib import import_module

from fin_pyfunc.model.store_database import is_database, read_revisions
from fin_pyfunc.serving.settings import Settings

#: What every server needs.
SERVING = (
    "fin_pyfunc.model.backends.trees",
    "onnxruntime",
    "pyarrow.compute",
    "pyarrow.csv",
    "pyarrow.parquet",
    "uvicorn.lifespan.on",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
)
#: What its libraries import late, by private names that other versions of them may not have.
LATE = ("pandas.core.methods.to_dict", "pyarrow.pandas_compat", "pyarrow.vendored.version", "uvloop")
#: What asks MLflow, fetches its models and opens them, whichever store it is.
MLFLOW = (
    "mlflow.artifacts",
    "mlflow.models",
    "mlflow.onnx",
    "mlflow.pyfunc.scoring_server",
    "mlflow.sklearn",
    "mlflow.store.tracking.file_store",
    "mlflow.tracking",
    "mlflow.tracking.request_header.registry",
    "mlflow.tracking.request_header.databricks_request_header_provider",
    "mlflow.tracking.request_header.default_request_header_provider",
    "mlflow.utils.search_logged_model_utils",
    "sqlalchemy.engine",
    "sqlalchemy.exc",
)
#: What asks a database of MLflow's without a server before it.
DATABASE = (
    "alembic.command",
    "alembic.config",
    "mlflow.store.db",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_workspace_store",
    "mlflow.store.tracking.sqlalchemy_workspace_store",
    "sqlalchemy.orm",
)


def warm(settings: Settings) -> None:
    """Import what any request may need.

    Parameters
    ----------
    settings : Settings
        Its `mlflow.tracking_uri` says whether the store is a database.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a server tells nobody what it serves
    for name in (*SERVING, "mlflow"):
        import_module(name)
    _import_present(*LATE, *MLFLOW)
    _make_store_table()
    for uri in filter(is_database, store_uris(settings)):
        _warm_database(uri)


def _make_store_table() -> None:
    """Have MLflow make its table of registry stores, of which a second thread could see a half (mlflow#11283)."""
    with contextlib.suppress(ImportError, AttributeError):  # private: other versions may have no such function
        from mlflow.tracking._model_registry import utils

        utils._get_store_registry()


def store_uris(settings: Settings) -> set[str]:
    """Return the addresses of the tracking store and of the registry, by MLflow's own rules where none is set."""
    import mlflow

    uri = settings.mlflow.tracking_uri or mlflow.get_tracking_uri()
    return {uri, os.environ.get("MLFLOW_REGISTRY_URI") or uri}


def _warm_database(uri: str) -> None:
    _import_present(*DATABASE)
    schema = import_module("mlflow.store.db")  # some of its modules are named for a version of the tables
    _import_present(*(module.name for module in pkgutil.iter_modules(schema.__path__, f"{schema.__name__}.")))
    from sqlalchemy.engine import make_url
    from sqlalchemy.orm import configure_mappers

    configure_mappers()  # which every worker would do by itself
    read_revisions()
    # a wrong address or a missing driver is the store's to report, when it is asked
    with contextlib.suppress(Exception):
        make_url(uri).get_dialect().import_dbapi()


def _import_present(*names: str) -> None:
    for name in names:
        with contextlib.suppress(ModuleNotFoundError):
            import_module(name)
