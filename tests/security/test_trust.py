"""What each word of `models.trust` lets be loaded, and from where."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cloudpickle
import mlflow
import onnx
import pytest
from mlflow import MlflowClient
from skl2onnx import to_onnx

import fin_pyfunc
from fin_pyfunc.model.errors import ArtifactError, ModelForbiddenError
from fin_pyfunc.serving.loaded_model import LoadedModel
from fin_pyfunc.serving.loader import load
from fin_pyfunc.serving.model_folder import classify
from fin_pyfunc.serving.resolver import Resolver
from fin_pyfunc.serving.snapshot import describe
from fin_pyfunc.serving.uris import parse
from tests.models import logistic
from tests.test_artifact import FIXTURES

ROW = {"return_1": 1e-4, "order_flow_imbalance": 0.3}
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Foreign(mlflow.pyfunc.PythonModel):  # type: ignore[misc] # mlflow ships no types
    def predict(self, context: Any, model_input: Any, params: Any = None) -> list[int]:
        return [1] * len(model_input)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model of each kind."""
    root = tmp_path_factory.mktemp("files")
    estimator, X = logistic().estimator, logistic().train
    own: dict[str, Any] = {"input_example": None}
    fin_pyfunc.save_model(estimator, X, root / "ours", **own)
    fin_pyfunc.save_model(estimator, X, root / "pickled", serialization="cloudpickle", **own)
    code = root / "helpers.py"
    code.write_text("")
    fin_pyfunc.save_model(estimator, X, root / "with-code", code_paths=[str(code)], **own)
    needs = {"pip_requirements": ["skops"]}
    mlflow.sklearn.save_model(estimator, root / "skops", serialization_format="skops", **needs)
    mlflow.sklearn.save_model(estimator, root / "sklearn", serialization_format="cloudpickle", **needs)
    mlflow.pyfunc.save_model(root / "pyfunc", python_model=Foreign(), **needs)
    graph = to_onnx(estimator, X.to_numpy()[:1].astype("float32"), options={"zipmap": False})
    mlflow.onnx.save_model(graph, root / "onnx", save_as_external_data=False, **needs)
    onnx.save(graph, root / "bare.onnx")
    (root / "bare.pkl").write_bytes(cloudpickle.dumps(estimator))
    return root


DATA = ("ours", "skops", "onnx", "bare.onnx")
CODE = ("pickled", "with-code", "sklearn", "pyfunc", "bare.pkl")


def opened(files: Path, name: str, trust: str, *, by_operator: bool = False) -> LoadedModel:
    resolver = Resolver(None, file_roots=[files], trust=trust)
    path = files / name
    resolved = resolver.resolve_argument(str(path)) if by_operator else resolver.resolve(parse(path.as_uri()))
    return load(resolver, resolved)


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("trust", ["data", "store", "all"])
def test_data_is_loaded_whatever_the_trust(files: Path, name: str, trust: str) -> None:
    loaded = opened(files, name, trust)
    expected = logistic().estimator.predict([list(ROW.values())]).tolist()
    row: Any = list(ROW.values()) if name.endswith("onnx") else ROW  # a matrix has no names
    assert loaded.model.decide([row]).predictions == expected


@pytest.mark.parametrize("name", CODE)
def test_a_folder_among_files_may_bring_code_under_all_alone(files: Path, name: str) -> None:
    for trust in ("data", "store"):
        with pytest.raises(ModelForbiddenError, match=r"deployment\.api\.models\.trust"):
            opened(files, name, trust)
    assert opened(files, name, "all").model.decide([ROW]).predictions


@pytest.mark.parametrize("name", CODE)
def test_what_the_operator_names_may_bring_code_but_under_data(files: Path, name: str) -> None:
    assert opened(files, name, "store", by_operator=True).model.decide([ROW]).predictions
    with pytest.raises(ModelForbiddenError, match=r"deployment\.api\.models\.trust"):
        opened(files, name, "data", by_operator=True)


@pytest.mark.parametrize("name", CODE)
def test_what_the_store_holds_may_bring_code_but_under_data(files: Path, name: str, tmp_path: Path) -> None:
    if name == "bare.pkl":
        return  # a store holds models' folders
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(uri)
    run = client.create_run(client.create_experiment("e", artifact_location=(tmp_path / "a").as_uri())).info.run_id
    client.log_artifacts(run, str(files / name), "model")
    asked = parse(f"runs:/{run}/model")
    resolver = Resolver(uri, artifact_roots=())
    assert load(resolver, resolver.resolve(asked)).model.decide([ROW]).predictions
    resolver = Resolver(uri, trust="data", artifact_roots=())
    with pytest.raises(ModelForbiddenError, match="more than data"):
        load(resolver, resolver.resolve(asked))


def test_mlflows_route_runs_our_own_code_file_and_no_compiled_one_beside_it(files: Path, tmp_path: Path) -> None:
    import importlib.util
    import py_compile
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(files / "ours", folder)
    entry, evil, marker = folder / "entry.py", tmp_path / "evil.py", tmp_path / "it-ran"
    evil.write_text(f"open({str(marker)!r}, 'w')\n")
    compiled = Path(importlib.util.cache_from_source(str(entry)))
    compiled.parent.mkdir(exist_ok=True)
    py_compile.compile(str(evil), cfile=str(compiled), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    loaded = opened(tmp_path, "model", "data")
    frame = logistic().held_out
    assert loaded.pyfunc.predict(frame)["prediction"].tolist() == logistic().estimator.predict(frame).tolist()
    assert not marker.exists()


@pytest.mark.parametrize("version", [1, 2])
def test_the_code_file_of_every_released_format_is_known(version: int) -> None:
    assert classify(describe(FIXTURES / f"artifact-v{version}")).runs_code is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "flavors: []",
        "flavors: {python_function: 3}",
        "flavors: {1: {}}",
        "a: &a [*a]",
        "d: 2020-99-99",
        "[" * 3000,
    ],
)
def test_an_mlmodel_that_is_none_is_an_error_in_words(tmp_path: Path, text: str) -> None:
    (tmp_path / "MLmodel").write_text(text)
    with pytest.raises(ArtifactError, match=r"MLmodel is not one that MLflow writes"):
        classify(describe(tmp_path))


def test_an_mlmodel_without_end_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("a: b\n" * 2_000_000)
    with pytest.raises(ArtifactError, match="larger than 8 MiB"):
        classify(describe(tmp_path))
