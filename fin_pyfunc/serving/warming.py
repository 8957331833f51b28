"""What is imported once before the fork, so that workers share the memory of it; nothing is opened."""

from __future__ import annotations

import os
import re
import sys
from importlib import import_module
from importlib.util import find_spec

from fin_pyfunc.serving.settings import Settings

#: What every server needs.
SERVING = (
    "fin_pyfunc.model.backends.forest",
    "onnxruntime",
    "uvicorn.lifespan.on",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
)
#: What asks MLflow and fetches its models.
MLFLOW = ("mlflow.artifacts", "mlflow.pyfunc.scoring_server", "mlflow.tracking")
#: What asks a database of MLflow's without a server before it.
DATABASE = (
    "alembic.command",
    "alembic.config",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_workspace_store",
    "sqlalchemy.dialects.sqlite",
)


def warm(settings: Settings) -> None:
    """Import what every worker needs.

    A single worker shares its imports with nobody, and MLflow's take longer than all else that a start does: where the
    model is a local file or folder, it answers first, and MLflow is imported beside that.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a server tells nobody what it serves
    names = [*SERVING]
    if find_spec("uvloop") is not None:  # which uvicorn takes where it is there, and imports in each worker
        names.append("uvloop")
    if settings.workers > 1 or (settings.model_uri or "").startswith(("models:", "runs:")):
        names += MLFLOW
        # MLflow's own default is a database, too
        if re.match(r"(sqlite|postgres|mysql|mssql)", settings.mlflow.tracking_uri or "sqlite"):
            names += DATABASE
    for name in names:
        import_module(name)
    if "sqlalchemy" in sys.modules:
        import_module("sqlalchemy.orm").configure_mappers()  # which every worker would do by itself
