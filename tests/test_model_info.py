"""`GET /models/info` and the examples of /openapi.json: what a model takes, for those who may ask it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
import skops.io

from fin_pyfunc.serving.callers.keys import KeyFile
from fin_pyfunc.serving.callers.principal import Scope
from tests.documentation.reader import same
from tests.models import OF_FORESTS, bars
from tests.servers import serving
from tests.shelf import Shelf

CHAMPION = "models:/eurusd_rf@champion"


class Guarded:
    """A server that asks for keys, and one key of each kind."""

    def __init__(self, url: str, keys: dict[str, str], log: Any) -> None:
        self.url, self.keys, self.log = url, keys, log

    def get(self, path: str, key: str | None = "predict", **query: Any) -> requests.Response:
        headers = {} if key is None else {"Authorization": f"Bearer {self.keys[key]}"}
        return requests.get(self.url + path, params=query, headers=headers, timeout=60)

    def post(self, path: str, body: Any, content_type: str = "application/json") -> requests.Response:
        headers = {"Authorization": f"Bearer {self.keys['predict']}", "Content-Type": content_type}
        if content_type == "application/json":
            return requests.post(self.url + path, json=body, headers=headers, timeout=60)
        return requests.post(self.url + path, data=body, headers=headers, timeout=60)


@pytest.fixture(scope="module")
def served(shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("info")
    file = KeyFile(folder / "keys.json")
    keys = {scope.value: file.add(scope.value, [scope]) for scope in (Scope.PREDICT, Scope.MODELS)}
    keys["words"] = file.add("words", [Scope.PREDICT], [shelf.uris["words"]])
    (folder / "roots").mkdir()
    skops.io.dump(shelf.estimators["sklearn"], folder / "roots" / "forest.skops")
    env = {
        "MLFLOW_TRACKING_URI": shelf.tracking_uri,
        "FIN_PYFUNC__AUTH__MODE": "keys",
        "FIN_PYFUNC__AUTH__KEYS_FILE": str(folder / "keys.json"),
        "FIN_PYFUNC__MODELS__FILE_ROOTS": str(folder / "roots"),
    }
    with serving("-m", CHAMPION, folder=folder, env=env) as server:
        yield Guarded(server.url, keys | {"folder": str(folder)}, server.log)


def test_the_default_model_is_described_in_full(served: Guarded, shelf: Shelf) -> None:
    answered = served.get("/models/info")
    info = answered.json()
    assert (info["model_uri"], info["run_id"]) == (CHAMPION, shelf.run_ids["forest"])
    assert info["model_id"] == answered.headers["X-Model-ID"]
    assert answered.headers["X-Model-URI"] == CHAMPION
    assert [feature["name"] for feature in info["features"]] == list(bars().columns)
    spread = next(feature for feature in info["features"] if feature["name"] == "spread")
    assert (spread["type"], spread["dtype"], spread["nullable"], spread["optional"]) == (
        *("number", "float64"),
        *(False, False),
    )
    assert (spread["training_min"], spread["training_max"]) == (bars()["spread"].min(), bars()["spread"].max())
    assert (info["identifiers"], info["extra"]) == (["bar_id"], "ignore")
    assert (info["classes"], info["has_probabilities"]) == ([-1, 0, 1], True)
    assert info["thresholds"] == {"high": 0.8, "medium": 0.6}
    assert info["backend"] == OF_FORESTS
    assert "native" in info["backends"]
    assert info["estimator"].endswith("RandomForestClassifier")
    assert len(info["artifact_sha256"]) == 64
    assert info["created"].startswith("20")
    assert served.post("/predict", {"features": info["example"]["features"]}).status_code == 200


@pytest.mark.parametrize(
    ("kind", "classes", "has_probabilities", "estimator"),
    [
        ("words", ["down", "flat", "up"], True, "LogisticRegression"),
        ("margin", [-1, 1], False, "LinearSVC"),
        ("gaps", [-1, 0, 1], True, "RandomForestClassifier"),
        ("fails", [-1, 1], False, "Fails"),
        ("sklearn", [-1, 0, 1], True, "RandomForestClassifier"),
        ("unsigned", [-1, 0, 1], True, "LogisticRegression"),
        ("echo", None, False, None),
        ("artifact", [-1, 0, 1], True, "RandomForestClassifier"),
    ],
)
def test_any_other_model_is_described_as_far_as_it_is_known(
    served: Guarded, shelf: Shelf, kind: str, classes: Any, has_probabilities: bool, estimator: str | None
) -> None:
    info = served.get("/models/info", model_uri=shelf.uris[kind]).json()
    assert info["model_uri"] == shelf.uris[kind]
    assert (info["classes"], info["has_probabilities"]) == (classes, has_probabilities)
    assert estimator is None or info["estimator"].endswith(estimator)
    if kind == "echo":  # it was logged without a signature
        assert info["features"] is None
    else:
        assert [feature["name"] for feature in info["features"]] == list(bars().columns)
    assert any(f["nullable"] for f in info["features"] or ()) == (kind in ("gaps", "sklearn", "unsigned"))
    assert (info["example"] is None) == (kind in ("sklearn", "unsigned", "echo"))


def test_a_bare_file_is_described_without_a_path_of_the_server(served: Guarded) -> None:
    uri = f"file://{served.keys['folder']}/roots/forest.skops"
    info = served.get("/models/info", model_uri=uri).json()
    assert info["classes"] == [-1, 0, 1]
    assert info["model_id"].startswith("sha256:")
    assert (info["run_id"], info["created"]) == (None, None)


@pytest.mark.parametrize(
    ("key", "kind", "status"),
    [
        (None, None, 401),
        ("models", None, 403),
        ("models", "words", 403),
        ("words", "words", 200),
        ("words", None, 403),
        ("words", "forest", 403),
        ("predict", "forest", 200),
    ],
)
def test_it_is_for_those_who_may_ask_the_model(
    served: Guarded, shelf: Shelf, key: str | None, kind: str | None, status: int
) -> None:
    answered = served.get("/models/info", key, **({} if kind is None else {"model_uri": shelf.uris[kind]}))
    assert answered.status_code == status
    assert ("features" in answered.json()) == (status == 200)


def test_what_a_caller_may_not_ask_is_not_loaded(served: Guarded, shelf: Shelf) -> None:
    assert served.get("/models/info", "words", model_uri=shelf.uris["strict"]).status_code == 403
    assert served.get("/models/info", model_uri="file:///etc/passwd.skops").status_code == 403
    assert shelf.uris["strict"] not in served.log()


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("model_uri=models:/eurusd_rf/99", 404),
        ("model_uri=s3://bucket/model", 422),
        ("model_uri=", 422),
        ("model_uri=models:/eurusd_rf/1&model_uri=models:/eurusd_rf/1", 422),
        ("uri=models:/eurusd_rf/1", 422),
    ],
)
def test_a_question_that_is_none_is_refused_in_a_sentence(served: Guarded, query: str, status: int) -> None:
    answered = served.get(f"/models/info?{query}")
    assert answered.status_code == status
    assert answered.json()["detail"].endswith((".", ")"))


def test_every_example_of_the_document_is_answered_by_the_default_model(served: Guarded) -> None:
    document = served.get("/openapi.json").json()
    for path in ("/predict", "/predict/batch", "/invocations"):
        operation = document["paths"][path]["post"]
        for content_type, content in operation["requestBody"]["content"].items():
            shown = [content["example"]] if "example" in content else []
            shown += [each["value"] for each in content.get("examples", {}).values()]
            for body in shown:
                answered = served.post(path, body, content_type)
                assert answered.status_code == 200, (path, body, answered.text)
    bodies = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["examples"]
    with_uri = next(each["value"] for each in bodies.values() if "model_uri" in each["value"])
    answers = document["paths"]["/predict"]["post"]["responses"]["200"]["content"]["application/json"]["examples"]
    answered = served.post("/predict", {**with_uri, "return_proba": True}).json()
    assert same(answered, answers["with-probabilities"]["value"])
    assert document["components"]["headers"]["X-Model-URI"]["example"] == CHAMPION


@pytest.mark.parametrize("key", [None, "models", "words"])
def test_a_caller_who_may_not_ask_the_default_model_sees_general_examples(served: Guarded, key: str | None) -> None:
    text = served.get("/openapi.json", key).text
    assert "order_flow_imbalance" not in text


def test_a_refusal_over_http_names_this_route(served: Guarded) -> None:
    detail = served.post("/predict", {"features": {"bidprice": 1.1}}).json()["detail"]
    assert "did you mean 'bidPrice'?" in detail
    assert "GET /models/info" in detail
    assert "fin-pyfunc" not in detail
