"""Estimators of text and numbers in files that skops writes, and those files with their schema changed by hand."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from fin_pyfunc.model import estimators

#: Text and a number, and a class a row.
WORDS = pd.DataFrame({"news": ["up up", "rates down", "flat", "up again", "down", "flat now"] * 10, "size": range(60)})
MOVES = [0, 1, 2, 0, 1, 2] * 10


def text(**options: Any) -> Pipeline:
    """A classifier of `WORDS`; the options are its vectorizer's."""
    columns = ColumnTransformer([("tfidf", TfidfVectorizer(**options), "news"), ("size", "passthrough", ["size"])])
    return Pipeline([("columns", columns), ("classifier", LogisticRegression())])


def piped(step: Any, classifier: Any = None) -> Any:
    """A step before a classifier."""
    return make_pipeline(step, classifier or LogisticRegression(max_iter=500))


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
