"""Images are built and run for real: one model, no network, nothing writable, nothing that a server may not do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fin_pyfunc
from fin_pyfunc.demo.bars import FEATURES, make_bars
from fin_pyfunc.serving.snapshot import digest
from tests.conftest import tracking_to
from tests.docker.conftest import BASE_IMAGE, NETWORK, ROOT, Champion, ask, docker, inspect, running, told

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]

#: What an image may take beyond its base, in MB; 11 of them are the driver of PostgreSQL with its own libpq.
OVER_BASE_MB = 465
LOCKED_DOWN = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "none")


@pytest.fixture(scope="module")
def image(champion: Champion) -> str:
    """The champion's image, as `fin-pyfunc image build` makes it."""
    tag = "fin-pyfunc-test-model"
    command = [sys.executable, "-m", "fin_pyfunc_cli", "image", "build", "-m", champion.uri, "-t", tag]
    options = ["--mlflow-tracking-uri", champion.tracking_uri, "--network", NETWORK, "--base-image", BASE_IMAGE]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=1700, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert f"docker run --rm -p 127.0.0.1:8000:8000 {tag}" in done.stdout
    return tag


@pytest.fixture(scope="module")
def container(image: str) -> Iterator[str]:
    """The image without a network, a writable file, a capability."""
    with running(image, *LOCKED_DOWN) as started:
        yield started


def test_the_image_answers_as_the_model_does_without_any_network(champion: Champion, container: str) -> None:
    labels = inspect(inspect(container)["Image"])["Config"]["Labels"]
    rows = make_bars(20)[list(FEATURES)].astype(float).to_dict("records")
    with tracking_to(champion.tracking_uri):
        model = fin_pyfunc.load_model(champion.uri)
    for row in rows:
        answer, headers = ask(container, "/predict", {"features": row, "return_proba": True})
        expected = model.predict_one(row)
        assert answer["prediction"] == expected["prediction"]
        assert answer["probability"] == pytest.approx(expected["probability"], abs=1e-6)
        assert headers["x-model-id"] == f"sha256:{labels['fin-pyfunc.model-sha256']}"


def test_the_labels_say_which_model_and_which_bytes(champion: Champion, image: str, tmp_path: Path) -> None:
    labels = inspect(image)["Config"]["Labels"]
    assert labels["fin-pyfunc.model-id"] == champion.model_id
    assert labels["fin-pyfunc.model-uri"] == champion.uri
    assert labels["fin-pyfunc.run-id"]
    unstarted = docker("create", image).strip()
    docker("cp", f"{unstarted}:/model", str(tmp_path))
    docker("rm", unstarted)
    assert digest(tmp_path / "model") == f"sha256:{labels['fin-pyfunc.model-sha256']}"


def test_nothing_runs_as_root_and_nothing_is_writable(container: str) -> None:
    assert docker("exec", container, "id", "-u").strip() == "10001"
    tried = docker(
        "exec", container, "sh", "-c", "touch /model/x /opt/venv/x /data/x 2>/dev/null; ls /model/x", check=False
    )
    assert tried == ""


def test_sigterm_ends_the_first_process_within_the_drain_time(image: str) -> None:
    with running(image, *LOCKED_DOWN) as started:
        docker("stop", "--time", "30", started)
        state = inspect(started)["State"]
        assert (state["ExitCode"], state["OOMKilled"]) == (0, False), docker("logs", started)


def test_the_image_is_no_larger_than_promised(image: str) -> None:
    own, base = (inspect(name)["Size"] / 1e6 for name in (image, BASE_IMAGE))
    model = (
        int(docker("run", "--rm", "--network", "none", "--entrypoint", "du", image, "-sk", "/model").split()[0]) / 1000
    )
    assert own - base - model <= OVER_BASE_MB


def mlflow_models(command: str, *arguments: str, champion: Champion, path: str) -> None:
    """`mlflow models` …, of the champion."""
    with tracking_to(champion.tracking_uri):
        done = subprocess.run(
            [sys.executable, "-m", "mlflow", "models", command, "-m", champion.uri, *arguments],
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=1700,
        )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def test_mlflow_s_own_image_of_our_model_is_built_unchanged_and_answers(champion: Champion, tmp_path: Path) -> None:
    path = f"{told(tmp_path / 'bin', 'none')}{os.pathsep}{os.environ['PATH']}"
    written = tmp_path / "written"
    mlflow_models("generate-dockerfile", "-d", str(written), champion=champion, path=path)
    # its base is named by the model's own Python; a daemon without a registry has the stand-in under that name
    (named,) = (
        line.split()[1] for line in (written / "Dockerfile").read_text().splitlines() if line.startswith("FROM")
    )
    docker("tag", BASE_IMAGE, named)
    docker("build", "--network", NETWORK, "--tag", "fin-pyfunc-test-generated", str(written), seconds=1500)
    # "local": its default builds Python itself from GitHub, on a base of its own
    built = ("-n", "fin-pyfunc-test-built", "--env-manager", "local")
    mlflow_models("build-docker", *built, champion=champion, path=path)
    for image in ("fin-pyfunc-test-generated", "fin-pyfunc-test-built"):
        answers_invocations(image)


def answers_invocations(image: str) -> None:
    """Run it without a network, and ask it as MLflow's clients do."""
    frame = make_bars(1)[list(FEATURES)].astype(float)
    container = docker("run", "--detach", "--network", "none", image).strip()
    try:
        answer = wait_for_invocations(container, {"dataframe_split": frame.to_dict("split")})
        assert answer["predictions"][0]["prediction"] in (-1, 0, 1)
    finally:
        docker("rm", "--force", container)


def wait_for_invocations(container: str, body: dict[str, Any], port: int = 8080) -> Any:
    """What MLflow's scoring server answers, once it does."""
    code = (
        "import sys, time, urllib.request as r\n"
        "q = r.Request(sys.argv[1], sys.argv[2].encode(), {'Content-Type': 'application/json'})\n"
        "for _ in range(120):\n"
        "    try: print(r.urlopen(q).read().decode()); break\n"
        "    except OSError: time.sleep(0.5)"
    )
    url = f"http://127.0.0.1:{port}/invocations"
    return json.loads(docker("exec", container, "python", "-c", code, url, json.dumps(body)))


def test_what_a_model_may_need_is_in_the_image(image: str) -> None:
    code = (
        "import lightgbm, mlflow.lightgbm, mlflow.sklearn, mlflow.xgboost, skl2onnx, sklearn.svm, treelite, xgboost\n"
        "import numpy as np\n"
        "x = np.random.default_rng(0).normal(size=(90, 3)); y = np.arange(90) % 3\n"
        "for family in (lightgbm.LGBMClassifier(n_estimators=3, verbose=-1), xgboost.XGBClassifier(n_estimators=3)):\n"
        "    print(family.fit(x, y).predict_proba(x).shape)"
    )
    said = docker("run", "--rm", *LOCKED_DOWN, "--tmpfs", "/tmp", "--entrypoint", "python", image, "-c", code)
    assert said.split("\n")[:2] == ["(90, 3)", "(90, 3)"]
