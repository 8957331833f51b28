"""The documentation is true: the README's commands run, and every setting is in the reference."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import requests

from tests.conftest import free_port

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


class Block(NamedTuple):
    """A fenced block: its language, what it is for, and its text."""

    language: str
    role: str
    text: str


def blocks(markdown: str) -> list[Block]:
    found = re.findall(r"^```(\w+)(?: (\w+))?\n(.*?)^```$", markdown, re.M | re.S)
    return [Block(*parts) for parts in found]


class Shop(NamedTuple):
    """A folder of its own, with an environment in which the README's commands find everything."""

    folder: Path
    env: dict[str, str]
    port: int

    def run(self, text: str) -> str:
        moved = text.replace("8000", str(self.port))
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", moved],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, f"{moved}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("readme")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "FIN_PYFUNC"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{clean['PATH']}"
    ready = Shop(folder, {**clean, "PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true"}, free_port())
    ready.run("fin-pyfunc demo")
    return ready


@pytest.fixture(
    scope="module", params=[b for b in blocks(README) if b.role == "server"], ids=lambda b: b.text.split()[0]
)
def server(shop: Shop, request: pytest.FixtureRequest) -> Iterator[str]:
    """Each command of the README that starts a server, in turn; ended with all its processes."""
    command = request.param.text.strip().replace("8000", str(shop.port))
    log = shop.folder / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=shop.folder,
            env=shop.env,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{shop.port}"
    try:
        deadline = time.monotonic() + 90
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            try:
                if requests.get(url + "/ping", timeout=5).ok:
                    break
            except requests.ConnectionError:
                pass
            time.sleep(0.1)
        yield command.split()[0]
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


def test_the_servers_of_the_readme_start_and_answer_as_it_shows(shop: Shop, server: str) -> None:
    if server == "fin-pyfunc":
        (client,) = (b for b in blocks(README) if b.role == "client")
        (answer,) = (b for b in blocks(README) if b.role == "answer")
        got, shown = json.loads(shop.run(client.text)), json.loads(answer.text)
        assert list(got) == list(shown)
        assert got == {
            **shown,
            "probability": pytest.approx(shown["probability"]),
            "probabilities": pytest.approx(shown["probabilities"]),
        }


def test_the_command_line_of_the_readme_runs(shop: Shop) -> None:
    (text,) = (b.text for b in blocks(README) if b.language == "bash" and not b.role and "fin-pyfunc" in b.text)
    out = shop.run(text)
    assert "models:/" in out
    assert (shop.folder / "predictions.parquet").exists()


def test_the_python_of_the_readme_runs(shop: Shop) -> None:
    (text,) = (b.text for b in blocks(README) if b.language == "python")
    (shop.folder / "readme.py").write_text(text, encoding="utf-8")
    shop.run("python readme.py")


def test_the_make_targets_of_the_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    for document in ("README.md", "CONTRIBUTING.md"):
        named = set(re.findall(r"^make ([a-z]+)", (ROOT / document).read_text(encoding="utf-8"), re.M))
        assert named <= targets, document


def test_every_setting_is_in_the_reference() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        from generate import reference  # type: ignore[import-not-found]
    finally:
        sys.path.pop(0)
    assert (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8") == reference(), "run make docs"


@pytest.mark.parametrize(
    "document", ["README.md", "CONTRIBUTING.md", *(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]
)
def test_every_link_to_a_file_leads_to_one(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target
