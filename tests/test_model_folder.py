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
from sklearn.base import clone
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
        lambda path: sklearn(
            path, make_pipeline(StandardScaler(), clone(ESTIMATOR)).fit(X, Y), serialization_format="skops"
        ),
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


def test_a_skops_model_of_a_regressor_is_refused_wherever_it_is_opened(tmp_path: Path) -> None:
    sklearn(tmp_path / "model", LinearRegression().fit(X, Y), serialization_format="skops")
    for trust in ("all", "data"):
        with pytest.raises(ArtifactError, match=r"not a .*classifier"), opened(tmp_path / "model", trust):
            pass


def test_a_skops_model_of_clusters_is_answered_by_mlflow_where_code_may_run(tmp_path: Path) -> None:
    sklearn(tmp_path / "model", KMeans(2, n_init=1).fit(X, Y), serialization_format="skops")
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
