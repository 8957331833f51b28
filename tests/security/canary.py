"""What notices that it was touched: files outside of everything that may be read, a socket on loopback, a pickle."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import skops.io

from tests.models import logistic

#: Put on a server's path: it writes down whatever the server opens, lists or runs with the canary's name in it.
HOOK = """
import os, sys
name, log = os.environ["CANARY"], os.environ["CANARY_LOG"]
busy = False
def seen(event, args):
    global busy
    if busy or not event.startswith(("open", "os.", "import", "subprocess", "exec", "shutil", "glob")):
        return
    if name in repr(args):
        busy = True
        try:
            with open(log, "a") as file:
                file.write(event + "\\n")
        finally:
            busy = False
sys.addaudithook(seen)
"""


class Canary:
    """Watches a folder and a port; `is_untouched` says whether anything came of an attack."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "canary-outside"
        self.folder.mkdir()
        self.marker = folder / "it-ran"
        self._log, self._hook = folder / "seen.log", folder / "hook"
        self._hook.mkdir()
        (self._hook / "sitecustomize.py").write_text(HOOK)
        self._log.touch()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.connections = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def env(self) -> dict[str, str]:
        """For the environment of whoever is watched."""
        return {"PYTHONPATH": str(self._hook), "CANARY": self.folder.name, "CANARY_LOG": str(self._log)}

    @property
    def pickle(self) -> bytes:
        """Leaves the marker behind when it is loaded."""
        return pickle.dumps(self.touches)

    @property
    def touches(self) -> Any:
        """What becomes such a pickle in any pickler."""
        return _Tells(self.source)

    @property
    def source(self) -> str:
        """Python that leaves a line in the marker: which process ran it."""
        return (
            "import json, os\n"
            "told = {'pid': os.getpid(), 'parent': os.getppid(), 'group': os.getpgrp()}\n"
            f"with open({str(self.marker)!r}, 'a') as file:\n"
            "    file.write(json.dumps(told) + chr(10))\n"
        )

    @property
    def ran_in(self) -> list[dict[str, int]]:
        """The processes that ran its code."""
        return [json.loads(line) for line in self.marker.read_text().splitlines()] if self.marker.exists() else []

    def assert_untouched(self) -> None:
        """Nothing of the canary was opened, listed, run or connected to."""
        assert not self.marker.exists()
        assert self._log.read_text() == ""
        assert self.connections == 0

    def assert_notices(self) -> None:
        """It would have noticed: a process with its environment that opens a file of it is written down."""
        (self.folder / "file").write_text("secret")
        program = f"open({str(self.folder / 'file')!r}).read()"
        subprocess.run([sys.executable, "-c", program], env={**os.environ, **self.env}, check=True)
        assert "open" in self._log.read_text()
        self._log.write_text("")

    def reset(self) -> None:
        """Forget what was noticed."""
        self.marker.unlink(missing_ok=True)
        self._log.write_text("")
        self.connections = 0

    def close(self) -> None:
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            connection.close()


class _Tells:
    def __init__(self, source: str) -> None:
        self._source = source

    def __reduce__(self) -> Any:
        return exec, (self._source,)


def write_calling_skops(marker: Path, path: Path) -> None:
    """A skops file that calls os.system when its own list of types is believed."""
    skops.io.dump(logistic().estimator, path)
    with zipfile.ZipFile(path) as archive:
        schema = json.loads(archive.read("schema.json"))
    none = {
        "__class__": "str",
        "__module__": "builtins",
        "__loader__": "JsonNode",
        "content": json.dumps(f"touch {marker}"),
    }
    arguments = {
        "__class__": "tuple",
        "__module__": "builtins",
        "__loader__": "TupleNode",
        "content": [none],
        "__id__": 11,
    }
    evil = {
        "__class__": "system", "__module__": "os", "__loader__": "ReduceNode", "__id__": 12,
        "reduce": {"args": arguments}, "content": {}, "args": arguments, "constructor": none,
    }  # fmt: skip
    schema["content"] = {**schema.get("content", {}), "content": {"a": evil}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("schema.json", json.dumps(schema))
