"""What the documents say of Docker is typed, in order, in a copy of this checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import free_port
from tests.docker.conftest import BASE_IMAGE, NETWORK, ROOT, docker, told, wait_for_log
from tests.documentation.blocks import DOCUMENTS, blocks, read
from tests.documentation.reader import Reader

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]

PROJECT = "fin-pyfunc-documents"


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """In a copy of what is here under version control, or could be."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if listed.returncode:
        pytest.skip("this is no git checkout")
    work = tmp_path / "checkout"
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, work / name)
    reader = DockerReader(work)
    reader.env |= {
        "PATH": f"{told(tmp_path / 'bin', PROJECT)}{os.pathsep}{reader.env['PATH']}",
        "COMPOSE_PROJECT_NAME": PROJECT,
        "BASE_IMAGE": BASE_IMAGE,
        "BUILD_NETWORK": NETWORK,
        "API_PORT": str(reader.port),
        "MLFLOW_PORT": str(reader.mlflow_port),
    }
    docker("rm", "--force", "financial-ml-api", "eurusd", check=False)  # of a run that was ended before its end
    docker("network", "rm", PROJECT, check=False)
    docker("network", "create", PROJECT)
    try:
        yield reader
    finally:
        reader.run("docker compose down --volumes --timeout 40")
        docker("rm", "--force", "financial-ml-api", "eurusd", check=False)
        docker("network", "rm", PROJECT)


class DockerReader(Reader):
    """Ports of this machine are moved, those in a container stay."""

    seconds = 900

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.mlflow_port = free_port()

    def _moved(self, text: str) -> str:
        text = re.sub(r"(localhost|127\.0\.0\.1):8000", rf"\1:{self.port}", text)
        text = text.replace("-p 8000:8000", f"-p 127.0.0.1:{self.port}:8000")
        return text.replace("localhost:5000", f"localhost:{self.mlflow_port}")


def test_the_guides_can_be_followed(reader: Reader) -> None:
    told = [block for document in DOCUMENTS for block in blocks(document) if block.role == "docker"]
    assert told
    for block in told:
        reader.run(block.text)


def test_the_table_of_the_deployment_guides_commands_can_be_typed(reader: Reader) -> None:
    rows = re.findall(r"^\| .* \| `((?:docker|fin-pyfunc image) [^`]*)`.*\|$", read("README.md"), re.M)
    assert len(rows) == 6
    reader.run("fin-pyfunc demo --trees 20")
    for command in rows:
        if command.startswith("docker run"):
            # nobody serves http://mlflow-server:5000 here, and without it there is nothing that could be asked for
            wait_for_log(reader.run(command).strip(), "MLflow does not answer")
            reader.run("docker rm --force financial-ml-api")
        elif "logs -f" in command:
            reader.run(f"timeout 3 {command} || test $? = 124")
        else:
            reader.run(command)
