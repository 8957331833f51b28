"""Somebody who types what a document says, top to bottom, in a folder of their own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.conftest import free_port
from tests.documentation.blocks import ELSEWHERE, ROOT, Block


class Reader:
    """Types blocks in turn; ports are moved to free ones, and servers stay on this machine's loopback.

    Parameters
    ----------
    folder : Path
    """

    #: How long a block may take.
    seconds = 240

    def __init__(self, folder: Path) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "FIN_PYFUNC"))}
        path = f"{Path(sys.executable).parent}{os.pathsep}{clean['PATH']}"
        self.folder, self.port = folder, free_port()
        self.env = {**clean, "PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true"}
        self._server: subprocess.Popen[bytes] | None = None
        self._shown = ""

    def follow(self, block: Block) -> None:
        """Do what it says.

        Raises
        ------
        AssertionError
            A command failed, an answer is another than the one shown, or nobody could tell what the block is for.
        """
        match block.language, block.role:
            case "bash", "":
                self._shown = self.run(block.text)
            case "bash", "server":
                self._serve(block.text.strip())
            case "bash", "make":
                self._make(block.text)
            case "bash", elsewhere if elsewhere in ELSEWHERE:
                pass
            case "python", "":
                (self.folder / "snippet.py").write_text(self._moved(block.text), encoding="utf-8")
                self._shown = self.run(f"{sys.executable} snippet.py")
            case "json", "answer":
                assert same(json.loads(self._shown), json.loads(block.text)), self._shown
            case "yaml", name if name:
                (self.folder / name).write_text(self._moved(block.text), encoding="utf-8")
            case _:
                raise AssertionError(f"no test knows what ```{block.language} {block.role} is for")

    def run(self, text: str) -> str:
        """Run it in a shell; what it printed."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self._moved(text)],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=self.seconds,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def close(self) -> None:
        """End its server, with all its processes: a child that outlives its parent would answer for the next one."""
        if self._server is None:
            return
        group, self._server = self._server, None
        os.killpg(group.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            group.wait(40)
        deadline = time.monotonic() + 10
        while _alive(group.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group.pid, signal.SIGKILL)
        group.wait(10)

    def _moved(self, text: str) -> str:
        return text.replace("8000", str(self.port)).replace("0.0.0.0", "127.0.0.1")

    def _make(self, text: str) -> None:
        """`make serve` for real; of the other targets, that there are such."""
        targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
        named = re.findall(r"^make ([a-z-]+)", text, re.M)
        assert set(named) <= targets
        if "serve" in named:
            installed = f"{sys.prefix}/.serve"  # the tests' own environment: nothing is installed again
            self._serve(f"make -f {ROOT}/Makefile -o {installed} VENV={sys.prefix} PORT={self.port} serve")

    def _serve(self, command: str) -> None:
        """Start a server in place of the one there was, and wait until it answers."""
        self.close()
        log = self.folder / "server.log"
        with log.open("wb") as out:
            self._server = subprocess.Popen(
                ["bash", "-c", f"exec {self._moved(command)}"],
                cwd=self.folder,
                env=self.env,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        deadline = time.monotonic() + 120
        while True:
            assert self._server.poll() is None, f"{command}\n{log.read_text()}"
            assert time.monotonic() < deadline, f"{command}\n{log.read_text()}"
            try:
                if requests.get(f"http://127.0.0.1:{self.port}/ping", timeout=5).ok:
                    return
            except requests.ConnectionError:
                time.sleep(0.1)


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def same(got: Any, shown: Any) -> bool:
    """The same JSON in the same order; numbers up to what another machine's arithmetic may change."""
    if isinstance(shown, dict):
        return isinstance(got, dict) and list(got) == list(shown) and all(same(got[k], shown[k]) for k in shown)
    if isinstance(shown, list):
        return isinstance(got, list) and len(got) == len(shown) and all(map(same, got, shown))
    return type(got) is type(shown) and got == (pytest.approx(shown) if isinstance(shown, float) else shown)
