"""The demo model in an MLflow store: trained, logged with its metrics, and registered under an alias."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fin_pyfunc.authoring.files import DEFAULT_EXPERIMENT, experiment_id
from fin_pyfunc.authoring.log import log_model
from fin_pyfunc.demo.bars import FEATURES, IDENTIFIER, LABEL, holdout, make_bars, train


class Registered(NamedTuple):
    """What `log_demo` made."""

    version: str
    accuracy: float


def version_of(name: str, alias: str) -> str | None:
    """The registered version that an alias means in MLflow's current store, or None."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        return str(MlflowClient().get_model_version_by_alias(name, alias).version)
    except MlflowException as e:
        if e.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def log_demo(
    name: str,
    alias: str,
    experiment_name: str = DEFAULT_EXPERIMENT,
    trees: int = 200,
    on_trees: Callable[[int], None] | None = None,
    on_step: Callable[[str], None] | None = None,
) -> Registered:
    """Train the demo forest, log it to MLflow's current store and register it.

    Parameters
    ----------
    name, alias : str
        Registered model, and the alias that then means the new version.
    experiment_name : str, default "financial_ml"
        Made where it is missing; a local store then keeps its artifacts in ``./mlartifacts``.
    trees : int, default 200
    on_trees : callable, optional
        Called with the number of trees just grown.
    on_step : callable, optional
        Called with a few words before each further step.

    Returns
    -------
    Registered
        The version, and the accuracy on held-out bars in [0, 1].
    """
    import mlflow
    from mlflow import MlflowClient

    say = on_step or (lambda _: None)
    training, testing = holdout(make_bars())
    forest = train(training, n_estimators=trees, progress=on_trees)
    accuracy = float(forest.score(testing[list(FEATURES)], testing[LABEL]))
    say("logging the model (its answers are compared with the forest's own)")
    client = MlflowClient()
    with mlflow.start_run(experiment_id=experiment_id(client, experiment_name), run_name=f"{name} demo"):
        mlflow.log_params({"n_estimators": trees, "n_train": len(training)})
        mlflow.log_metric("accuracy", accuracy)
        mlflow.set_tag("asset", "EURUSD")
        info = log_model(
            forest,
            training[[IDENTIFIER, *FEATURES]],
            identifiers=[IDENTIFIER],
            registered_model_name=name,
        )
    version = str(info.registered_model_version)
    client.set_registered_model_alias(name, alias, version)
    return Registered(version, accuracy)
