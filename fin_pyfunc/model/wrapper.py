"""The classifier as MLflow runs it, and the way to get one by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

from fin_pyfunc.model import artifact
from fin_pyfunc.model.choice import asking_for, nearest
from fin_pyfunc.model.classifier import Classifier
from fin_pyfunc.model.errors import ArtifactError
from fin_pyfunc.model.store_database import check_database, require_store


class FinPyfuncModel(Classifier, PythonModel):  # type: ignore[misc] # mlflow ships no types
    """A fitted classifier with its feature checks, its dispatch and its confidence thresholds.

    MLflow makes one with no arguments and calls `load_context`; `fin_pyfunc.load_model` is the way to get one by hand.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Open the artifact; MLflow calls this once, after `__init__`."""
        config = context.model_config or {}
        self.open(Path(context.artifacts[artifact.NAME]), nearest(None, config.get("backend")))

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """As `Classifier.predict`; here because MLflow looks at the signature of the class's own method."""
        return super().predict(model_input, params)


def load_model(model_uri: str, *, backend: str | None = None) -> FinPyfuncModel:
    """Load a model that `log_model` or `save_model` wrote.

    Parameters
    ----------
    model_uri : str
        Whatever MLflow takes: ``runs:/…``, ``models:/…``, a local path, …
    backend : str, optional
        "auto", "cpu", "gpu" or a backend's name; default what the environment variable ``FIN_PYFUNC_BACKEND`` holds,
        else the one chosen when logging.

    Returns
    -------
    FinPyfuncModel
        The wrapper itself, with ``predict(df)`` and ``predict_one(dict)``.

    Raises
    ------
    ArtifactError
        The model is not one of ours, or its files are damaged.
    BackendError
        The backend asked for cannot be had here.
    StoreUnavailableError
        The MLflow store is not there, or is of another version of MLflow: loading makes and migrates none.
    """
    import mlflow.pyfunc
    from mlflow.exceptions import MlflowException

    if model_uri.startswith(("models:", "runs:")):
        for uri in {mlflow.get_tracking_uri(), mlflow.get_registry_uri()}:
            require_store(uri)
            check_database(uri)
    with asking_for(backend):
        loaded = mlflow.pyfunc.load_model(model_uri)
    try:
        model = loaded.unwrap_python_model()
    except MlflowException:  # a flavour without a PythonModel
        model = None
    if not isinstance(model, FinPyfuncModel):
        raise ArtifactError(
            "This model was not logged by fin_pyfunc: log it with fin_pyfunc.log_model, or load it with MLflow."
        )
    return model
