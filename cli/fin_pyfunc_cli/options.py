"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def tracking_uri(command: F) -> F:
    """`--mlflow-tracking-uri`."""
    return click.option(
        "--mlflow-tracking-uri",
        "tracking_uri",
        metavar="URI",
        help="MLflow store or server. Default: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db in this folder.",
    )(command)


def experiment_name(command: F) -> F:
    """`--mlflow-experiment-name`."""
    return click.option(
        "--mlflow-experiment-name",
        "experiment_name",
        metavar="NAME",
        help="MLflow experiment. Default: MLFLOW_EXPERIMENT_NAME, else financial_ml.",
    )(command)


def backend(command: F) -> F:
    """`--backend`."""
    return click.option(
        "--backend",
        metavar="NAME",
        help="auto, cpu, gpu or a backend's name. Default: FIN_PYFUNC_BACKEND, else the model's own.",
    )(command)


def as_json(command: F) -> F:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def experiment(name: str | None) -> str:
    """The experiment that a command is about."""
    import os

    from fin_pyfunc.authoring.files import DEFAULT_EXPERIMENT

    return name or os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT


def use_store(tracking_uri: str | None, *, must_exist: bool = False) -> None:
    """Point MLflow at the store that a command was given, quietly and with bounded waits.

    A command that only reads asks that the store exists, or MLflow would make an empty one in this folder.
    """
    import logging
    import os

    import mlflow

    from fin_pyfunc.serving.store import allow_file_store, bound_mlflow_waits

    allow_file_store(os.environ, tracking_uri or os.environ.get("MLFLOW_TRACKING_URI"))
    bound_mlflow_waits(os.environ)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    if tracking_uri:
        mlflow.set_tracking_uri(tracking_uri)
    if must_exist:
        from fin_pyfunc.model.store_database import require_store

        require_store(mlflow.get_tracking_uri())


def ask_store() -> None:
    """Fail at once, in a command that logs, where MLflow does not answer; a store that is not there is made later."""
    import mlflow

    from fin_pyfunc.model.store_database import missing_file
    from fin_pyfunc.serving.store import Store

    if missing_file(mlflow.get_tracking_uri()) is None:
        Store(mlflow.get_tracking_uri()).ping()
