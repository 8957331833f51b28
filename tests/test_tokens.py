"""JWT: which are taken, and every way in which one is not."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import re
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fin_pyfunc.serving.callers import jwks
from fin_pyfunc.serving.callers.jwks import KeySet, KeySetError
from fin_pyfunc.serving.callers.principal import Scope, Subject
from fin_pyfunc.serving.callers.tokens import Tokens
from fin_pyfunc.serving.patterns import allows
from fin_pyfunc.serving.settings import Auth
from tests.issuer import AUDIENCE, ISSUER, Signer, published

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
