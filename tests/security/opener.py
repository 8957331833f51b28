"""A process that opens models as a server does, one a line of its input, and tells what came of it, a line each."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from fin_pyfunc.model.errors import FinPyfuncError
from fin_pyfunc.serving.loader import load
from fin_pyfunc.serving.resolver import Resolver
from fin_pyfunc.serving.uris import parse
from tests.security.hostile import ROW, SECRET

#: Seconds that one model may take; beyond, the process ends.
LIMIT = 60


def answers(resolver: Resolver, uri: str) -> dict[str, Any]:
    """What /predict and /invocations would answer, or how it was refused."""
    try:
        resolved = resolver.resolve(parse(uri))
    except FinPyfuncError as e:
        return {"refused": f"{type(e).__name__}: {e}"}
    try:
        loaded = load(resolver, resolved)
        features = loaded.model.features
        is_matrix = features is not None and features.naming == "positions"
        told = {"predict": repr(loaded.model.decide([list(ROW.values()) if is_matrix else ROW]).one())}
        if loaded.has_pyfunc:
            pyfunc = loaded.pyfunc
            frame = pd.DataFrame([ROW]).astype("float32")
            rows = frame.to_numpy() if pyfunc.loader_module == "mlflow.onnx" else frame
            try:
                told["invocations"] = repr(pyfunc.predict(rows))
            except Exception as e:  # whatever the rows lead to is a 4xx
                told["unfit"] = str(e)
        return told
    except FinPyfuncError as e:
        return {"refused": f"{type(e).__name__}: {e}"}
    finally:
        resolver.discard(resolved)


def state(below: list[str]) -> dict[str, Any]:
    """What a model that is data cannot change."""
    imported = [
        name
        for name, module in list(sys.modules.items())
        if any(str(getattr(module, "__file__", None)).startswith(folder) for folder in below)
    ]
    return {"path": list(sys.path), "cwd": str(Path.cwd()), "environ": dict(os.environ), "imported": imported}


def copied_secret(private: Path) -> bool:
    """Whether a secret is in what was copied; a copy that was refused is gone by now."""
    return any(SECRET.encode() in path.read_bytes() for path in private.rglob("*") if path.is_file())


def main(tracking_uri: str, run_id: str, root: str) -> None:
    resolver = Resolver(tracking_uri, file_roots=[Path(root)], trust="data", artifact_roots=())
    private = resolver._private_root()
    before = state([root, str(private)])
    for line in sys.stdin:
        path = Path(line.strip())
        signal.alarm(LIMIT)
        told: dict[str, Any] = {}
        uris = {"file": path.as_uri()} | ({"store": f"runs:/{run_id}/{path.name}"} if path.suffix == "" else {})
        for origin, uri in uris.items():
            try:
                told[origin] = answers(resolver, uri)
            except Exception as e:
                told[origin] = {"failed": f"{type(e).__name__}: {e}"[:2000]}
            if copied_secret(private):
                told[origin]["failed"] = "the secret was copied"
        now = state([root, str(private)])
        if now != before:
            told["changed"] = [key for key, value in now.items() if value != before[key]]
        signal.alarm(0)
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
