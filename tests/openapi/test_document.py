"""What linters and generators stumble over, looked for without them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from fin_pyfunc.serving.schemas import BatchRequest, BatchResponse, ModelInfo, PredictRequest, PredictResponse
from tests.openapi.documents import documents

DOCUMENTS = documents()
#: Without a credential, whatever the server's settings are (`middleware.auth.OPEN`).
OPEN = {"/", "/health", "/health/live", "/health/ready", "/ping"}


def parts(node: Any, path: str = "#") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object in a document but examples, with its path."""
    if isinstance(node, dict):
        yield path, node
        for key, value in node.items():
            if key not in ("example", "examples") or path.endswith("/properties"):
                yield from parts(value, f"{path}/{key}")
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from parts(value, f"{path}/{i}")


@pytest.fixture(params=list(DOCUMENTS))
def document(request: pytest.FixtureRequest) -> dict[str, Any]:
    return DOCUMENTS[request.param]


def test_it_is_valid(document: dict[str, Any]) -> None:
    pytest.importorskip("openapi_spec_validator").OpenAPIV31SpecValidator(document).validate()


def test_every_array_says_what_is_in_it_and_every_body_has_a_schema(document: dict[str, Any]) -> None:
    for path, part in parts(document):
        if part.get("type") == "array":
            assert "items" in part, path
        for content_type, content in part.get("content", {}).items() if "/paths/" in path else ():
            assert "schema" in content, (path, content_type)


def test_every_operation_says_whether_it_wants_a_credential(document: dict[str, Any]) -> None:
    for path, item in document["paths"].items():
        for operation in item.values():
            wanted = [] if path in OPEN else [{}, {"bearer": []}, {"api-key": []}]
            assert operation["security"] == wanted, path


def test_no_key_of_a_body_has_a_default_which_generators_would_demand(document: dict[str, Any]) -> None:
    assert [path for path, part in parts(document["components"]["schemas"]) if "default" in part] == []


def test_every_component_is_used(document: dict[str, Any]) -> None:
    used = {part["$ref"] for _, part in parts(document) if "$ref" in part}
    for kind, components in document["components"].items():
        if kind != "securitySchemes":
            assert {f"#/components/{kind}/{name}" for name in components} <= used


@pytest.mark.parametrize("name", list(DOCUMENTS))
def test_every_example_is_taken_by_its_type(name: str) -> None:
    paths = DOCUMENTS[name]["paths"]
    bodies = [
        (paths["/predict"]["post"]["requestBody"], PredictRequest),
        (paths["/predict"]["post"]["responses"]["200"], PredictResponse),
        (paths["/predict/batch"]["post"]["requestBody"], BatchRequest),
        (paths["/predict/batch"]["post"]["responses"]["200"], BatchResponse),
        (paths["/models/info"]["get"]["responses"]["200"], ModelInfo),
    ]
    for described, kind in bodies:
        content = described["content"]["application/json"]
        shown = [content["example"]] if "example" in content else [e["value"] for e in content["examples"].values()]
        for value in shown:
            msgspec.convert(value, kind)


def test_a_models_own_document_shows_no_other_model() -> None:
    for name in ("a model", "a model without an example"):
        for path in ("/predict", "/predict/batch", "/invocations"):
            text = str(DOCUMENTS[name]["paths"][path])
            assert "bidPrice" not in text
            assert "a category" in text
            assert "abc123" not in text


def test_it_is_the_same_however_often_it_is_made() -> None:
    assert documents() == DOCUMENTS
