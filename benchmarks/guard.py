"""What it costs to be careful: authentication, limits and checks, on and off, beside each other."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks import contenders
from benchmarks.bench import Bench
from benchmarks.http_client import HOST
from benchmarks.row import Row
from benchmarks.servers import free_port
from benchmarks.settings import beside, medians, side_by_side
from fin_pyfunc.serving.callers.keys import KeyFile
from fin_pyfunc.serving.callers.principal import Scope

CONNECTIONS = 16
#: A rate that nobody reaches, so that it is the counting that is measured.
RATE = "100000000/minute"
OFF, KEYS, JWT, SHARED = "off", "an API key and a rate", "a JWT and a rate", "an API key and a rate in Redis"
#: Part of the throughput with all of it off that has to be left.
LEFT = 0.9


def measure(bench: Bench) -> list[Row]:
    """The same server once a way to guard it, side by side."""
    uri = bench.models.ours["forest"]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, contextlib.ExitStack() as stack:
        file = KeyFile(Path(folder, "keys.json"))
        key = file.add("bench", [Scope.PREDICT], ["models:/*", "runs:/*", "file:/*"])
        token, by_jwt = _issued(Path(folder, "jwks.json"))
        by_key = {"FIN_PYFUNC__AUTH__MODE": "keys", "FIN_PYFUNC__AUTH__KEYS_FILE": str(Path(folder, "keys.json"))}
        rate = {"FIN_PYFUNC__RATE__REQUESTS": RATE}
        ways: dict[str, tuple[dict[str, str], str | None]] = {
            OFF: ({}, None),
            KEYS: ({**by_key, **rate}, key),
            JWT: ({**by_jwt, **rate}, token),
        }
        if shutil.which("redis-server"):
            storage = stack.enter_context(_redis(folder))
            ways[SHARED] = ({**by_key, **rate, "FIN_PYFUNC__RATE__STORAGE": storage}, key)
        servers = []
        for name, (environ, credential) in ways.items():
            headers = () if credential is None else (f"Authorization: Bearer {credential}",)
            servers.append(contenders.ours(uri, name=name, environ=environ)._replace(headers=headers))
        found = side_by_side(bench, servers, CONNECTIONS)
    what = f"requests/s at {CONNECTIONS} connections"
    lines = [
        Row(9, f"{what}, {name} to none of it", "×", beside(of, found[OFF]), LEFT if name in (KEYS, JWT) else None)
        for name, of in found.items()
        if name != OFF
    ]
    return lines + [Row(9, f"{what}, {name}", "/s", medians(of, lambda w: w.found.rate)) for name, of in found.items()]


def _issued(jwks: Path) -> tuple[str, dict[str, str]]:
    """A token, and the settings of a server that takes it."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = json.loads(jwt.get_algorithm_by_name("ES256").to_jwk(key.public_key()))
    jwks.write_text(json.dumps({"keys": [{**public, "kid": "1"}]}), encoding="utf-8")
    claims = {"iss": "bench", "aud": "bench", "sub": "bench", "scope": "predict", "exp": time.time() + 86400}
    environ = {"MODE": "jwt", "JWKS": str(jwks), "ISSUER": "bench", "AUDIENCE": "bench"}
    token = jwt.encode(claims, key, "ES256", {"kid": "1"})
    return token, {f"FIN_PYFUNC__AUTH__{name}": value for name, value in environ.items()}


@contextlib.contextmanager
def _redis(folder: str) -> Iterator[str]:
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", HOST, "--save", "", "--dir", folder]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        time.sleep(1)
        yield f"redis://{HOST}:{port}/0"
    finally:
        process.terminate()
        process.wait()
