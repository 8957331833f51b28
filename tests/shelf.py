"""A shelf of logged models for the server's tests: one of each kind that a server meets, logged once a session."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle
import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

import fin_pyfunc
from tests.conftest import tracking_to
from tests.models import bars, bars_with_gaps, labels

EXPERIMENT = "financial_ml"
IDENTIFIER = "bar_id"


class Shelf(NamedTuple):
    """Where the models are, and the estimators they were made from."""

    tracking_uri: str
    uris: dict[str, str]
    run_ids: dict[str, str]
    estimators: dict[str, Any]
    folder: Path


class Fails:
    """A user's own classifier that raises on rows it does not like, with the row in the message."""

    classes_ = np.array([-1, 1])

    def predict(self, X: pd.DataFrame) -> np.ndarray[Any, Any]:
        if (X["spread"] > 100).any():
            raise ValueError(f"cannot score {X['spread'].tolist()} in /srv/secret/place")
        return np.where(X["return_1"] > 0, 1, -1)


class Sleeps:
    """A user's own classifier that takes as long as a feature says, in seconds."""

    classes_ = np.array([-1, 1])

    def predict(self, X: pd.DataFrame) -> np.ndarray[Any, Any]:
        time.sleep(float(X["spread"].clip(0, 10).max()))
        return np.where(X["return_1"] > 0, 1, -1)


class Echo(mlflow.pyfunc.PythonModel):
    """Somebody else's pyfunc: labels, no probabilities, no word of ours."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> list[str]:
        return ["up" if value > 0 else "down" for value in model_input["return_1"]]


def fill(tracking_uri: str, artifact_root: Path, folder: Path) -> Shelf:
    """Log one model of each kind."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # as if the classes stood in a notebook
    with tracking_to(tracking_uri):
        return _fill(tracking_uri, artifact_root, folder)


def _fill(tracking_uri: str, artifact_root: Path, folder: Path) -> Shelf:
    experiment = mlflow.create_experiment(EXPERIMENT, artifact_location=artifact_root.as_uri())
    X, y = bars(), labels(-1, 0, 1)
    with_id = X.assign(**{IDENTIFIER: range(12345, 12345 + len(X))})
    estimators: dict[str, Any] = {
        "forest": RandomForestClassifier(20, random_state=0).fit(X, y),
        "words": LogisticRegression().fit(X, labels("down", "flat", "up")),
        "margin": LinearSVC().fit(X, labels(-1, 1)),
        "gaps": RandomForestClassifier(5, random_state=1).fit(bars_with_gaps(), y),
        "strict": LogisticRegression().fit(X, y),
        "fails": Fails(),
        "sleeps": Sleeps(),
        "sklearn": RandomForestClassifier(5, random_state=2).fit(X, y),
        "unsigned": LogisticRegression(C=2).fit(X, y),
        "artifact": RandomForestClassifier(5, random_state=3).fit(X, y),
    }
    own = {"serialization": "cloudpickle"}
    log = fin_pyfunc.log_model
    infos: dict[str, Any] = {}
    runs: dict[str, str] = {}
    loggers = {
        "forest": lambda e: log(e, with_id, identifiers=[IDENTIFIER], registered_model_name="eurusd_rf"),
        "words": lambda e: log(e, X, confidence={"high": 0.5, "medium": 0.4}),
        "margin": lambda e: log(e, X),
        "gaps": lambda e: log(e, bars_with_gaps()),
        "strict": lambda e: log(e, with_id, identifiers=[IDENTIFIER], extra="forbid"),
        "fails": lambda e: log(e, X, **own),
        "sleeps": lambda e: log(e, X.assign(spread=0.0), **own),
        "sklearn": lambda e: mlflow.sklearn.log_model(
            e, name="model", input_example=X.head(2), serialization_format="cloudpickle"
        ),
        "unsigned": lambda e: mlflow.sklearn.log_model(e, name="model"),
    }
    for kind, logger in loggers.items():
        with mlflow.start_run(experiment_id=experiment, run_name=kind) as run:
            mlflow.log_params({"n_estimators": 20, "kind": kind})
            mlflow.log_metric("accuracy", 0.85)
            mlflow.set_tag("asset", "EURUSD")
            infos[kind], runs[kind] = logger(estimators[kind]), run.info.run_id
    with mlflow.start_run(experiment_id=experiment, run_name="echo") as run:
        infos["echo"] = mlflow.pyfunc.log_model(name="model", python_model=Echo())
        runs["echo"] = run.info.run_id
    with mlflow.start_run(
        experiment_id=experiment, run_name="artifact"
    ) as run:  # as MLflow 2 stored models: files of the run
        fin_pyfunc.save_model(estimators["artifact"], X, folder / "saved")
        mlflow.log_artifacts(str(folder / "saved"), "model")
        mlflow.set_tag("mlflow.log-model.history", json.dumps([{"artifact_path": "model", "flavors": {}}]))
        runs["artifact"] = run.info.run_id
    MlflowClient().set_registered_model_alias("eurusd_rf", "champion", "1")
    uris = {kind: f"runs:/{run_id}/model" for kind, run_id in runs.items()}
    return Shelf(tracking_uri, uris, runs, estimators, folder)
