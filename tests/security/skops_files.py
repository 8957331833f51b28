"""Files that skops itself writes of estimators, and what becomes of them when their schema is changed by hand."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import skops.io

from fin_pyfunc.model import estimators


def read(estimator: Any, folder: Path, change: Callable[[dict[str, Any]], None] | None = None) -> Any:
    """Write an estimator with skops, change every object of the schema, and read it as a server does."""
    path = folder / "m.skops"
    skops.io.dump(estimator, path)
    if change is not None:
        with zipfile.ZipFile(path) as archive:
            contents = {name: archive.read(name) for name in archive.namelist()}
        schema = json.loads(contents["schema.json"])
        for node in list(nodes(schema)):
            change(node)
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in (contents | {"schema.json": json.dumps(schema).encode()}).items():
                archive.writestr(name, content)
    return estimators.load_file(path, "skops")


def nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Every JSON object of a schema."""
    pending = [schema]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            yield node
            pending += node.values()
        elif isinstance(node, list):
            pending += node
