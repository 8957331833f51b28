"""HTTPS by the server itself, with a certificate made here, and the headers that make browsers careful."""

from __future__ import annotations

import datetime
import os
import socket
import ssl
import subprocess
from ipaddress import ip_address
from pathlib import Path

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.conftest import free_port
from tests.servers import COMMAND, serving


def certificate(folder: Path, name: str = "server", password: bytes | None = None) -> tuple[Path, Path]:
    """A certificate of this machine's loopback that signs itself, and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number()).add_extension(names, critical=False)
    made = made.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(hours=1))
    kept: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        kept = serialization.BestAvailableEncryption(password)
    files = folder / f"{name}.crt", folder / f"{name}.key"
    files[0].write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, kept))
    return files


def test_it_serves_https_and_says_to_stay_with_it(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    with serving("--certfile", str(cert), "--keyfile", str(key), folder=tmp_path, wait_for=None) as server:
        server.wait_for_log("ready")
        port = server.url.rpartition(":")[2]
        for path in ("/health/live", "/docs", "/no/such/route"):
            answered = requests.get(f"https://127.0.0.1:{port}{path}", verify=str(cert), timeout=30)
            assert answered.headers["Strict-Transport-Security"] == "max-age=31536000"
        assert f"https://127.0.0.1:{port}" in server.log()
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(f"https://127.0.0.1:{port}/health/live", timeout=30)
        with pytest.raises(requests.RequestException):
            requests.get(f"http://127.0.0.1:{port}/health/live", timeout=30)
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        with socket.create_connection(("127.0.0.1", int(port)), 30) as plain, pytest.raises((ssl.SSLError, OSError)):
            old.wrap_socket(plain)


@pytest.mark.parametrize("wrong", ["missing", "another key", "no certificate", "a password", "a key alone"])
def test_a_certificate_that_cannot_be_used_ends_the_start_with_one_sentence(tmp_path: Path, wrong: str) -> None:
    cert, key = certificate(tmp_path)
    if wrong == "missing":
        key.unlink()
    elif wrong == "another key":
        key = certificate(tmp_path, "other")[1]
    elif wrong == "no certificate":
        cert.write_text("not a certificate")
    elif wrong == "a password":
        cert, key = certificate(tmp_path, password=b"secret")
    options = ["--keyfile", str(key)] if wrong == "a key alone" else ["--certfile", str(cert), "--keyfile", str(key)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("FIN_PYFUNC")}
    ended = subprocess.run(
        [*COMMAND, "--port", str(free_port()), *options],
        cwd=tmp_path, env=env, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 1
    (error,) = [line for line in ended.stderr.splitlines() if "Error" in line]
    assert "deployment.api.tls" in error
    assert "Traceback" not in ended.stderr


def test_every_answer_has_the_careful_headers_and_none_says_what_serves(tmp_path: Path) -> None:
    with serving(folder=tmp_path, wait_for="/health/live") as server:
        asked = [requests.get(server.url + path, timeout=30) for path in ("/", "/docs", "/health/live", "/models?x=1")]
        asked += [requests.post(server.url + "/predict", data="{", timeout=30), server.predict({})]
        for answered in asked:
            assert answered.headers["X-Content-Type-Options"] == "nosniff"
            assert answered.headers["X-Frame-Options"] == "DENY"
            assert answered.headers["Referrer-Policy"] == "no-referrer"
            assert "Server" not in answered.headers
            assert "Strict-Transport-Security" not in answered.headers
            said = str(answered.headers).lower()
            assert not any(name in said for name in ("uvicorn", "gunicorn", "python", "starlette"))


def test_a_client_that_keeps_its_connection_open_does_not_hold_up_the_end(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    context = ssl.create_default_context(cafile=str(cert))
    with serving("--certfile", str(cert), "--keyfile", str(key), folder=tmp_path, wait_for=None) as server:
        server.wait_for_log("ready")
        with (
            socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), 30) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1"),
        ):
            server.process.terminate()
            assert server.process.wait(20) == 0
