"""An issuer of JWT for the tests: keys of every kind, a JWKS, and an HTTP server that answers with it."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

ISSUER, AUDIENCE = "https://idp.test/", "fin-pyfunc"
_MAKERS: dict[str, Any] = {
    "RS256": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


class Signer:
    """One private key."""

    def __init__(self, algorithm: str, kid: str) -> None:
        self.algorithm, self.kid, self.key = algorithm, kid, _MAKERS[algorithm]()

    def jwk(self, **more: Any) -> dict[str, Any]:
        """The public half, as a JWKS lists it."""
        kind: Any = jwt.get_algorithm_by_name(self.algorithm)
        return {**json.loads(kind.to_jwk(self.key.public_key())), "kid": self.kid, **more}

    def token(self, headers: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """A token that is as it should be, but for the claims given; one that is None is left out."""
        now = int(time.time())
        said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "desk", "scope": "predict models", "exp": now + 300, **claims}
        said = {name: value for name, value in said.items() if value is not None}
        # not jwt.encode, which refuses to write some of what an issuer may get wrong
        head = {"typ": "JWT", "kid": self.kid, **(headers or {})}
        return jwt.PyJWS().encode(json.dumps(said).encode(), self.key, self.algorithm, head)


class Published(http.server.ThreadingHTTPServer):
    """A JWKS at an address, which can be changed, counted, and made to fail."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.keys: list[dict[str, Any]] = []
        self.status, self.asked = 200, 0
        self.headers: dict[str, str] = {}
        self.uri = f"http://127.0.0.1:{self.server_port}/jwks.json"


class _Answer(http.server.BaseHTTPRequestHandler):
    server: Published

    def do_GET(self) -> None:
        self.server.asked += 1
        body = json.dumps({"keys": self.server.keys}).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (its name there)
        pass


@contextmanager
def published(*keys: dict[str, Any]) -> Iterator[Published]:
    """An address that answers with these keys."""
    server = Published()
    server.keys = list(keys)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
