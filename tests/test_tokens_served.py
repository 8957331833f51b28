"""Keys and tokens at a server that takes both: scopes, models, and what is 401, 403 or 503."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from fin_pyfunc.serving.callers.keys import KeyFile
from fin_pyfunc.serving.callers.principal import Scope
from tests.issuer import AUDIENCE, ISSUER, published
from tests.servers import Serving, serving
from tests.shelf import Shelf
from tests.test_tokens import SIGNERS


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, shelf: Shelf) -> Iterator[Serving]:
    """A server that takes keys and tokens; its default model is a registered one."""
    folder = tmp_path_factory.mktemp("tokens")
    file = KeyFile(folder / "keys.json")
    env = {
        "MLFLOW_TRACKING_URI": shelf.tracking_uri,
        "FIN_PYFUNC__AUTH__MODE": "keys+jwt",
        "FIN_PYFUNC__AUTH__KEYS_FILE": str(folder / "keys.json"),
        "FIN_PYFUNC__AUTH__ISSUER": ISSUER,
        "FIN_PYFUNC__AUTH__AUDIENCE": AUDIENCE,
        "FIN_PYFUNC__RATE__REQUESTS": "1000/minute",
    }
    made = {
        "all": file.add("all", [Scope.PREDICT, Scope.MODELS]),
        "eurusd": file.add("eurusd", [Scope.PREDICT, Scope.MODELS], ["models:/eurusd_*@champion"]),
        "runs": file.add("runs", [Scope.PREDICT, Scope.MODELS], [f"{shelf.uris['words']}", "runs:/nobody/*"]),
        "admin": file.add("admin", [Scope.ADMIN]),
    }
    with published(*(signer.jwk() for signer in SIGNERS.values())) as issuer:
        env["FIN_PYFUNC__AUTH__JWKS"] = issuer.uri
        with serving("-m", "models:/eurusd_rf@champion", folder=folder, env=env) as server:
            server.keys = made  # type: ignore[attr-defined]
            yield server


def ask(server: Serving, token: str, body: dict[str, Any], path: str = "/predict") -> requests.Response:
    return requests.post(server.url + path, json=body, headers={"Authorization": f"Bearer {token}"}, timeout=60)


ROW = {"bar_id": 1, "spread": 0.1, "return_1": 0.2}


def test_a_key_and_a_token_are_both_taken_where_both_may_be(guarded: Serving) -> None:
    for credential in (guarded.keys["all"], *(signer.token() for signer in SIGNERS.values())):  # type: ignore[attr-defined]
        answered = ask(guarded, credential, {"features": {}})
        assert answered.status_code == 422
        assert "missing" in answered.json()["detail"]
    for wrong in ("fpk_0", SIGNERS["RS256"].token(aud="other"), "eyJhbGciOiJub25lIn0.e30."):
        answered = ask(guarded, wrong, {"features": {}})
        assert answered.status_code == 401
        assert "JWT" in answered.json()["detail"]
        assert "X-API-Key" in answered.json()["detail"]


def test_a_token_has_its_scopes_and_no_others(guarded: Serving) -> None:
    limited = SIGNERS["ES256"].token(scope="models")
    assert ask(guarded, limited, {"features": {}}).status_code == 403
    listed = requests.get(guarded.url + "/models", headers={"Authorization": f"Bearer {limited}"}, timeout=60)
    assert listed.status_code == 200
    assert listed.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(("path", "scope"), [("/metrics", "metrics"), ("/admin", "admin"), ("/admin/any", "admin")])
def test_what_is_the_operators_wants_a_scope_of_its_own(guarded: Serving, path: str, scope: str) -> None:
    refused = requests.get(guarded.url + path, headers={"X-API-Key": guarded.keys["all"]}, timeout=60)  # type: ignore[attr-defined]
    assert refused.status_code == 403
    assert f"'{scope}'" in refused.json()["detail"]
    token = SIGNERS["ES256"].token(scope=scope)
    asked = requests.get(guarded.url + path, headers={"Authorization": f"Bearer {token}"}, timeout=60)
    assert asked.status_code not in (401, 403)
    assert requests.get(guarded.url + path, timeout=60).status_code == 401


def test_a_credential_is_for_its_models_alone(guarded: Serving, shelf: Shelf) -> None:
    keys = guarded.keys  # type: ignore[attr-defined]
    words = shelf.uris["words"]
    by_token = SIGNERS["EdDSA"].token(models=["models:/eurusd_*"])
    may = [
        (keys["eurusd"], None),
        (keys["eurusd"], "models:/eurusd_rf@champion"),
        (keys["runs"], words),
        (by_token, "models:/eurusd_rf/1"),
        (by_token, "models:/eurusd_rf@champion"),
        (by_token, None),
    ]
    may_not = [
        (keys["eurusd"], "models:/eurusd_rf/1"),
        (keys["eurusd"], words),
        (keys["eurusd"], "models:/eurusd_rf@champion "),
        (keys["eurusd"], "MODELS:/eurusd_rf@champion"),
        (keys["eurusd"], "models:/eurusd_" + "x" * 5000 + "@champion"),
        (keys["runs"], None),
        (keys["runs"], "models:/eurusd_rf@champion"),
        (by_token, words),
    ]
    for credential, uri in may:
        named = {} if uri is None else {"model_uri": uri}
        assert ask(guarded, credential, {**named, "features": {}}).status_code == 422, uri
        assert ask(guarded, credential, {**named, "features_list": [{}]}, "/predict/batch").status_code == 422, uri
    for credential, uri in may_not:
        named = {} if uri is None else {"model_uri": uri}
        for path, body in (("/predict", {"features": {}}), ("/predict/batch", {"features_list": [{}]})):
            answered = ask(guarded, credential, {**named, **body}, path)
            assert answered.status_code == 403, (path, uri)
            assert "not for this model" in answered.json()["detail"]
    assert ask(guarded, keys["runs"], {"dataframe_records": [ROW]}, "/invocations").status_code == 403
    table = requests.post(
        f"{guarded.url}/predict/batch",
        params={"model_uri": words},
        data="spread\n1\n",
        headers={"X-API-Key": keys["eurusd"], "Content-Type": "text/csv"},
        timeout=60,
    )
    assert table.status_code == 403


def test_the_list_shows_a_caller_the_models_that_it_may_ask_for(guarded: Serving, shelf: Shelf) -> None:
    keys = guarded.keys  # type: ignore[attr-defined]
    for name, shown in (("eurusd", []), ("runs", [shelf.uris["words"]])):
        listed = requests.get(guarded.url + "/models", headers={"X-API-Key": keys[name]}, timeout=60).json()
        assert [entry["model_uri"] for entry in listed["models"]] == shown
        assert listed["count"] == len(shown)


def test_a_request_with_two_credentials_of_a_kind_has_none(guarded: Serving) -> None:
    import http.client

    key = guarded.keys["all"]  # type: ignore[attr-defined]
    for name, value in (("X-API-Key", key), ("Authorization", f"Bearer {key}")):
        connection = http.client.HTTPConnection(guarded.url.removeprefix("http://"), timeout=60)
        connection.putrequest("GET", "/models")
        connection.putheader(name, value)
        connection.putheader(name, "another")
        connection.endheaders()
        assert connection.getresponse().status == 401
        connection.close()


def test_while_an_issuer_was_never_reached_tokens_are_503_and_keys_go_on(tmp_path: Path) -> None:
    token = KeyFile(tmp_path / "keys.json").add("desk", [Scope.PREDICT])
    env = {
        "FIN_PYFUNC__AUTH__MODE": "keys+jwt",
        "FIN_PYFUNC__AUTH__KEYS_FILE": "keys.json",
        "FIN_PYFUNC__AUTH__JWKS": "http://127.0.0.1:1/jwks.json",
        "FIN_PYFUNC__AUTH__ISSUER": ISSUER,
        "FIN_PYFUNC__AUTH__AUDIENCE": AUDIENCE,
    }
    with serving(folder=tmp_path, env=env, wait_for="/health/live") as server:
        answered = ask(server, SIGNERS["RS256"].token(), {"features": {}})
        assert answered.status_code == 503
        assert answered.headers["Retry-After"]
        assert ask(server, token, {"features": {}}).status_code == 422
        assert "cannot be fetched" in server.log()
        assert list(requests.get(server.url + "/health/live", timeout=60).json()) == ["status"]
