"""A model that does what the rows say; saved by value, so that a host needs no tests to load it."""

from __future__ import annotations

from typing import Any

import mlflow.pyfunc

CRASH, HANG, FILL_MEMORY, SLEEP, RAISE, STARTS_A_PROCESS, SYSTEM_EXIT, BAD_LABELS = 1001, *range(1002, 1009)


class Behaviour(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Answers "up" above 0 and "down" elsewhere, unless the first row is one of the numbers above."""

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        import ctypes
        import os
        import re
        import subprocess
        import sys
        import time

        x = float(model_input.iloc[0, 0])
        if x == 1001:
            ctypes.string_at(0)
        elif x == 1002:
            re.match(r"(a*)*b", "a" * 60)  # holds Python's lock all the time
        elif x == 1003:
            held = []
            while True:
                held.append(bytearray(16 << 20))
        elif x == 1004:
            time.sleep(600)
        elif x == 1005:
            said = "terces"[::-1]
            raise ValueError(said)  # a trace shows this line, and not what it says
        elif x == 1006:
            subprocess.Popen(["sleep", "600"], close_fds=False)
            os._exit(3)
        elif x == 1007:
            sys.exit(1)
        elif x == 1008:
            return ["x" * 5000] * len(model_input)
        return ["up" if value > 0 else "down" for value in model_input.iloc[:, 0]]


class Surroundings(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Answers what a model can see of its process, as JSON text."""

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        import json
        import os
        import sys
        from pathlib import Path

        status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
        seen = {
            "pid": os.getpid(),
            "environ": dict(os.environ),
            "environ_at_start": Path("/proc/self/environ").read_text(),
            "no_new_privs": status["NoNewPrivs"],
            "cwd": str(Path.cwd()),
            "path": sys.path,
            "files": sorted(str(file.readlink()) for file in Path("/proc/self/fd").iterdir() if file.exists()),
        }
        text = json.dumps(seen)
        return [text[i * 4000 : (i + 1) * 4000] for i in range(len(model_input))]


class FailsToOpen(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Does something else than open."""

    def __init__(self, how: str) -> None:
        self.how = how

    def load_context(self, context: Any) -> None:
        import ctypes
        import time

        if self.how == "crash":
            ctypes.string_at(0)
        elif self.how == "hang":
            time.sleep(600)
        elif self.how == "memory":
            held = []
            while True:
                held.append(bytearray(16 << 20))
        elif self.how == "raise":
            raise ValueError("a secret")
        elif self.how == "library":
            import a_library_that_nobody_has  # noqa: F401

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        return [0] * len(model_input)


class Liar(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Sends its worker whatever it likes."""

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        import contextlib
        import os
        import struct

        if float(model_input.iloc[0, 0]) > 0:
            for fd in range(4, 64):
                with contextlib.suppress(OSError):
                    os.write(fd, struct.pack("<QBBHI", 1 << 50, 13, 0, 0, 0))
        return ["a"] * len(model_input)


class Versioned(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Answers what the module `rules`, which came with it, says."""

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        import rules  # type: ignore[import-not-found]

        return [rules.VERSION] * len(model_input)


class Rewriter(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Writes over the file that it came with."""

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        from pathlib import Path

        file = Path(context.artifacts["notes"])
        file.chmod(0o600)
        with file.open("r+") as opened:  # in place, so that a hard link would be written too
            opened.write("mine")
        return [file.read_text()] * len(model_input)
