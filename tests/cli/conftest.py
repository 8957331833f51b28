"""A store of its own for each file of tests of the command line, and what its commands are given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import joblib
import mlflow
import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import fin_pyfunc
from tests.cli.commands import Echo, run, with_ids
from tests.models import small_forest

CODES = ["007", "1e3", "NA", "a,b", "EBS"]


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder to work in, with a store of its own that every command here goes to."""
    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    made = tmp_path_factory.mktemp("cli")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        patch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
        mlflow.set_tracking_uri(f"sqlite:///{made / 'mlflow.db'}")
        yield made
    mlflow.set_tracking_uri(before)


@pytest.fixture(scope="module")
def files(folder: Path) -> Path:
    """Estimator files, samples, and rows to classify."""
    fitted = small_forest()
    skops.io.dump(fitted.estimator, folder / "forest.skops")
    joblib.dump(fitted.estimator, folder / "forest.joblib")
    joblib.dump(fitted.estimator, folder / "forest.pkl")
    train = with_ids(fitted.train).assign(label=0)
    train.to_csv(folder / "train.csv", index=False)
    train.to_parquet(folder / "train.parquet")
    new = with_ids(fitted.held_out)
    new.to_csv(folder / "new.csv", index=False)
    new.to_parquet(folder / "new.parquet")
    return folder


@pytest.fixture(scope="module")
def logged(files: Path) -> list[str]:
    """The forest as `fin-pyfunc log` logs it; the URIs it prints."""
    answer = run(
        *("log", "forest.skops", "train.csv", "--drop", "label", "--identifier", "bar_id", "--text", "bar_id"),
        *("--register", "rf", "--alias", "champion", "--confidence-high", "0.9"),
    )
    assert answer.code == 0, answer
    return answer.out.splitlines()


@pytest.fixture(scope="module")
def codes(folder: Path) -> tuple[str, pd.DataFrame]:
    """A model of numbers, text that looks like numbers, integers and booleans, with gaps; and rows for it."""
    rng = np.random.default_rng(0)
    n = 60
    frame = pd.DataFrame(
        {
            "x": np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n)),
            "code": rng.choice(CODES, n),
            "hour": rng.integers(0, 24, n),
            "flag": rng.random(n) < 0.5,
        }
    )
    encoded = make_column_transformer((OneHotEncoder(), ["code"]), remainder="passthrough")
    pipeline = make_pipeline(encoded, RandomForestClassifier(5, random_state=0))
    y = np.where(frame["code"].isin(["007", "NA"]) ^ frame["flag"], "up", "down")
    fin_pyfunc.save_model(pipeline.fit(frame, y), frame, folder / "codes", extra="forbid")
    return "codes", frame


@pytest.fixture(scope="module")
def foreign(folder: Path) -> Path:
    """Models that were logged without us."""
    fitted = small_forest()
    requirements = ["scikit-learn"]
    formats = {"serialization_format": "cloudpickle", "pip_requirements": requirements}
    mlflow.sklearn.save_model(fitted.estimator, folder / "unsigned", **formats)
    mlflow.sklearn.save_model(fitted.estimator, folder / "signed", input_example=fitted.train.head(2), **formats)
    mlflow.pyfunc.save_model(folder / "echo", python_model=Echo(), pip_requirements=requirements)
    return folder
