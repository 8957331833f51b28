"""What each kind of model's folder is taken for: every one that MLflow writes or has written, and none by mistake."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import cloudpickle
import lightgbm
import mlflow
import numpy as np
import onnx
import pytest
import skops.io
import xgboost
import yaml
from mlflow.models import Model, infer_signature
from skl2onnx import to_onnx
from sklearn.cluster import KMeans
from sklearn.linear_model import LinearRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fin_pyfunc
from fin_pyfunc.model.errors import ArtifactError, ModelForbiddenError
from fin_pyfunc.serving.loaded_model import LoadedModel
from fin_pyfunc.serving.loader import load
from fin_pyfunc.serving.model_folder import ModelFolder, classify
from fin_pyfunc.serving.resolver import Resolver
from fin_pyfunc.serving.snapshot import describe
from fin_pyfunc.serving.uris import parse
from tests.models import labels, logistic

cloudpickle.register_pickle_by_value(sys.modules[__name__])
REQUIREMENTS = {"pip_requirements": ["scikit-learn"]}
ESTIMATOR, X = logistic().estimator, logistic().train
Y = labels(0, 1)[: len(X)]
ROW = X.iloc[:1]


class Constant(mlflow.pyfunc.PythonModel):  # type: ignore[misc] # mlflow ships no types
    def predict(self, context: Any, model_input: Any, params: Any = None) -> list[int]:
        return [1] * len(model_input)


def sklearn(path: Path, estimator: Any = ESTIMATOR, **options: Any) -> None:
    mlflow.sklearn.save_model(estimator, path, **{**REQUIREMENTS, **options})


def graph() -> onnx.ModelProto:
    return to_onnx(ESTIMATOR, X.to_numpy()[:1].astype("float32"), options={"zipmap": False})


def large_graph() -> onnx.ModelProto:
    network = MLPClassifier((60, 60), max_iter=5, random_state=0).fit(X.to_numpy(), Y)
    made = to_onnx(network, X.to_numpy()[:1].astype("float32"), options={"zipmap": False})
    for numbers in made.graph.initializer:  # as bytes, which alone go to a file of their own
        numbers.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(numbers), numbers.name))
    return made


def save_onnx(path: Path, model: onnx.ModelProto | None = None, **options: Any) -> None:
    mlflow.onnx.save_model(model or graph(), path, **{**REQUIREMENTS, "save_as_external_data": False, **options})


def own(path: Path, **options: Any) -> None:
    fin_pyfunc.save_model(ESTIMATOR, X, path, **{"input_example": None, **options})


def module(path: Path) -> str:
    file = path.parent / f"helpers_{path.name.replace('-', '_')}.py"
    file.write_text("def _load_pyfunc(path):\n    return None\n")
    return str(file)


def lgb_classifier() -> lightgbm.LGBMClassifier:
    return lightgbm.LGBMClassifier(n_estimators=2, verbose=-1).fit(X, Y)


def xgb_classifier() -> xgboost.XGBClassifier:
    return xgboost.XGBClassifier(n_estimators=2).fit(X, Y)


def python_model(path: Path, **options: Any) -> None:
    mlflow.pyfunc.save_model(path, **{"python_model": Constant(), **REQUIREMENTS, **options})


def around_ours(path: Path) -> None:
    """An ensemble of somebody's own that keeps one of our artifacts in its folder, under our name."""
    own(path.with_name(f"{path.name} inner"))
    inner = path.with_name(f"{path.name} inner") / "artifacts" / "fin_pyfunc"
    python_model(path, artifacts={"fin_pyfunc": str(inner)})


def from_code(path: Path) -> None:
    script = path.parent / "own_script.py"
    script.write_text(
        "import mlflow\nclass M(mlflow.pyfunc.PythonModel):\n    def predict(self, model_input):\n"
        "        return [1] * len(model_input)\nmlflow.models.set_model(M())\n"
    )
    mlflow.pyfunc.save_model(path, python_model=str(script), **REQUIREMENTS)


def loader_module(path: Path) -> None:
    file = module(path)
    mlflow.pyfunc.save_model(path, loader_module=Path(file).stem, code_paths=[file], data_path=file, **REQUIREMENTS)


def with_another_flavor(path: Path) -> None:
    """A company's own flavor beside MLflow's: extra information for another tool."""
    described = Model()
    described.add_flavor("our_company", desk="fx", approved=True)
    sklearn(path, serialization_format="skops", mlflow_model=described)


def stacked(path: Path) -> None:
    """An ONNX export kept in the folder of the model that is served."""
    described = Model()
    save_onnx(path, mlflow_model=described)
    mlflow.xgboost.save_model(xgb_classifier(), path.with_name("second"), mlflow_model=described, **REQUIREMENTS)
    for file in path.with_name("second").iterdir():
        file.replace(path / file.name)


DATA: dict[str, tuple[str, Callable[[Path], None]]] = {
    "sklearn skops": ("skops", lambda path: sklearn(path, serialization_format="skops")),
    "sklearn skops, signature, example, metadata": (
        "skops",
        lambda path: sklearn(
            path,
            serialization_format="skops",
            signature=infer_signature(X, ESTIMATOR.predict(X)),
            input_example=ROW,
            metadata={"desk": {"name": "fx", "limits": [1, 2.5, None]}, "since": "2024-01-01"},
            extra_files=[__file__],
        ),
    ),
    "sklearn skops, predict_proba": (
        "skops",
        lambda path: sklearn(path, serialization_format="skops", pyfunc_predict_fn="predict_proba"),
    ),
    "sklearn skops, its own list of types": (
        "skops",
        lambda path: sklearn(path, serialization_format="skops", skops_trusted_types=["collections.OrderedDict"]),
    ),
    "sklearn skops, a pipeline": (
        "skops",
        lambda path: sklearn(path, make_pipeline(StandardScaler(), ESTIMATOR).fit(X, Y), serialization_format="skops"),
    ),
    "sklearn skops, a flavor of a company's own": ("skops", with_another_flavor),
    "lightgbm skops": (
        "skops",
        lambda path: mlflow.lightgbm.save_model(lgb_classifier(), path, serialization_format="skops", **REQUIREMENTS),
    ),
    "onnx": ("onnx", save_onnx),
    "onnx, as MLflow writes it by default": ("onnx", lambda path: save_onnx(path, save_as_external_data=True)),
    "onnx, options of its session": (
        "onnx",
        lambda path: save_onnx(
            path,
            onnx_execution_providers=["CPUExecutionProvider"],
            onnx_session_options={"graph_optimization_level": 99, "intra_op_num_threads": 1},
        ),
    ),
    "ours": ("fin_pyfunc", own),
    "ours, example and thresholds": ("fin_pyfunc", lambda path: fin_pyfunc.save_model(ESTIMATOR, X, path)),
}
CODE: dict[str, tuple[str, Callable[[Path], None]]] = {
    "sklearn cloudpickle": ("pyfunc", lambda path: sklearn(path, serialization_format="cloudpickle")),
    "sklearn pickle": ("pyfunc", lambda path: sklearn(path, serialization_format="pickle")),
    "sklearn skops, code_paths": (
        "pyfunc",
        lambda path: sklearn(path, serialization_format="skops", code_paths=[module(path)]),
    ),
    "sklearn skops, decision_function": (
        "pyfunc",
        lambda path: sklearn(path, serialization_format="skops", pyfunc_predict_fn="decision_function"),
    ),
    "lightgbm cloudpickle": (
        "pyfunc",
        lambda path: mlflow.lightgbm.save_model(
            lgb_classifier(), path, serialization_format="cloudpickle", **REQUIREMENTS
        ),
    ),
    "lightgbm Booster": (
        "pyfunc",
        lambda path: mlflow.lightgbm.save_model(lgb_classifier().booster_, path, **REQUIREMENTS),
    ),
    "xgboost": ("pyfunc", lambda path: mlflow.xgboost.save_model(xgb_classifier(), path, **REQUIREMENTS)),
    "xgboost Booster": (
        "pyfunc",
        lambda path: mlflow.xgboost.save_model(xgb_classifier().get_booster(), path, **REQUIREMENTS),
    ),
    "pyfunc": ("pyfunc", python_model),
    "pyfunc, code_paths, artifacts and config": (
        "pyfunc",
        lambda path: python_model(
            path, code_paths=[module(path)], artifacts={"some": module(path)}, model_config={"a": 1}
        ),
    ),
    "pyfunc, a function": ("pyfunc", lambda path: python_model(path, python_model=lambda model_input: model_input)),
    "pyfunc around an artifact of ours": ("pyfunc", around_ours),
    "models from code": ("pyfunc", from_code),
    "a loader module": ("pyfunc", loader_module),
    "an ONNX export beside the model served": ("pyfunc", stacked),
    "ours, cloudpickle": ("fin_pyfunc", lambda path: own(path, serialization="cloudpickle")),
    "ours, code_paths": ("fin_pyfunc", lambda path: own(path, code_paths=[module(path)])),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@cache
def saved(root: Path, name: str) -> Path:
    """A model, saved once."""
    folder = root / re.sub(r"\W+", "-", name)
    {**DATA, **CODE}[name][1](folder)
    return folder


def classified(folder: Path) -> ModelFolder:
    return classify(describe(folder))


@pytest.mark.parametrize("name", DATA)
def test_a_model_that_is_data_is_told_by_its_form(root: Path, name: str) -> None:
    folder = classified(saved(root, name))
    assert (folder.form, folder.runs_code) == (DATA[name][0], None)
    assert "MLmodel" in folder.files
    assert not any(file.startswith("code/") and file.endswith(".py") for file in folder.files)


@pytest.mark.parametrize("name", CODE)
def test_a_model_that_may_run_code_says_why(root: Path, name: str) -> None:
    folder = classified(saved(root, name))
    assert folder.form == CODE[name][0]
    assert folder.runs_code


@contextmanager
def opened(folder: Path, trust: str) -> Iterator[LoadedModel]:
    resolver = Resolver(None, file_roots=[folder.parent], trust=trust)
    try:
        yield load(resolver, resolver.resolve(parse(folder.as_uri())))
    finally:
        resolver.close()


#: MLflow saves these and cannot answer for them.
UNANSWERED = ("a loader module", "sklearn skops, decision_function")


@pytest.mark.parametrize("name", [name for name in {**DATA, **CODE} if name not in UNANSWERED])
def test_every_model_answers_here_as_mlflow_answers_for_it(root: Path, name: str) -> None:
    folder = saved(root, name)
    expected = mlflow.pyfunc.load_model(str(folder)).predict(asked(name))
    with opened(folder, "data" if name in DATA else "all") as loaded:
        answered = loaded.pyfunc.predict(asked(name))
    for one, other in zip(flat(expected), flat(answered), strict=True):
        np.testing.assert_array_equal(one, other)


def asked(name: str) -> Any:
    if name.startswith("onnx"):
        return X.to_numpy().astype("float32")
    return X


def flat(answer: Any) -> list[Any]:
    """An answer's columns."""
    if isinstance(answer, dict):
        return [np.asarray(answer[key]) for key in sorted(answer)]
    if hasattr(answer, "columns"):
        return [answer[column].to_numpy() for column in answer]
    return [np.asarray(answer)]


@pytest.mark.parametrize("estimator", [LinearRegression(), KMeans(2, n_init=1)], ids=["regressor", "clusters"])
def test_a_skops_model_that_is_no_classifier_is_answered_by_mlflow_where_code_may_run(
    tmp_path: Path, estimator: Any
) -> None:
    sklearn(tmp_path / "model", estimator.fit(X, Y), serialization_format="skops")
    assert classified(tmp_path / "model").form == "skops"
    with opened(tmp_path / "model", "all") as loaded:
        assert len(loaded.pyfunc.predict(X)) == len(X)
    with pytest.raises(ArtifactError, match="not a fitted classifier"), opened(tmp_path / "model", "data"):
        pass


def test_an_onnx_model_in_several_files_is_answered_by_mlflow_where_code_may_run(tmp_path: Path) -> None:
    save_onnx(tmp_path / "model", large_graph(), save_as_external_data=True)
    assert classified(tmp_path / "model").form == "onnx"
    assert (tmp_path / "model" / "model.onnx").stat().st_size < 5_000  # its numbers lie beside it
    with opened(tmp_path / "model", "all") as loaded:
        assert len(loaded.pyfunc.predict(asked("onnx"))["label"]) == len(X)
    with pytest.raises(ArtifactError), opened(tmp_path / "model", "data"):
        pass


# --- what older versions of MLflow wrote, and other tools

PICKLED = b"never opened"
SIGNATURE = {
    "inputs": '[{"name": "return_1", "type": "double"}, {"name": "order_flow_imbalance", "type": "double"}]',
    "outputs": '[{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}]',
}
RUN = {"artifact_path": "model", "run_id": "451060d166ea47a99cf699a83a77cc57"}
ENV2 = {"conda": "conda.yaml", "virtualenv": "python_env.yaml"}
OLD: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "MLflow 0.9, sklearn": (
        "pyfunc",
        {**RUN, "utc_time_created": "2019-05-19 18:43:53.714752"},
        {
            "python_function": {
                "data": "model.pkl",
                "env": "conda.yaml",
                "loader_module": "mlflow.sklearn",
                "python_version": "2.7.16",
            },
            "sklearn": {
                "pickled_model": "model.pkl",
                "serialization_format": "cloudpickle",
                "sklearn_version": "0.20.3",
            },
        },
    ),
    "MLflow 0.1, sklearn": (
        "pyfunc",
        {"time_created": "2018-05-25T17:28:53.35"},
        {
            "sklearn": {"sklearn_version": "0.19.1", "pickled_model": "model.pkl"},
            "python_function": {"loader_module": "mlflow.sklearn"},
        },
    ),
    "MLflow 1.30, sklearn": (
        "pyfunc",
        {**RUN, "mlflow_version": "1.30.0", "model_uuid": "0" * 32, "signature": SIGNATURE},
        {
            "python_function": {
                "env": "conda.yaml",
                "loader_module": "mlflow.sklearn",
                "model_path": "model.pkl",
                "python_version": "3.8.10",
            },
            "sklearn": {
                "code": None,
                "pickled_model": "model.pkl",
                "serialization_format": "cloudpickle",
                "sklearn_version": "1.0.2",
            },
        },
    ),
    "MLflow 2.22, sklearn": (
        "pyfunc",
        {
            **RUN, "mlflow_version": "2.22.0", "model_size_bytes": 6354463, "model_uuid": "0" * 32, "prompts": None,
            "is_signature_from_type_hint": False, "type_hint_from_example": False,
            "signature": {**SIGNATURE, "params": None},
            "saved_input_example_info": {"artifact_path": "input_example.json", "type": "dataframe"},
        },
        {
            "python_function": {
                "env": ENV2, "loader_module": "mlflow.sklearn", "model_path": "model.pkl", "predict_fn": "predict",
                "python_version": "3.11.11",
            },
            "sklearn": {
                "code": None, "pickled_model": "model.pkl", "serialization_format": "cloudpickle",
                "sklearn_version": "1.6.1",
            },
        },
    ),
    "MLflow 1.8, onnx": (
        "onnx",
        {**RUN, "utc_time_created": "2020-05-19 18:43:53.714752"},
        {
            "onnx": {"data": "model.onnx", "onnx_version": "1.6.0"},
            "python_function": {
                "data": "model.onnx",
                "env": "conda.yaml",
                "loader_module": "mlflow.onnx",
                "python_version": "3.7.3",
            },
        },
    ),
    "MLflow 2.9, onnx": (
        "onnx",
        {**RUN, "mlflow_version": "2.9.2", "signature": SIGNATURE},
        {
            "onnx": {
                "code": None, "data": "model.onnx", "onnx_session_options": None, "onnx_version": "1.15.0",
                "providers": ["CUDAExecutionProvider", "CPUExecutionProvider"],
            },
            "python_function": {
                "data": "model.onnx", "env": ENV2, "loader_module": "mlflow.onnx", "python_version": "3.9.16",
            },
        },
    ),
    "a converter's own MLmodel, onnx": (
        "onnx",
        {"mlflow_version": "2.14.1"},
        {
            "onnx": {"data": "data/model.onnx", "providers": ["CPUExecutionProvider"]},
            "python_function": {"env": "conda.yaml", "loader_module": "mlflow.onnx"},
        },
    ),
    "MLflow 2.16, lightgbm": (
        "pyfunc",
        {**RUN, "mlflow_version": "2.16.2"},
        {
            "lightgbm": {
                "code": None, "data": "model.lgb", "lgb_version": "4.5.0", "model_class": "lightgbm.basic.Booster",
            },
            "python_function": {"data": "model.lgb", "env": ENV2, "loader_module": "mlflow.lightgbm"},
        },
    ),
    "MLflow 1.20, pyfunc": (
        "pyfunc",
        {**RUN, "utc_time_created": "2021-09-19 18:43:53.714752"},
        {
            "python_function": {
                "artifacts": {"m": {"path": "artifacts/m", "uri": "/home/quant/m"}}, "cloudpickle_version": "2.0.0",
                "code": "code", "env": "conda.yaml", "loader_module": "mlflow.pyfunc.model",
                "python_model": "python_model.pkl", "python_version": "3.8.10",
            }
        },
    ),
    "MLflow 1.0, a loader of its own": (
        "pyfunc",
        {**RUN},
        {"python_function": {"code": "code", "data": "data/model.pkl", "loader_module": "loader", "env": "env.yml"}},
    ),
    "MLflow 1.30, spark and mleap": (
        "pyfunc",
        {**RUN},
        {
            "mleap": {"mleap_version": "0.18", "model_data": "mleap/model"},
            "python_function": {"data": "sparkml", "env": "conda.yaml", "loader_module": "mlflow.spark"},
            "spark": {"model_data": "sparkml", "pyspark_version": "3.2.1", "code": None},
        },
    ),
    "MLflow 2.9, statsmodels": (
        "pyfunc",
        {**RUN},
        {
            "python_function": {"data": "model.statsmodels", "env": ENV2, "loader_module": "mlflow.statsmodels"},
            "statsmodels": {"code": None, "data": "model.statsmodels", "statsmodels_version": "0.14"},
        },
    ),
    "MLflow 2.9, pytorch with an ONNX export": (
        "pyfunc",
        {**RUN},
        {
            "onnx": {"data": "model.onnx", "onnx_version": "1.15.0"},
            "python_function": {
                "data": "data", "env": ENV2, "loader_module": "mlflow.pytorch", "pickle_module_name": "m",
            },
            "pytorch": {"code": None, "model_data": "data", "pytorch_version": "2.1.0"},
        },
    ),
    "Databricks' feature store around another model": (
        "pyfunc",
        {**RUN, "databricks_runtime": "13.3"},
        {
            "feature_store": {"model": "x"},
            "python_function": {
                "code": "code", "data": "data/feature_store", "env": ENV2,
                "loader_module": "databricks.feature_store.mlflow_model",
            },
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OLD)
def test_what_older_versions_and_other_tools_wrote_is_known(tmp_path: Path, name: str) -> None:
    form, described, flavors = OLD[name]
    for file in ("model.pkl", "model.onnx", "model.lgb", "data/model.onnx", "conda.yaml", "code/loader.py"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(PICKLED)
    (tmp_path / "MLmodel").write_text(yaml.safe_dump({**described, "flavors": flavors}))
    folder = classified(tmp_path)
    assert folder.form == form
    assert (folder.runs_code is None) == (form == "onnx")
    assert (folder.signature is None) == ("signature" not in described)


def test_a_model_that_mlflow_cannot_serve_says_how_to_log_one(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text(yaml.safe_dump({"flavors": {"crate": {"model": "crate.bin", "version": "0.5"}}}))
    with pytest.raises(ArtifactError, match="no flavor 'python_function'"):
        classified(tmp_path)


# --- what is refused


def changed(root: Path, tmp_path: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> Path:
    folder = tmp_path / "changed"
    shutil.copytree(saved(root, name), folder)
    described = yaml.safe_load((folder / "MLmodel").read_text())
    change(described)
    (folder / "MLmodel").write_text(yaml.safe_dump(described))
    return folder


def function(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda described: described["flavors"]["python_function"].update(values)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("sklearn skops", function(data="sub")),
        ("sklearn skops", function(data="sub/e.pkl")),
        ("sklearn skops", function(model_path="other.skops")),
        ("sklearn skops", function(loader_module="mlflow.pyfunc.model")),
        ("sklearn skops", function(loader_module="mlflow.onnx")),
        ("sklearn skops", function(loader_module=["mlflow.sklearn"])),
        ("sklearn skops", function(artifacts={"fin_pyfunc": {"path": "artifacts/fin_pyfunc"}})),
        ("sklearn skops", lambda described: described.update(metadata={"fin_pyfunc": {}})),
        ("sklearn skops", lambda described: described["flavors"].update(onnx={"data": "model.onnx"})),
        ("onnx", function(data="other.onnx")),
        ("onnx", function(model_path="model.pkl")),
        ("lightgbm skops", function(data="model.pkl")),
        ("ours", function(loader_module="mlflow.sklearn")),
        ("ours", function(python_model="python_model.pkl")),
        ("ours", function(data="data")),
        ("ours", function(artifacts={"fin_pyfunc": {"path": "elsewhere"}})),
        ("ours", function(artifacts={"fin_pyfunc": {"path": "artifacts/fin_pyfunc"}, "another": {"path": "x"}})),
        ("ours", lambda described: described["flavors"].update(sklearn={"pickled_model": "model.pkl"})),
    ],
)
def test_a_folder_that_two_readers_could_read_in_two_ways_is_refused(
    root: Path, tmp_path: Path, name: str, change: Callable[[dict[str, Any]], Any]
) -> None:
    with pytest.raises(ModelForbiddenError, match="can be read in two ways"):
        classified(changed(root, tmp_path, name, change))


@pytest.mark.parametrize("other", ["ours, cloudpickle", "ours"])
@pytest.mark.parametrize("name", ["sklearn skops", "onnx", "sklearn cloudpickle"])
def test_a_folder_into_which_an_artifact_of_ours_was_copied_is_refused(
    root: Path, tmp_path: Path, name: str, other: str
) -> None:
    folder = changed(root, tmp_path, name, lambda described: None)
    shutil.copytree(saved(root, other) / "artifacts", folder / "artifacts")
    with pytest.raises(ModelForbiddenError, match="can be read in two ways"):
        classified(folder)


@pytest.mark.parametrize("where", ["/etc", "../code", "data", ".", ["code"], {"code": 1}, True, "code/"])
def test_code_that_lies_elsewhere_is_refused(root: Path, tmp_path: Path, where: Any) -> None:
    with pytest.raises(ModelForbiddenError, match="code elsewhere"):
        classified(changed(root, tmp_path, "pyfunc", function(code=where)))


@pytest.mark.parametrize("file", ["../model.skops", "/etc/passwd", "nobody", "", None, 3, ["model.skops"], "."])
def test_a_data_file_that_is_not_in_the_folder_is_an_error(root: Path, tmp_path: Path, file: Any) -> None:
    def change(described: dict[str, Any]) -> None:
        described["flavors"]["sklearn"]["pickled_model"] = described["flavors"]["python_function"]["model_path"] = file

    with pytest.raises(ArtifactError, match="names a file that is not in its folder"):
        classified(changed(root, tmp_path, "sklearn skops", change))


@pytest.mark.parametrize(
    "signature", [3, "[]", [], {"inputs": [{"name": "a"}]}, {"inputs": {"a": 1}}, {"outputs": 1}, {"params": ["a"]}]
)
def test_a_signature_that_is_none_is_an_error(root: Path, tmp_path: Path, signature: Any) -> None:
    with pytest.raises(ArtifactError, match="MLmodel is not one that MLflow writes"):
        classified(changed(root, tmp_path, "sklearn skops", lambda described: described.update(signature=signature)))


@pytest.mark.parametrize(("kind", "runs"), [("pickle", True), ("joblib", True), ("skops", False), ("onnx", False)])
def test_a_bare_file_is_what_it_is_called(tmp_path: Path, kind: str, runs: bool) -> None:
    skops.io.dump(ESTIMATOR, tmp_path / f"model.{kind}")
    folder = classify(describe(tmp_path / f"model.{kind}"), kind)
    assert (folder.form, folder.is_bare, bool(folder.runs_code)) == (kind, True, runs)
    assert folder.data_file == tmp_path / f"model.{kind}"
