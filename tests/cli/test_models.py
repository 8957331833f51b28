"""`fin-pyfunc models`: what the catalog says, as a table or as JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path

from mlflow import MlflowClient

from fin_pyfunc.serving.catalog import Catalog
from tests.cli.commands import refused, run


def test_models_says_what_the_catalog_says(logged: list[str], folder: Path) -> None:
    found = Catalog(f"sqlite:///{folder / 'mlflow.db'}", "financial_ml").list_models()
    shown = json.loads(run("models", "--json").out)
    assert shown["count"] == found.count >= 1
    assert [model["model_uri"] for model in shown["models"]] == [model.model_uri for model in found.models]
    assert json.loads(run("models", "--json", "--limit", 1).out)["count"] == 1
    lines = run("models").out.splitlines()
    assert lines[0].split() == ["MODEL", "NAME", "METRICS", "PARAMS", "TAGS"]
    assert len(lines) == found.count + 1
    assert any(line.startswith(f"{logged[1]}  ") for line in lines[1:])
    assert len({line.index("  ") for line in lines[1:]}) == 1


def test_models_shows_the_first_metrics_and_counts_the_others(folder: Path) -> None:
    client = MlflowClient()
    experiment = client.create_experiment("many", artifact_location=(folder / "many").as_uri())
    run_id = client.create_run(experiment).info.run_id
    for i in range(6):
        client.log_metric(run_id, f"m{i}", 1 / 3)
    client.set_tag(run_id, "asset", "EURUSD")
    made = client.create_logged_model(experiment, name="model", source_run_id=run_id)
    client.finalize_logged_model(made.model_id, "READY")
    client.create_registered_model("many")
    for _ in range(2):
        client.create_model_version("many", f"runs:/{run_id}/model", run_id)
    for alias in ("live", "champion"):
        client.set_registered_model_alias("many", alias, "2")
    row = run("models", "--mlflow-experiment-name", "many").out.splitlines()[1]
    assert re.split(" {2,}", row) == [
        f"runs:/{run_id}/model",
        "many/2 @champion @live, many/1",
        "m0=0.3333 m1=0.3333 m2=0.3333 m3=0.3333 (+2)",
        "-",
        "asset=EURUSD",
    ]


def test_models_of_an_experiment_without_models_or_of_none(folder: Path) -> None:
    MlflowClient().create_experiment("void", artifact_location=(folder / "void").as_uri())
    answer = run("models", "--mlflow-experiment-name", "void")
    assert (answer.code, answer.out) == (0, "")
    assert "no models yet" in answer.err
    assert json.loads(run("models", "--mlflow-experiment-name", "void", "--json").out) == {"models": [], "count": 0}
    assert "There is no experiment" in refused("models", "--mlflow-experiment-name", "nope")
