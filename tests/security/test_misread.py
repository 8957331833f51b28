"""Models that two readers would read in two ways, and models that are exchanged after they were read."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import pytest
import requests
import skops.io
import yaml
from mlflow import MlflowClient
from skl2onnx import to_onnx

import fin_pyfunc
from tests.conftest import MlflowServer
from tests.models import logistic
from tests.security.canary import Canary, write_calling_skops
from tests.servers import Serving, serving
from tests.test_artifact import sign

ROW: dict[str, object] = {"return_1": 1e-4, "order_flow_imbalance": 0.3}
ESTIMATOR, X = logistic().estimator, logistic().train
ANSWER = dict(zip(map(str, ESTIMATOR.classes_), ESTIMATOR.predict_proba([list(ROW.values())])[0], strict=True))
NEEDS = {"pip_requirements": ["skops"]}


def save_skops(folder: Path) -> None:
    mlflow.sklearn.save_model(ESTIMATOR, folder, serialization_format="skops", **NEEDS)


def save_onnx(folder: Path) -> None:
    graph = to_onnx(ESTIMATOR, X.to_numpy()[:1].astype("float32"), options={"zipmap": False})
    mlflow.onnx.save_model(graph, folder, save_as_external_data=False, **NEEDS)


def save_ours(folder: Path) -> None:
    fin_pyfunc.save_model(ESTIMATOR, X, folder, input_example=None)


def change(folder: Path, **function: Any) -> None:
    """Set keys of an MLmodel's python_function."""
    described = yaml.safe_load((folder / "MLmodel").read_text())
    described["flavors"]["python_function"].update(function)
    (folder / "MLmodel").write_text(yaml.safe_dump(described))


def with_our_artifact(save: Callable[[Path], None]) -> Callable[[Path, Canary], None]:
    """A model of data into which artifacts, code and metadata of a cloudpickle model of ours were copied (row A)."""

    def forge(folder: Path, canary: Canary) -> None:
        save(folder)
        ours = folder.with_name(f"{folder.name}-ours")
        fin_pyfunc.save_model(ESTIMATOR, X, ours, serialization="cloudpickle", input_example=None)
        (ours / "artifacts" / "fin_pyfunc" / "estimator.pkl").write_bytes(canary.pickle)
        sign(ours)
        for part in ("artifacts", "code"):
            shutil.copytree(ours / part, folder / part)
        described = yaml.safe_load((folder / "MLmodel").read_text())
        described["metadata"] = yaml.safe_load((ours / "MLmodel").read_text())["metadata"]
        (folder / "MLmodel").write_text(yaml.safe_dump(described))

    return forge


def _unpickling(folder: Path, canary: Canary) -> None:
    folder.mkdir()
    (folder / "e.pkl").write_bytes(canary.pickle)
    flavors = {
        "python_function": {"loader_module": "mlflow.sklearn", "model_path": "e.pkl"},
        "sklearn": {"pickled_model": "e.pkl", "serialization_format": "pickle"},
    }
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": flavors}))


def data_is_a_model(folder: Path, canary: Canary) -> None:
    save_skops(folder)
    _unpickling(folder / "sub", canary)
    change(folder, data="sub")


def data_is_a_pickle(folder: Path, canary: Canary) -> None:
    save_skops(folder)
    _unpickling(folder / "sub", canary)
    change(folder, data="sub/e.pkl")


def another_file_with_its_own_types(folder: Path, canary: Canary) -> None:
    save_skops(folder)
    write_calling_skops(canary.marker, folder / "other.skops")
    change(folder, model_path="other.skops")
    described = yaml.safe_load((folder / "MLmodel").read_text())
    described["flavors"]["sklearn"]["skops_trusted_types"] = ["posix.system", "os.system", "builtins.str"]
    (folder / "MLmodel").write_text(yaml.safe_dump(described))


FORGED: dict[str, Callable[[Path, Canary], None]] = {
    "skops with our pickled artifact": with_our_artifact(save_skops),
    "onnx with our pickled artifact": with_our_artifact(save_onnx),
    "data is a model": data_is_a_model,
    "data is a pickle": data_is_a_pickle,
    "another file with its own types": another_file_with_its_own_types,
}


class Store(NamedTuple):
    """An MLflow store that somebody else may write to, and what notices whether anything of theirs was run."""

    client: MlflowClient
    folder: Path
    experiment: str
    canary: Canary
    env: dict[str, str]

    def log(self, folder: Path) -> str:
        """Upload a folder as a run's model; the run's id."""
        run: str = self.client.create_run(self.experiment).info.run_id
        self.client.log_artifacts(run, str(folder), "model")
        return run

    def register(self, name: str, folder: Path) -> str:
        """Upload a folder as the next version of a name; the version."""
        run = self.log(folder)
        with contextlib.suppress(mlflow.MlflowException):
            self.client.create_registered_model(name)
        return str(self.client.create_model_version(name, f"runs:/{run}/model", run).version)


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Canary]:
    found = Canary(tmp_path_factory.mktemp("canary"))
    found.assert_notices()
    yield found
    found.close()


@pytest.fixture(scope="module")
def forged(canary: Canary, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every forged folder, below one folder that a server may read."""
    root = tmp_path_factory.mktemp("forged")
    folders = {name: root / name.replace(" ", "-") for name in FORGED}
    for name, folder in folders.items():
        FORGED[name](folder, canary)
    return folders


@pytest.fixture(scope="module")
def local(canary: Canary, forged: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store in a file, whose artifacts are read where they lie."""
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(uri)
    experiment = client.create_experiment("e", artifact_location=(folder / "artifacts").as_uri())
    env = {
        **canary.env,
        "MLFLOW_TRACKING_URI": uri,
        "FIN_PYFUNC__MODELS__FILE_ROOTS": str(next(iter(forged.values())).parent),
        "FIN_PYFUNC__MODELS__UNKNOWN_PER_SECOND": "1000000",
        "FIN_PYFUNC__MODELS__REFRESH_SECONDS": "0.2",
    }
    return Store(client, folder, experiment, canary, env)


def assert_refused(server: Serving, uri: str, canary: Canary) -> None:
    answer = server.predict(ROW, uri)
    assert answer.status_code == 403, answer.text
    assert "can be read in two ways" in answer.json()["detail"]
    canary.assert_untouched()


def assert_answers(server: Serving) -> None:
    """/predict and /invocations of the default model answer as the estimator does."""
    answer = server.predict(ROW, return_proba=True)
    assert answer.status_code == 200, answer.text
    assert answer.json()["probabilities"] == pytest.approx(ANSWER, abs=1e-6)
    answer = requests.post(server.url + "/invocations", json={"dataframe_records": [ROW]}, timeout=60)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("trust", ["data", "store"])
def test_a_folder_that_can_be_read_in_two_ways_is_refused_wherever_it_lies(
    local: Store, forged: dict[str, Path], trust: str, tmp_path: Path
) -> None:
    runs = {name: local.log(folder) for name, folder in forged.items()}
    version = local.register("good", saved_by(tmp_path, save_skops))
    with serving(
        "-m", f"models:/good/{version}", folder=tmp_path, env={**local.env, "FIN_PYFUNC__MODELS__TRUST": trust}
    ) as server:
        for name, folder in forged.items():
            assert_refused(server, folder.as_uri(), local.canary)
            assert_refused(server, f"runs:/{runs[name]}/model", local.canary)
        assert_answers(server)
    local.canary.assert_untouched()


def saved_by(tmp_path: Path, save: Callable[[Path], None]) -> Path:
    save(tmp_path / "saved")
    return tmp_path / "saved"


def test_an_alias_moved_to_such_a_folder_on_a_remote_server_leaves_the_model_before_it(
    mlflow_server: MlflowServer, forged: dict[str, Path], canary: Canary, tmp_path: Path
) -> None:
    client = MlflowClient(mlflow_server.uri)
    store = Store(client, tmp_path, client.create_experiment("misread"), canary, canary.env)
    name = "misread"
    client.create_registered_model(name)
    client.set_registered_model_alias(name, "champion", store.register(name, saved_by(tmp_path, save_skops)))
    env = {
        **canary.env,
        "MLFLOW_TRACKING_URI": mlflow_server.uri,
        "FIN_PYFUNC__MODELS__TRUST": "data",
        "FIN_PYFUNC__MODELS__UNKNOWN_PER_SECOND": "1000000",
        "FIN_PYFUNC__MODELS__REFRESH_SECONDS": "0.2",
    }
    with serving("-m", f"models:/{name}@champion", folder=tmp_path, env=env) as server:
        first = server.predict(ROW).headers["X-Model-ID"]
        for i, folder in enumerate(forged.values(), 1):
            version = store.register(name, folder)
            assert_refused(server, f"models:/{name}/{version}", canary)
            client.set_registered_model_alias(name, "champion", version)
            server.wait_for_log("can be read in two ways", times=i)
            assert server.predict(ROW).headers["X-Model-ID"] == first
            assert_answers(server)
    canary.assert_untouched()


# --- files that are exchanged after they were checked


def exchange(files: Path, canary: Canary) -> None:
    """Replace every file of a model that was read, each by one that would run code or answer otherwise."""
    evil = files.with_name("evil")
    _unpickling(evil, canary)
    for file in [path for path in files.rglob("*") if path.is_file()]:
        match file.suffix:
            case ".py":
                file.write_text(f"open({str(canary.marker)!r}, 'w')\n")
            case ".pkl" | ".whl":
                file.write_bytes(canary.pickle)
            case ".skops":
                skops.io.dump(logistic().estimator.__class__().fit(X, [0, 1] * (len(X) // 2)), file)
            case "":
                shutil.copy(evil / "MLmodel", file)
            case _:
                file.write_bytes(b"replaced")
    shutil.copy(evil / "e.pkl", files / "e.pkl")
    (files / "code").mkdir(exist_ok=True)
    (files / "code" / "sklearn.py").write_text(f"open({str(canary.marker)!r}, 'w')\n")


@pytest.mark.parametrize("save", [save_ours, save_skops, save_onnx], ids=["ours", "skops", "onnx"])
def test_a_model_replaced_after_it_was_checked_answers_on_from_what_was_checked(
    local: Store, save: Callable[[Path], None], tmp_path: Path
) -> None:
    name = f"replaced-{save.__name__}"
    version = local.register(name, saved_by(tmp_path, save))
    run = local.client.get_model_version(name, version).run_id
    files = Path(local.client.get_run(run).info.artifact_uri.removeprefix("file://")) / "model"
    assert (files / "MLmodel").is_file()
    with serving(
        "-m", f"models:/{name}/{version}", folder=tmp_path, env={**local.env, "FIN_PYFUNC__MODELS__TRUST": "data"}
    ) as server:
        row: Any = list(ROW.values()) if save is save_onnx else ROW  # a matrix has no names
        before = server.predict(row, return_proba=True).json()
        exchange(files, local.canary)
        # the estimator of ours, and what MLflow's route wraps, are opened now
        assert server.predict(row, return_proba=True).json() == before
        batch = server.predict_batch([row] * 3000, return_proba=True)
        assert batch.status_code == 200, batch.text
        assert batch.json()["predictions"] == [before["prediction"]] * 3000
        if save is save_onnx:
            body: dict[str, Any] = {"inputs": [list(ROW.values())]}
        else:
            body = {"dataframe_records": [ROW]}
        answer = requests.post(server.url + "/invocations", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        assert str(before["prediction"]) in answer.text
        assert server.predict(ROW, f"runs:/{run}/model").status_code == 403  # asked for anew, it is what it is now
    local.canary.assert_untouched()
