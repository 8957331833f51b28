"""A registry of versions that differ, some of them bad, in a store of its own."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import cloudpickle
import mlflow
import pytest
from mlflow import MlflowClient
from sklearn.linear_model import LogisticRegression

import fin_pyfunc
import tests.shelf
from tests.conftest import tracking_to
from tests.models import bars, labels

NAME = "eurusd_lr"


class Registry(NamedTuple):
    """Versions 1 and 2 answer differently; 3 is damaged, and 4 disagrees with its own recorded example.

    `ids` and `runs` are by version; `answers` holds what versions 1 and 2 answer to the first row of `bars`. `sleeps`
    is the URI of a model that is not registered, and takes as many seconds as its feature `spread` says; `narrow` is
    version 1 for two of its features, `strange` asks for one that no request has.
    """

    tracking_uri: str
    ids: dict[int, str]
    runs: dict[int, str]
    answers: dict[str, dict[str, float]]
    sleeps: str
    narrow: str
    strange: str

    def move(self, alias: str, version: int) -> None:
        MlflowClient(self.tracking_uri).set_registered_model_alias(NAME, alias, str(version))

    def remove(self, alias: str) -> None:
        MlflowClient(self.tracking_uri).delete_registered_model_alias(NAME, alias)

    @property
    def database(self) -> Path:
        return Path(self.tracking_uri.removeprefix("sqlite:///"))


def damage(files: Path) -> None:
    estimator = files / "artifacts" / "fin_pyfunc" / "estimator.skops"
    content = bytearray(estimator.read_bytes())
    content[len(content) // 2] ^= 1
    estimator.write_bytes(content)


def disagree(files: Path) -> None:
    """Let the model say of itself that it once answered otherwise, with every digest in order."""
    manifest = files / "artifacts" / "fin_pyfunc" / "manifest.json"
    said = json.loads(manifest.read_text())
    said["example"]["probabilities"] = said["example"]["probabilities"][::-1]
    manifest.write_text(json.dumps(said))
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
    mlmodel = files / "MLmodel"
    mlmodel.write_text(re.sub(r"manifest_sha256: .*", f"manifest_sha256: {digest}", mlmodel.read_text()))


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    folder = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    spoiled: dict[int, Callable[[Path], None]] = {3: damage, 4: disagree}
    ids, runs, answers, others = {}, {}, {}, list[str]()
    with tracking_to(uri):
        experiment = mlflow.create_experiment("motion", artifact_location=(folder / "artifacts").as_uri())
        for version, names in ((1, (-1, 0, 1)), (2, (1, 0, -1)), (3, (-1, 0, 1)), (4, (-1, 0, 1))):
            estimator = LogisticRegression(C=1 / version).fit(bars(), labels(*names))
            with mlflow.start_run(experiment_id=experiment) as run:
                fin_pyfunc.log_model(estimator, bars(), registered_model_name=NAME)
            runs[version] = run.info.run_id
            found = MlflowClient().get_model_version(NAME, str(version))
            model = MlflowClient().get_logged_model(found.source.removeprefix("models:/"))
            ids[version] = f"models:/{model.model_id}"
            p = estimator.predict_proba(bars().head(1))[0]
            answers[ids[version]] = dict(zip(map(str, estimator.classes_), p.tolist(), strict=True))
            if version in spoiled:
                spoiled[version](Path(unquote(urlsplit(model.artifact_location).path)))
        for columns in ({}, {"return_1": "strange"}):
            X = bars()[["order_flow_imbalance", "return_1"]].rename(columns=columns)
            with mlflow.start_run(experiment_id=experiment) as run:
                fin_pyfunc.log_model(LogisticRegression().fit(X, labels(-1, 0, 1)), X)
            others.append(f"runs:/{run.info.run_id}/model")
        with mlflow.start_run(experiment_id=experiment) as run:
            cloudpickle.register_pickle_by_value(tests.shelf)  # as if the class stood in a notebook
            fin_pyfunc.log_model(tests.shelf.Sleeps(), bars().assign(spread=0.0), serialization="cloudpickle")
    made = Registry(uri, ids, runs, answers, f"runs:/{run.info.run_id}/model", *others)
    made.move("champion", 1)
    return made


def loaded(answer: Any) -> dict[str, Any]:
    """By id, what ``GET /admin/models`` says of each model in memory."""
    return {model["model_id"]: model for model in answer["models"]}
