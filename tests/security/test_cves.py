"""What has been tried on MLflow and skops before, each by its mechanism: refused, and nothing opened or executed."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import pytest
import yaml
from mlflow import MlflowClient

import fin_pyfunc
from tests.conftest import tracking_to
from tests.models import logistic
from tests.security.canary import Canary, write_calling_skops
from tests.servers import Serving, serving

ROW = {"return_1": 1e-4, "order_flow_imbalance": 0.3}
#: A folder that may run code, one whose readers could differ, and one that has its code anywhere.
REFUSED = "more than data|can be read in two ways|has its code elsewhere"


class Attacked(NamedTuple):
    """A server with a store that somebody else may write to."""

    server: Serving
    client: MlflowClient
    experiment: str
    canary: Canary
    root: Path

    def register(self, name: str, source: str, run_id: str | None = None) -> str:
        """Register a version with any source at all, as a store that checks nothing takes it; its URI."""
        with contextlib.suppress(mlflow.MlflowException):
            self.client.create_registered_model(name)
        version = self.client.create_model_version(name, source, run_id)
        return f"models:/{name}/{version.version}"

    def refuses(self, uri: str, *statuses: int) -> str:
        """The server's answer to a request for a model; the canary has noticed nothing."""
        answer = self.server.predict(ROW, uri)
        assert answer.status_code in (statuses or (403,)), answer.text
        self.canary.assert_untouched()
        for held in (str(self.root), self.canary.folder.name, "Traceback"):
            assert held not in answer.text
        return str(answer.json()["detail"])


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Canary]:
    found = Canary(tmp_path_factory.mktemp("canary"))
    # a whole model that would run code, so that a source that is followed would show
    model = found.folder / "model"
    fin_pyfunc.save_model(logistic().estimator, logistic().train, model, input_example=None)
    (model / "entry.py").write_text(f"open({str(found.marker)!r}, 'w')\n" + (model / "entry.py").read_text())
    found.assert_notices()
    yield found
    found.close()


@contextlib.contextmanager
def attacking(trust: str, canary: Canary, folder: Path) -> Iterator[Attacked]:
    uri, root = f"sqlite:///{folder / 'mlflow.db'}", folder / "artifacts"
    client = MlflowClient(uri)
    experiment = client.create_experiment("financial_ml", artifact_location=root.as_uri())
    (folder / "files").mkdir()
    env = {
        **canary.env,
        "MLFLOW_TRACKING_URI": uri,
        "FIN_PYFUNC__LIMITS__REQUEST_SECONDS": "120",
        "FIN_PYFUNC__MODELS__UNKNOWN_PER_SECOND": "1000000",  # each attack is to be refused for what it is
        "FIN_PYFUNC__MODELS__TRUST": trust,
        "FIN_PYFUNC__MODELS__FILE_ROOTS": str(folder / "files"),
    }
    with serving(folder=folder, env=env, wait_for="/health/live") as server:
        yield Attacked(server, client, experiment, canary, folder)


@pytest.fixture(scope="module")
def attacked(canary: Canary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    """Where there is most to lose: what the store holds may run code."""
    with attacking("store", canary, tmp_path_factory.mktemp("attacked")) as found:
        yield found


@pytest.fixture(scope="module")
def data_only(canary: Canary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    with attacking("data", canary, tmp_path_factory.mktemp("data-only")) as found:
        yield found


@pytest.mark.parametrize("trust", ["attacked", "data_only"])
def test_a_model_of_ours_is_answered_by_the_same_server(trust: str, request: pytest.FixtureRequest) -> None:
    attacked: Attacked = request.getfixturevalue(trust)
    with tracking_to(attacked.client.tracking_uri), mlflow.start_run(experiment_id=attacked.experiment):
        info = fin_pyfunc.log_model(logistic().estimator, logistic().train, registered_model_name="ours")
    for uri in (info.model_uri, "models:/ours/1", f"runs:/{info.run_id}/model"):
        assert attacked.server.predict(ROW, uri).status_code == 200
    attacked.canary.assert_untouched()


@pytest.mark.parametrize("form", ["file://{outside}/model", "{outside}/model", "file:{outside}/model"])
def test_cve_2023_1177_a_source_that_is_any_folder_of_the_server(attacked: Attacked, form: str) -> None:
    source = form.format(outside=attacked.canary.folder)
    assert "artifact_roots" in attacked.refuses(attacked.register("lfi", source))


@pytest.mark.parametrize(
    "way", ["/../", "/./../", "/x/../../", "/..//", "/%2e%2e/", "/..%2f", "/%252e%252e/", "\\..\\"]
)
def test_cve_2023_2356_a_source_that_climbs_out_of_the_artifact_root(attacked: Attacked, way: str) -> None:
    outside = f"{attacked.canary.folder.parent.name}/{attacked.canary.folder.name}/model"
    for root in ((attacked.root / "artifacts").as_uri(), str(attacked.root / "artifacts")):
        attacked.refuses(attacked.register("climbs", f"{root}{way}../{outside}"), 403, 500)
    attacked.refuses(f"runs:/{'0' * 32}{way}model", 422)


@pytest.mark.parametrize(
    "form", ["file://localhost{o}/model", "file://127.0.0.1{o}/model", "//{o}/model", "file:////{o}/model"]
)
def test_cve_2023_2780_a_source_whose_root_is_written_in_another_way(attacked: Attacked, form: str) -> None:
    attacked.refuses(attacked.register("otherwise", form.format(o=attacked.canary.folder)))


@pytest.mark.parametrize("mark", ["#", "?", ";", "%23"])
@pytest.mark.parametrize("cve", ["cve_2023_6977", "cve_2024_1483", "cve_2024_3848"])
def test_cve_2023_6977_cve_2024_1483_cve_2024_3848_a_location_that_two_readers_take_for_two(
    attacked: Attacked, mark: str, cve: str
) -> None:
    """An experiment whose artifacts are said to lie behind a fragment, a query or parameters, and a source below it."""
    outside = attacked.canary.folder
    location = {
        "cve_2023_6977": f"http:///{mark}/../../../../../../../../../../../..{outside}",
        "cve_2024_1483": f"{(attacked.root / 'artifacts').as_uri()}{mark}/../../../../../../../../../../..{outside}",
        "cve_2024_3848": f"file://{outside}{mark}/artifacts",
    }[cve]
    name = f"{cve}{mark}{attacked.experiment}".replace("%", "p")
    try:
        experiment = attacked.client.create_experiment(name, artifact_location=location)
        run = attacked.client.create_run(experiment).info
    except mlflow.MlflowException:  # this MLflow refuses it itself: the source alone, then
        attacked.refuses(attacked.register("fragment", f"{location}/model"), 403)
        return
    attacked.refuses(f"runs:/{run.run_id}/model")
    attacked.refuses(attacked.register("fragment", f"{run.artifact_uri}/model", run.run_id))
    attacked.refuses(attacked.register("fragment", f"runs:/{run.run_id}/model", run.run_id))


@pytest.mark.parametrize("scheme", ["FILE://", "File:", "file:///..", "local:", "dbfs:", "ftp://127.0.0.1", "sftp://"])
def test_cve_2024_3573_a_scheme_that_is_not_taken_for_a_file(attacked: Attacked, scheme: str) -> None:
    attacked.refuses(attacked.register("scheme", f"{scheme}{attacked.canary.folder}/model"))
    attacked.refuses(f"{scheme}{attacked.canary.folder}/model", 403, 422)


def test_cve_2024_3573_an_experiment_of_ones_own_is_no_artifact_store(attacked: Attacked) -> None:
    experiment = attacked.client.create_experiment(
        f"own-{attacked.experiment}-{attacked.root.name}", artifact_location=attacked.canary.folder.as_uri()
    )
    run = attacked.client.create_run(experiment).info
    attacked.refuses(f"runs:/{run.run_id}/model")
    attacked.refuses(attacked.register("own", f"{run.artifact_uri}/model", run.run_id))


def test_cve_2025_11201_a_name_that_is_a_path(attacked: Attacked) -> None:
    outside = f"../../{attacked.canary.folder.parent.name}/{attacked.canary.folder.name}/model"
    for name in (outside, "..", ".", f"{outside}@champion", outside.replace("/", "\\")):
        for form in ("models:/{}/1", "models:/{}@champion", "models:/{}/latest", "runs:/{}/model"):
            attacked.refuses(form.format(name), 404, 422)
    run = attacked.client.create_run(attacked.experiment).info.run_id
    for source in (
        f"runs:/{run}/{outside}",
        f"runs://x/{run}/model",
        f"runs:/{run}/a%2e%2e/model",
    ):
        attacked.refuses(attacked.register("path", source, run), 403)


@pytest.mark.parametrize(
    "form", ["http://127.0.0.1:{port}/model", "https://127.0.0.1:{port}/m", "mlflow-artifacts://127.0.0.1:{port}/0/m"]
)
def test_a_source_on_another_host_is_not_asked(attacked: Attacked, form: str) -> None:
    attacked.refuses(attacked.register("ssrf", form.format(port=attacked.canary.port)))


def _flavored(attacked: Attacked, loader: str, flavor: str, **function: Any) -> str:
    """Log a model of a flavor whose files are pickles, in the artifact store where it may lie; its URI."""
    folder = attacked.root / "pickled"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "data").mkdir(parents=True)
    names = ("model.pkl", "python_model.pkl", "data/model.pkl", "data/pickle_module_info.txt", "model.pmd", "model.lgb")
    for name in names:
        (folder / name).write_bytes(attacked.canary.pickle)
    flavors = {
        "python_function": {"loader_module": loader, "python_version": "3.11.0", **function},
        flavor: {"pickled_model": "model.pkl", "serialization_format": "cloudpickle", "data": "data", "code": None},
    }
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": flavors}))
    run = attacked.client.create_run(attacked.experiment).info.run_id
    attacked.client.log_artifacts(run, str(folder), "model")
    return f"runs:/{run}/model"


@pytest.mark.parametrize(
    ("cve", "loader", "flavor", "function"),
    [
        ("CVE-2024-37052", "mlflow.sklearn", "sklearn", {"model_path": "model.pkl"}),
        ("CVE-2024-37053", "mlflow.sklearn", "sklearn", {"data": "model.pkl"}),
        ("CVE-2024-37054", "mlflow.pyfunc.model", "python_function_", {"python_model": "python_model.pkl"}),
        ("CVE-2024-37055", "mlflow.pmdarima", "pmdarima", {"data": "model.pmd"}),
        ("CVE-2024-37056", "mlflow.lightgbm", "lightgbm", {"data": "model.lgb"}),
        ("CVE-2024-37057", "mlflow.tensorflow", "tensorflow", {"data": "data"}),
        ("CVE-2024-37058", "mlflow.langchain", "langchain", {"data": "data"}),
        ("CVE-2024-37059", "mlflow.pytorch", "pytorch", {"data": "data"}),
        ("CVE-2024-37060", "mlflow.recipes", "recipes", {"data": "data"}),
        ("any module", "pickle", "sklearn", {"code": "data"}),
    ],
)
def test_cve_2024_37052_to_37060_a_flavor_that_unpickles(
    data_only: Attacked, cve: str, loader: str, flavor: str, function: dict[str, str]
) -> None:
    said = data_only.refuses(_flavored(data_only, loader, flavor, **function))
    assert re.search(REFUSED, said), cve


@pytest.mark.parametrize(
    "change", ["entry", "module", "package", "compiled", "pickle", "code elsewhere", "artifacts elsewhere"]
)
def test_cve_2024_37054_a_model_that_looks_like_ours_and_brings_code(data_only: Attacked, change: str) -> None:
    folder = data_only.root / "forged"
    shutil.rmtree(folder, ignore_errors=True)
    fin_pyfunc.save_model(logistic().estimator, logistic().train, folder, input_example=None)
    evil = f"open({str(data_only.canary.marker)!r}, 'w')\n"
    mlmodel = yaml.safe_load((folder / "MLmodel").read_text())
    function = mlmodel["flavors"]["python_function"]
    match change:
        case "entry":
            (folder / "entry.py").write_text(evil + (folder / "entry.py").read_text())
        case "module":
            (folder / "code" / "pandas.py").write_text(evil)
        case "package":
            (folder / "code" / "fin_pyfunc-9.whl").mkdir()
            (folder / "code" / "fin_pyfunc-9.whl" / "__init__.py").write_text(evil)
        case "compiled":
            (folder / "code" / "numpy.pyc").write_text(evil)
        case "pickle":
            manifest = folder / "artifacts" / "fin_pyfunc" / "manifest.json"
            manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "serialization": "cloudpickle"}))
            (manifest.parent / "estimator.pkl").write_bytes(data_only.canary.pickle)
        case "code elsewhere":
            function["code"] = str(data_only.canary.folder)
        case "artifacts elsewhere":
            function["artifacts"] = {"fin_pyfunc": {"path": f"../../{data_only.canary.folder}"}}
    (folder / "MLmodel").write_text(yaml.safe_dump(mlmodel))
    run = data_only.client.create_run(data_only.experiment).info.run_id
    data_only.client.log_artifacts(run, str(folder), "model")
    assert re.search(REFUSED, data_only.refuses(f"runs:/{run}/model"))


@pytest.mark.parametrize("trust", ["attacked", "data_only"])
def test_cve_2024_37065_a_skops_file_whose_own_list_of_types_is_not_asked(
    trust: str, request: pytest.FixtureRequest
) -> None:
    attacked: Attacked = request.getfixturevalue(trust)
    folder = attacked.root / "skops-list"
    mlflow.sklearn.save_model(logistic().estimator, folder, serialization_format="skops", pip_requirements=["skops"])
    write_calling_skops(attacked.canary.marker, folder / "model.skops")
    mlmodel = yaml.safe_load((folder / "MLmodel").read_text())
    mlmodel["flavors"]["sklearn"]["skops_trusted_types"] = ["os.system", "posix.system", "builtins.str"]
    (folder / "MLmodel").write_text(yaml.safe_dump(mlmodel))
    run = attacked.client.create_run(attacked.experiment).info.run_id
    attacked.client.log_artifacts(run, str(folder), "model")
    said = attacked.refuses(f"runs:/{run}/model", 500)
    assert "types that are not trusted here" in said or "could not be read" in said
    bare = attacked.root / "files" / "list.skops"
    write_calling_skops(attacked.canary.marker, bare)
    attacked.refuses(bare.as_uri(), 500)


def test_cve_2025_54886_a_skops_file_that_is_a_pickle_is_not_read_as_one(attacked: Attacked) -> None:
    bare = attacked.root / "files" / "pickle.skops"
    bare.write_bytes(attacked.canary.pickle)
    assert "could not be read" in attacked.refuses(bare.as_uri(), 500)
    for name in ("a.pkl", "a.joblib"):
        (bare.parent / name).write_bytes(attacked.canary.pickle)
        attacked.refuses((bare.parent / name).as_uri())
