"""Thousands of made-up requests, by schemathesis from the server's own /openapi.json: no 500, nothing undocumented."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sklearn.linear_model import LogisticRegression

import fin_pyfunc
from fin_pyfunc.serving.callers.keys import KeyFile
from fin_pyfunc.serving.callers.principal import Scope
from tests.models import bars, labels
from tests.servers import Serving, empty_store, serving

#: All checks (schemathesis' default) but these, each for a reason. What a features object has to hold is known to the
#: model and not to the document, so a request that fits the document may be refused. MLflow's own routes answer as
#: MLflow does: an empty line and a bare version that call themselves JSON; and any `params` is taken. A further key of
#: a row is ignored whatever it holds, and so is what a query string says beside a JSON body.
CONFIG = """
[checks]
positive_data_acceptance.expected-statuses = ["2xx", 400, 401, 403, 404, 406, 413, 415, 422, 429, 503, 504]

[[operations]]
include-path = ["/ping", "/version"]
checks.response_schema_conformance.enabled = false

[[operations]]
include-path = ["/invocations", "/predict", "/predict/batch"]
checks.negative_data_rejection.enabled = false
"""


#: What an operator decides is asked on a server of its own: it stops models.
OPERATORS = "^/admin/"


@pytest.fixture(scope="module", params=["--exclude-path-regex", "--include-path-regex"], ids=["clients", "operators"])
def made_up_for(request: pytest.FixtureRequest) -> str:
    """The option that tells schemathesis whose routes to ask."""
    return str(request.param)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A file of keys, and its one key, which may do everything."""
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    return path, KeyFile(path).add("all", list(Scope))


@pytest.fixture(scope="module")
def server(made_up_for: str, keys: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("made-up")
    fin_pyfunc.save_model(LogisticRegression().fit(bars(), labels(-1, 0, 1)), bars(), folder / "model")
    (folder / "m.db").write_bytes(empty_store())
    env = {"MLFLOW_TRACKING_URI": "sqlite:///m.db"}
    if made_up_for == "--include-path-regex":  # over TCP operators need a key
        env |= {"FIN_PYFUNC__AUTH__MODE": "keys", "FIN_PYFUNC__AUTH__KEYS_FILE": str(keys[0])}
    with serving("-m", str(folder / "model"), folder=folder, env=env) as server:
        yield server


def made_up(server: Serving, folder: Path, whose: str, key: str, examples: int) -> int:
    """Ask, hold every answer against every check, and say how many requests that were."""
    (folder / "schemathesis.toml").write_text(CONFIG)
    # one worker: two that compile at once meet "AST constructor recursion depth mismatch" in Python 3.11
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"]
    command += ["--max-examples", str(examples), "--seed", "7", "--workers", "1", "--no-color"]
    command += ["--header", f"Authorization: Bearer {key}"]
    command += [whose, OPERATORS, "--request-timeout", "60", "--max-response-time", "60"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    found = re.search(r"(\d+) generated", done.stdout)
    assert found is not None, done.stdout[-3000:]
    return int(found[1])


def test_made_up_requests_are_answered_as_documented(
    server: Serving, made_up_for: str, keys: tuple[Path, str], tmp_path: Path
) -> None:
    assert made_up(server, tmp_path, made_up_for, keys[1], 5) > 20
    assert "Traceback" not in server.log()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_thousands_of_made_up_requests_are_answered_as_documented(
    server: Serving, made_up_for: str, keys: tuple[Path, str], tmp_path: Path
) -> None:
    assert made_up(server, tmp_path, made_up_for, keys[1], 200) > 400
    assert "Traceback" not in server.log()
