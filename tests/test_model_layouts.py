"""Model folders as older versions of MLflow and other tools wrote them: each is known for what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fin_pyfunc.model.errors import ArtifactError
from tests.test_model_folder import classified

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
