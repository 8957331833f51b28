"""Linters and generators in folders of their own beside the test's environment, each installed once for all tests."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
INSTALL_SECONDS = 300


def node_tools() -> Path:
    """The folder of the npm packages; skips the test where there is no npm, or it cannot install them."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm here (Debian: apt-get install npm)")
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts"]
    return _installed("node", HERE / "package.json", [command]) / "node_modules" / ".bin"


def python_tools() -> Path:
    """The scripts of an environment of the Python packages; skips as `node_tools`."""
    pip = ["python/bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", "requirements.txt"]
    commands = [[sys.executable, "-m", "venv", "python"], pip]
    return _installed("python", HERE / "requirements.txt", commands) / "python" / "bin"


def run(tool: Path, *arguments: str, folder: Path) -> str:
    """Run a tool in a folder, and return what it said; asserts that it found nothing wrong."""
    env = {**os.environ, "REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true", "CI": "true"}
    done = subprocess.run(
        [str(tool), *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=240, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-6000:]
    return said


def _installed(kind: str, wanted: Path, commands: list[list[str]]) -> Path:
    """A folder in which the commands were run, one for each content of the file that says what is wanted."""
    digest = hashlib.sha256(wanted.read_bytes()).hexdigest()[:12]
    folder = Path(sys.prefix) / f"openapi-{kind}-{digest}"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / "done"
        if not done.exists():
            shutil.copy(wanted, folder)
            for command in commands:
                _install(command, folder, kind)
            done.touch()
    return folder


def _install(command: list[str], folder: Path, kind: str) -> None:
    try:
        subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=True)
    except subprocess.TimeoutExpired:
        pytest.skip(f"the {kind} packages could not be installed within {INSTALL_SECONDS} s")
    except subprocess.CalledProcessError as e:
        pytest.skip(f"the {kind} packages could not be installed: {e.stderr.strip()[-300:]}")
