"""JWT: which are taken, and every way in which one is not."""

from __future__ import annotations

import asyncio
import base64
import fnmatch
import hashlib
import hmac
import json
import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from fin_pyfunc.serving.callers import jwks
from fin_pyfunc.serving.callers.jwks import KeySet, KeySetError
from fin_pyfunc.serving.callers.keys import KeyFile
from fin_pyfunc.serving.callers.principal import Scope, Subject
from fin_pyfunc.serving.callers.tokens import Tokens
from fin_pyfunc.serving.patterns import allows
from fin_pyfunc.serving.settings import Auth
from tests.issuer import AUDIENCE, ISSUER, Signer, published
from tests.servers import Serving, serving
from tests.shelf import Shelf

SIGNERS = {name: Signer(name, f"key-{name}") for name in ("RS256", "ES256", "EdDSA")}


def settings(source: str, **more: Any) -> Auth:
    return Auth(mode="jwt", jwks=source, issuer=ISSUER, audience=AUDIENCE, **more)


def key_file(folder: Path, *keys: dict[str, Any]) -> str:
    file = folder / "jwks.json"
    file.write_text(json.dumps({"keys": list(keys)}))
    return str(file)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    source = key_file(tmp_path_factory.mktemp("jwks"), *(signer.jwk() for signer in SIGNERS.values()))
    keys = KeySet(source, 300)
    keys.load()
    return Tokens(settings(source, leeway_seconds=5), keys)


def verified(tokens: Tokens, token: str) -> Subject | None:
    async def ask() -> Subject | None:
        return tokens.peek(token) or await tokens.verify(token)

    return asyncio.run(ask())


@pytest.mark.parametrize("algorithm", SIGNERS)
def test_a_token_of_each_algorithm_speaks_for_its_subject(tokens: Tokens, algorithm: str) -> None:
    signed = SIGNERS[algorithm].token(scope="predict admin openid", models=["models:/eurusd_*", "runs:/*"])
    expected = Subject(
        id="jwt:desk", scopes=frozenset({Scope.PREDICT, Scope.ADMIN}), models=("models:/eurusd_*", "runs:/*")
    )
    assert verified(tokens, signed) == expected
    assert verified(tokens, signed) == expected  # and again, from memory


@pytest.mark.parametrize(
    "claims",
    [
        {"scope": ["predict"]},
        {"scope": None},
        {"scope": ""},
        {"aud": ["other", AUDIENCE]},
        {"nbf": int(time.time()) - 60},
        {"models": "models:/a models:/b/*"},
        {"exp": int(time.time()) + 3600.5},
    ],
)
def test_the_forms_that_issuers_write_are_taken(tokens: Tokens, claims: dict[str, Any]) -> None:
    assert verified(tokens, SIGNERS["ES256"].token(**claims)) is not None


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "application/at+jwt"])
def test_an_access_tokens_types_are_taken(tokens: Tokens, kind: str) -> None:
    assert verified(tokens, SIGNERS["EdDSA"].token({"typ": kind})) is not None


NOW = int(time.time())


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": NOW - 60},
        {"exp": None},
        {"exp": "soon"},
        {"exp": 1e400},
        {"nbf": NOW + 3600},
        {"nbf": "later"},
        {"iss": "https://idp.test"},
        {"iss": None},
        {"iss": [ISSUER]},
        {"aud": "somebody-else"},
        {"aud": None},
        {"aud": []},
        {"sub": None},
        {"sub": ""},
        {"sub": "x" * 500},
        {"sub": "two\nlines"},
        {"sub": 7},
        {"scope": {"predict": True}},
        {"scope": [1]},
        {"models": 3},
        {"models": ["https://elsewhere/*"]},
    ],
    ids=lambda claims: re.sub(r"\d{10}", "NOW", str(claims)),  # each process of the run has its own now
)
def test_a_token_with_a_wrong_or_missing_claim_is_not_taken(tokens: Tokens, claims: dict[str, Any]) -> None:
    assert verified(tokens, SIGNERS["RS256"].token(**claims)) is None


def test_a_token_for_no_model_is_for_none(tokens: Tokens) -> None:

    subject = verified(tokens, SIGNERS["RS256"].token(models=[]))
    assert subject is not None
    assert not any(allows(subject.models, uri) for uri in ("models:/a/1", "runs:/a/model", "file:///a"))


@pytest.mark.parametrize(
    "header",
    [
        {"typ": "logout+jwt"},
        {"typ": "id+jwt"},
        {"typ": "dpop+jwt"},
        {"crit": ["exp"], "exp": 1},
        {"crit": ["b64"], "b64": True},
        {"kid": "nobody"},
        {"kid": "../../etc/passwd"},
        {"kid": "key-ES256"},
    ],
    ids=lambda claims: re.sub(r"\d{10}", "NOW", str(claims)),  # each process of the run has its own now
)
def test_a_token_whose_header_asks_for_something_else_is_not_taken(tokens: Tokens, header: dict[str, Any]) -> None:
    assert verified(tokens, SIGNERS["RS256"].token(header)) is None


def encoded(part: bytes | dict[str, Any]) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


CLAIMS = {"iss": ISSUER, "aud": AUDIENCE, "sub": "desk", "scope": "predict", "exp": NOW + 3600}


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", ""])
def test_an_unsigned_token_is_not_taken(tokens: Tokens, algorithm: str) -> None:
    for kid in ({"kid": "key-RS256"}, {}):
        unsigned = f"{encoded({'alg': algorithm, **kid})}.{encoded(CLAIMS)}."
        assert verified(tokens, unsigned) is None
        assert verified(tokens, unsigned + encoded(b"x")) is None


@pytest.mark.parametrize("signer", SIGNERS)
def test_an_hmac_with_a_public_key_as_its_secret_is_not_taken(tokens: Tokens, signer: str) -> None:
    public = SIGNERS[signer].key.public_key()
    secrets = [
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(SIGNERS[signer].jwk()).encode(),
        b"",
    ]
    for digest in ("sha256", "sha384", "sha512"):
        for secret in secrets:
            head = encoded({"alg": f"HS{digest[3:]}", "kid": f"key-{signer}"})
            mac = hmac.new(secret, f"{head}.{encoded(CLAIMS)}".encode(), getattr(hashlib, digest)).digest()
            assert verified(tokens, f"{head}.{encoded(CLAIMS)}.{encoded(mac)}") is None


def test_a_key_that_a_token_brings_along_is_not_believed(tokens: Tokens) -> None:
    stranger = Signer("RS256", "key-RS256")
    with published(stranger.jwk()) as theirs:
        for header in ({"jwk": stranger.jwk()}, {"jku": theirs.uri}, {"x5u": theirs.uri}, {}):
            assert verified(tokens, stranger.token(header)) is None
        assert theirs.asked == 0


def test_a_token_that_was_changed_is_not_taken(tokens: Tokens) -> None:
    head, body, signature = SIGNERS["ES256"].token().split(".")
    other = encoded({**CLAIMS, "scope": "predict admin"})
    flipped = ("A" if signature[0] != "A" else "B") + signature[1:]
    changed = [
        f"{head}.{other}.{signature}",
        f"{head}.{body}.{flipped}",
        f"{head}.{body}.",
        f"{head}.{body}",
        f"{body}.{head}",
    ]
    for text in [*changed, "", ".", "..", "a.b.c", "é.é.é", "x" * 10_000, f"{head}.{body}.{signature}=.", "\ud800"]:
        assert verified(tokens, text) is None


def test_a_remembered_token_ends_with_its_time_and_with_its_key(tmp_path: Path) -> None:
    signer = Signer("EdDSA", "a")
    source = key_file(tmp_path, signer.jwk())
    keys = KeySet(source, 300)
    keys.load()
    known = Tokens(settings(source, leeway_seconds=0), keys)
    short, long = signer.token(exp=time.time() + 1.5), signer.token()
    assert verified(known, short) is not None
    assert verified(known, long) is not None
    time.sleep(1.6)
    assert verified(known, short) is None
    key_file(tmp_path, Signer("EdDSA", "b").jwk())
    keys.load()
    assert verified(known, long) is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        ("{", "is no JWKS"),
        ("[]", "is no JWKS"),
        ('{"keys": 3}', "is no JWKS"),
        ('{"keys": []}', "holds no key"),
        ('{"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "key-RS256"}]}', "holds no key"),
        ('{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}', "holds no key"),
    ],
)
def test_a_key_set_that_cannot_be_used_says_why_and_shows_none_of_it(
    tmp_path: Path, content: str | None, said: str
) -> None:
    if content is not None:
        (tmp_path / "jwks.json").write_text(content)
    with pytest.raises(KeySetError, match=said) as caught:
        KeySet(str(tmp_path / "jwks.json"), 300).load()
    assert "c2VjcmV0" not in str(caught.value)


def test_only_signing_keys_of_the_three_kinds_are_taken_from_a_set(tmp_path: Path) -> None:
    signer = SIGNERS["RS256"]
    others = [{"use": "enc"}, {"alg": "RS512"}, {"key_ops": ["encrypt"]}, {"kty": "EC"}]
    for more in others:
        with pytest.raises(KeySetError, match="holds no key"):
            KeySet(key_file(tmp_path, signer.jwk(**more)), 300).load()
    KeySet(key_file(tmp_path, *(signer.jwk(**more) for more in others), signer.jwk(use="sig", alg="RS256")), 300).load()


# --- an issuer at an address ------------------------------------------------------------------------------------------


def test_a_rotated_key_is_fetched_and_made_up_keys_are_not_fetched_for_more_than_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = Signer("ES256", "first"), Signer("ES256", "second")

    async def rotate() -> None:
        with published(first.jwk()) as issuer:
            known = Tokens(settings(issuer.uri), KeySet(issuer.uri, 300))
            assert known.is_unable
            many = await asyncio.gather(*(known.verify(first.token(sub=f"desk-{i}")) for i in range(20)))
            assert all(many)
            assert issuer.asked == 1
            issuer.keys = [second.jwk()]
            for i in range(50):
                assert await known.verify(first.token({"kid": f"made-up-{i}"})) is None
            assert issuer.asked == 1  # within AGAIN_SECONDS of the last
            monkeypatch.setattr(jwks, "AGAIN_SECONDS", 0.0)
            known._keys._not_before = 0.0
            assert await known.verify(second.token()) is not None
            assert await known.verify(first.token()) is None
            issuer.status = 500
            issuer.keys = []
            assert await known.verify(second.token(sub="another")) is not None  # the keys read last hold
            assert await known.verify(first.token()) is None
            issuer.status, issuer.headers = 302, {"Location": issuer.uri}
            asked = issuer.asked
            assert await known.verify(first.token()) is None
            assert issuer.asked == asked + 1  # no redirect is followed

    with caplog.at_level(logging.INFO):
        asyncio.run(rotate())
    assert "answered with 500" in caplog.text
    assert "eyJ" not in caplog.text


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


# --- patterns ---------------------------------------------------------------------------------------------------------

PIECES = st.lists(st.sampled_from(["models:/", "runs:/", "a", "b", "@", "/", ".", "(", "+", "*", "**"]), max_size=8)


@given(pattern=PIECES.map("".join), uri=PIECES.map("".join))
def test_a_pattern_takes_what_a_shells_star_would_take(pattern: str, uri: str) -> None:
    assert allows([pattern], uri) == bool(fnmatch.fnmatchcase(uri, pattern))
    assert allows([pattern], pattern.replace("*", "x/y"))
    assert not allows([], uri)


def test_no_pattern_makes_a_search_long() -> None:
    pattern = "models:/" + "*a" * 200 + "b"
    assert not allows([pattern], "models:/" + "a" * 1000)
