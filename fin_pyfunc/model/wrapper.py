"""The model as MLflow, our server and a notebook run it: validate, dispatch, decide, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

from fin_pyfunc.model import artifact, estimators
from fin_pyfunc.model.backends.native import NativeBackend
from fin_pyfunc.model.decision import Decisions, Thresholds
from fin_pyfunc.model.dispatch import Dispatch
from fin_pyfunc.model.errors import ArtifactError
from fin_pyfunc.model.features import FeatureSpec


class FinPyfuncModel(PythonModel):  # type: ignore[misc] # mlflow ships no types
    """A fitted classifier with its feature checks, its dispatch and its confidence thresholds.

    MLflow makes one with no arguments and calls `load_context`; `fin_pyfunc.load_model` is the way to get one by hand.

    Attributes
    ----------
    features : FeatureSpec or None
        None only for a foreign model that says nothing of its features.
    thresholds : Thresholds
    dispatch : Dispatch
    manifest : Manifest or None
        None for a model that was not logged by this project.
    """

    features: FeatureSpec | None
    thresholds: Thresholds
    dispatch: Dispatch
    manifest: artifact.Manifest | None

    @classmethod
    def of(
        cls, features: FeatureSpec | None, dispatch: Dispatch, thresholds: Thresholds | None = None
    ) -> FinPyfuncModel:
        """Wrap a model that was not logged by this project."""
        model = cls()
        model.features, model.dispatch, model.manifest = features, dispatch, None
        model.thresholds = thresholds or Thresholds()
        return model

    def load_context(self, context: PythonModelContext) -> None:
        """Open the artifact; MLflow calls this once, after `__init__`."""
        config = context.model_config or {}
        self.open(Path(context.artifacts[artifact.NAME]), config.get("backend"))

    def open(self, folder: Path, backend: str | None = None) -> None:
        """Open an artifact folder.

        Parameters
        ----------
        folder : Path
            Holds `manifest.json`.
        backend : str, optional
            "auto", "cpu", "gpu" or a backend's name; default the one chosen when logging.

        Raises
        ------
        ArtifactError, FormatError, BackendError
        """
        manifest = artifact.read(folder)
        file = estimators.FILE_NAMES[manifest.serialization]
        if file not in manifest.files:
            raise ArtifactError(f"The model's manifest does not name its estimator file {file!r}: log the model again.")
        estimator = estimators.load(folder / file, manifest.serialization)
        native = NativeBackend(estimator, manifest.features, manifest.classes)
        self.manifest, self.features, self.thresholds = manifest, manifest.features, manifest.thresholds
        self.dispatch = Dispatch([native], backend or manifest.backend)

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Classify the rows of a DataFrame.

        Parameters
        ----------
        model_input : DataFrame of shape (n_rows, n_features)
            Columns in any order; identifiers and, by default, further columns are ignored.
        params : dict, optional
            ``{"return_proba": bool}``; default True.

        Returns
        -------
        DataFrame of shape (n_rows, 3 + n_classes)
            `prediction`, `probability` (of that class), `confidence` ("high", "medium", "low", or "unknown"), and one
            `probability_<label>` a class; without the probabilities where `return_proba` is false or there are none.

        Raises
        ------
        FeatureError
            Naming every feature of every row that was refused.
        ScoringError
            The estimator itself failed.
        """
        if not isinstance(model_input, pd.DataFrame):
            raise TypeError(f"predict takes a DataFrame, one column a feature, not {type(model_input).__name__}")
        table = model_input if self.features is None else self.features.check(model_input)
        return_proba = bool((params or {}).get("return_proba", True))
        return self._decide(table).frame(return_proba, model_input.index)

    def predict_one(self, features: Mapping[str, Any], return_proba: bool = True) -> dict[str, Any]:
        """Classify one row.

        Parameters
        ----------
        features : mapping
            Feature name to number, text, boolean or None, in any order.
        return_proba : bool, default True
            Fill `probability` and `probabilities`.

        Returns
        -------
        dict
            `prediction`, `probability`, `probabilities` and `confidence`, as ``POST /predict`` answers.

        Raises
        ------
        FeatureError, ScoringError
        """
        if not isinstance(features, Mapping):
            raise TypeError(f"predict_one takes a dict of feature name to value, not {type(features).__name__}")
        return self.decide([features]).one(return_proba)

    def __repr__(self) -> str:
        manifest = getattr(self, "manifest", None)
        if manifest is None:
            return f"{type(self).__name__}()"
        names = ", ".join(manifest.features.names)
        return f"{type(self).__name__}({manifest.estimator}, features=[{names}], classes={manifest.classes})"

    def decide(self, rows: Sequence[Mapping[str, Any]]) -> Decisions:
        """Classify rows as a client sends them; what the server calls.

        Raises
        ------
        FeatureError, ScoringError
        """
        table = pd.DataFrame.from_records(list(rows)) if self.features is None else self.features.table(rows)
        return self._decide(table)

    def _decide(self, table: Any) -> Decisions:
        scores, backend = self.dispatch.score(table)
        return Decisions(scores, self.thresholds, backend)


def load_model(model_uri: str, *, backend: str | None = None) -> FinPyfuncModel:
    """Load a model that `log_model` or `save_model` wrote.

    Parameters
    ----------
    model_uri : str
        Whatever MLflow takes: ``runs:/…``, ``models:/…``, a local path, …
    backend : str, optional
        "auto", "cpu", "gpu" or a backend's name; default the one chosen when logging.

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
    """
    import mlflow.pyfunc
    from mlflow.exceptions import MlflowException

    config = None if backend is None else {"backend": backend}
    loaded = mlflow.pyfunc.load_model(model_uri, model_config=config)
    try:
        model = loaded.unwrap_python_model()
    except MlflowException:  # a flavour without a PythonModel
        model = None
    if not isinstance(model, FinPyfuncModel):
        raise ArtifactError(
            "This model was not logged by fin_pyfunc: log it with fin_pyfunc.log_model, or load it with MLflow."
        )
    return model
