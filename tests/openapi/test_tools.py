"""Linters find nothing in the document, and generators make clients of it that compile and do not demand too much."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.openapi.documents import documents
from tests.openapi.tools import HERE, node_tools, python_tools, run

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
FILE = "openapi.json"


@pytest.fixture(params=list(documents()))
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    (tmp_path / FILE).write_text(json.dumps(documents()[request.param]))
    for name in ("spectral.yaml", "redocly.yaml", "openapi-python-client.yaml", "client.ts"):
        shutil.copy(HERE / name, tmp_path)
    return tmp_path


def test_spectral_finds_nothing(folder: Path) -> None:
    run(node_tools() / "spectral", "lint", FILE, "-r", "spectral.yaml", "--fail-severity", "hint", folder=folder)


def test_redocly_finds_nothing(folder: Path) -> None:
    said = run(node_tools() / "redocly", "lint", FILE, "--config", "redocly.yaml", folder=folder)
    assert "warning" not in said.partition("validating")[2].lower()


def test_typescript_that_sends_the_least_compiles_with_the_generated_types(folder: Path) -> None:
    tools = node_tools()
    run(tools / "openapi-typescript", FILE, "-o", "api.d.ts", folder=folder)
    run(tools / "tsc", "--strict", "--noEmit", "client.ts", folder=folder)


def test_openapi_python_client_makes_a_client_without_a_warning(folder: Path) -> None:
    tools = python_tools()
    options = ["--path", FILE, "--output-path", "made", "--fail-on-warning", "--config", "openapi-python-client.yaml"]
    run(tools / "openapi-python-client", "generate", *options, folder=folder)
    code = (
        "from fin_pyfunc_client.models import PredictRequest\n"
        "import fin_pyfunc_client.api.prediction.post_predict, fin_pyfunc_client.api.prediction.post_predict_batch\n"
        "least = {'features': {'spread': 0.0005, 'venue': 'EBS', 'open': None}}\n"
        "assert PredictRequest.from_dict(least).to_dict() == least"
    )
    run(tools / "python", "-c", code, folder=folder / "made")


def test_datamodel_codegen_makes_models_that_demand_the_features_alone(folder: Path) -> None:
    tools = python_tools()
    options = ["--input", FILE, "--input-file-type", "openapi", "--output", "made.py", "--formatters", "builtin"]
    options += ["--output-model-type", "pydantic_v2.BaseModel"]
    said = run(tools / "datamodel-codegen", *options, folder=folder)
    assert "Warning" not in said
    code = (
        "from made import PredictRequest, PredictResponse\n"
        "least = {'features': {'spread': 0.0005, 'venue': 'EBS', 'open': None}}\n"
        "assert PredictRequest(**least).model_dump(exclude_unset=True) == least\n"
        "answer = {'prediction': 1, 'probability': None, 'probabilities': None, 'confidence': 'high'}\n"
        "assert PredictResponse(**answer).model_dump(mode='json') == answer"
    )
    run(tools / "python", "-c", code, folder=folder)
