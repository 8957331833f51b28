"""A model URI that leads to nothing: what is wrong with it, and what there is instead, for those who may know of it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import mlflow
import pytest
import requests
from mlflow import MlflowClient

import fin_pyfunc
from fin_pyfunc.model.errors import FinPyfuncError, ModelNotFoundError, StoreUnavailableError
from fin_pyfunc.serving.callers.keys import KeyFile
from fin_pyfunc.serving.callers.principal import Scope
from fin_pyfunc.serving.resolver import Resolver
from fin_pyfunc.serving.uris import parse
from tests.conftest import free_port, tracking_to
from tests.models import logistic
from tests.servers import COMMAND, clean_environment, serving

FX, GOLD = "models:/eurusd_rf", "models:/gold"
THERE = f"there are {FX}@challenger, {FX}@champion, {FX}/2, {FX}/1."


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with eurusd_rf in two versions, with two aliases, and gold."""
    folder = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(uri)
    experiment = client.create_experiment("financial_ml", artifact_location=(folder / "artifacts").as_uri())
    with tracking_to(uri), mlflow.start_run(experiment_id=experiment) as run:
        logged = fin_pyfunc.log_model(logistic().estimator, logistic().train, registered_model_name="eurusd_rf")
        for name in ("eurusd_rf", "gold"):
            mlflow.register_model(logged.model_uri, name)
    client.set_registered_model_alias("eurusd_rf", "champion", "1")
    client.set_registered_model_alias("eurusd_rf", "challenger", "2")
    assert run.info.run_id
    return uri


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (FX, f"names no version of the registered model; {THERE}"),
        (f"{FX}@champoin", f"no alias of the name asked for (did you mean {FX}@champion?); {THERE}"),
        (f"{FX}@live", f"no alias of the name asked for; {THERE}"),
        (f"{FX}/9", f"no version 9; {THERE}"),
        (f"{FX}/Production", f"no version in the stage asked for; {THERE}"),
        ("models:/eurusd_fr@champion", f"No registered model has the name asked for: did you mean {FX}@champion?"),
        ("models:/eurusd_fr/2", f"No registered model has the name asked for: did you mean {FX}@challenger?"),
        ("models:/EURUSD_RF@Champion", f"No registered model has the name asked for: did you mean {FX}@champion?"),
        ("models:/silver/1", f"No registered model has the name asked for; there are {FX}@challenger, {GOLD}/1."),
        ("models:/eurusd", f"No registered model has the name asked for: did you mean {FX}@challenger?"),
        ("eurusd_rf@champion", f"no model at the path given: did you mean {FX}@champion?"),
        ("eurusd_fr@champion", f"no model at the path given: did you mean {FX}@champion?"),
        ("eurusd_rf/2", f"no model at the path given: did you mean {FX}/2?"),
        ("eurusd_rf", f"no model at the path given; {THERE}"),
        ("./eurusd_rf", "name a folder with an MLmodel"),
        ("nowhere", "name a folder with an MLmodel"),
        ("model:/eurusd_rf@champion", f"did you mean {FX}@champion?"),
        ("Models:/eurusd_rf/1", f"did you mean {FX}/1?"),
        ("models://eurusd_rf/1", f"did you mean {FX}/1?"),
        ("models:eurusd_rf@champion", f"did you mean {FX}@champion?"),
        ("run:/0a1b/model", "did you mean runs:/0a1b/model?"),
        ("runs:/0a1b", "send runs:/<run_id>/<name>"),
        ("htp://host/model", "did you mean http://host/model?"),
        ("somewhere:else", "send runs:/<run_id>/<name>"),
    ],
)
def test_the_operator_is_told_what_was_meant(registry: str, text: str, said: str) -> None:
    with pytest.raises(FinPyfuncError) as caught:
        Resolver(registry).resolve_argument(text)
    assert not isinstance(caught.value, StoreUnavailableError)
    assert str(caught.value).endswith(said) or said in str(caught.value)
    assert text not in str(caught.value).replace(said, "")


def test_a_misspelt_name_is_told_without_a_store_by_its_form(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=re.escape("did you mean models:/fx@champion?")):
        Resolver(f"sqlite:///{tmp_path / 'mlflow.db'}").resolve_argument("fx@champion")


@pytest.mark.parametrize("command", [["inspect", "URI"], ["predict", "-m", "URI", "rows.csv"]])
def test_commands_say_so_in_one_line(registry: str, command: list[str], tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a\n1\n")
    arguments = ["eurusd_rf@champion" if part == "URI" else part for part in command]
    done = subprocess.run(
        [sys.executable, "-m", "fin_pyfunc_cli", *arguments],
        cwd=tmp_path,
        env=clean_environment({"MLFLOW_TRACKING_URI": registry}),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == f"Error: There is no model at the path given: did you mean {FX}@champion?\n"


# --- a start that fails


@pytest.mark.parametrize("uri", ["model:/eurusd_rf@champion", "models:/eurusd_rf@champoin", FX])
def test_a_start_that_fails_ends_with_its_reason_once(registry: str, uri: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "-m", uri, "--port", str(free_port()), "--workers", "2"],
        cwd=tmp_path,
        env=clean_environment({"MLFLOW_TRACKING_URI": registry}),
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = done.stderr.strip().splitlines()
    assert done.returncode not in (0, None)
    assert lines[-1].startswith(f"Error: the default model {uri} cannot be loaded: ")
    assert f"{FX}@champion" in lines[-1]
    assert done.stderr.count("cannot be loaded") == 1
    for of_gunicorn in ("exited with code", "App failed to load", "Shutting down", "Traceback"):
        assert of_gunicorn not in done.stderr


# --- over HTTP


class Callers(NamedTuple):
    url: str
    keys: dict[str, str]

    def ask(self, key: str, uri: str) -> str:
        answer = requests.post(
            f"{self.url}/predict", json={"features": {}, "model_uri": uri}, headers=self.of(key), timeout=60
        )
        assert answer.status_code == 404, answer.text
        return str(answer.json()["detail"])

    def of(self, key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys[key]}"}


@pytest.fixture(scope="module")
def callers(registry: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callers]:
    folder = tmp_path_factory.mktemp("callers")
    file = KeyFile(folder / "keys.json")
    both = [Scope.PREDICT, Scope.MODELS]
    keys = {
        "lists": file.add("lists", both),
        "predicts": file.add("predicts", [Scope.PREDICT]),
        "some": file.add("some", both, [f"{FX}*@champion", "models:/eurusd_*", "models:/gol*@*"]),
    }
    env = {
        "MLFLOW_TRACKING_URI": registry,
        "FIN_PYFUNC__AUTH__MODE": "keys",
        "FIN_PYFUNC__AUTH__KEYS_FILE": str(folder / "keys.json"),
        "FIN_PYFUNC__MODELS__ALLOW": '["models:/eurusd_*", "models:/g*@*", "models:/silver*"]',
        "FIN_PYFUNC__MODELS__UNKNOWN_SECONDS": "60",
    }
    with serving(folder=folder, env=env) as server:
        yield Callers(server.url, keys)


def test_who_may_list_models_is_told_what_there_is(callers: Callers) -> None:
    for _ in range(2):  # the second time it is remembered
        assert callers.ask("lists", f"{FX}@champoin").endswith(f"did you mean {FX}@champion?); {THERE}")
    assert callers.ask("lists", "models:/eurusd_fr/1").endswith(f"did you mean {FX}@challenger?")
    # gold has versions alone, which 'allow' takes from nobody
    assert callers.ask("lists", "models:/silver/1").endswith(f"; there are {FX}@challenger.")


def test_who_may_not_is_told_nothing_of_names(callers: Callers) -> None:
    for uri in (f"{FX}@champoin", "models:/eurusd_fr@champoin"):
        said = callers.ask("predicts", uri)
        assert said == "No alias of the name asked for is registered; look it up in MLflow's model registry."
    assert "gold" not in callers.ask("some", "models:/gol@x")


def test_names_are_listed_to_who_may_ask_for_them(callers: Callers) -> None:
    def listed(key: str) -> list[dict[str, object]]:
        answer = requests.get(f"{callers.url}/models?names=true", headers=callers.of(key), timeout=60)
        assert answer.status_code == 200, answer.text
        return [each for entry in answer.json()["models"] for each in entry["registered"]]

    versions = [
        {"name": "eurusd_rf", "version": "1", "aliases": ["champion"]},
        {"name": "eurusd_rf", "version": "2", "aliases": ["challenger"]},
    ]
    assert listed("lists") == [*versions, {"name": "gold", "version": "1", "aliases": []}]
    assert listed("some") == versions
    plain = requests.get(f"{callers.url}/models", headers=callers.of("lists"), timeout=60).json()["models"]
    assert all("registered" not in entry for entry in plain)
    wrong = requests.get(f"{callers.url}/models?names=1", headers=callers.of("lists"), timeout=60)
    assert wrong.status_code == 422
    assert requests.get(f"{callers.url}/models", headers=callers.of("some"), timeout=60).json()["models"] == []


# --- what is registered outlives its run


def test_a_version_whose_run_was_deleted_is_served_as_mlflow_serves_it(registry: str) -> None:
    client = MlflowClient(registry)
    run_id = client.get_model_version("gold", "1").run_id
    model_id = Resolver(registry).resolve(parse("models:/gold/1")).model_id
    client.create_model_version("gold", f"runs:/{run_id}/model", run_id)
    client.delete_run(run_id)
    try:
        for version in (1, 2):
            assert Resolver(registry).resolve(parse(f"models:/gold/{version}")).model_id == model_id
        with pytest.raises(ModelNotFoundError):
            Resolver(registry).resolve(parse(f"runs:/{run_id}/model"))
    finally:
        client.restore_run(run_id)
        client.delete_model_version("gold", "2")
