"""Base models for hostile folders, and payloads that do something when they are opened as what they are."""

from __future__ import annotations

import shutil
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import joblib
import lightgbm
import mlflow
import numpy as np
import onnx
import skops.io
import xgboost
import yaml
from skl2onnx import to_onnx

import fin_pyfunc
from tests.models import labels, logistic
from tests.security.canary import Canary, write_calling_skops

#: Text of the canary's secret file; it must not be in anything that a server copies.
SECRET = "the canary's secret, which no model has"
ROW = {"return_1": 1e-4, "order_flow_imbalance": 0.3}
Change = Callable[[Path, "Hostile"], None]


cloudpickle.register_pickle_by_value(sys.modules[__name__])  # a model host does not have these tests on its path


class Constant(mlflow.pyfunc.PythonModel):  # type: ignore[misc] # mlflow ships no types
    """The smallest model of a user's own."""

    def predict(self, context: Any, model_input: Any, params: Any = None) -> list[int]:
        return [1] * len(model_input)


@dataclass(frozen=True)
class Case:
    """One hostile model.

    Parameters
    ----------
    name : str
        What was done to which form, as the failure of a test shows it.
    base : str
        The model that was changed.
    change : callable
        Changes a copy of it.
    """

    name: str
    base: str
    change: Change


class Hostile:
    """Base models, and what the changes of them need.

    Parameters
    ----------
    folder : Path
        Where the base models are saved.
    canary : Canary
        Notices what must not happen.
    """

    def __init__(self, folder: Path, canary: Canary) -> None:
        self.folder, self.canary = folder, canary
        self.secret = canary.folder / "secret"
        self.secret.write_text(SECRET)
        save_bases(folder)
        outside = canary.folder / "model"
        if not outside.exists():
            shutil.copytree(folder / "sklearn", outside)
        self.script = canary.source

    def write(self, case: Case, target: Path) -> Path:
        """Make a case's folder, or bare file, with its base's suffix; returns where it is."""
        source = self.folder / case.base
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            target = target.with_name(target.name + source.suffix)
            shutil.copy(source, target)
        case.change(target, self)
        return target

    def payload(self, kind: str, path: Path) -> None:
        """Write a file, or folder, that does something when it is opened as what it is."""
        path.parent.mkdir(parents=True, exist_ok=True)
        match kind:
            case "pickle":
                path.write_bytes(self.canary.pickle)
            case "cloudpickle":
                path.write_bytes(cloudpickle.dumps(self.canary.touches))
            case "joblib":
                joblib.dump(self.canary.touches, path)
            case "npy":
                with path.open("wb") as file:
                    np.save(file, np.array([self.canary.touches], dtype=object), allow_pickle=True)
            case "zip":
                with zipfile.ZipFile(path, "w") as archive:
                    for name in (f"../../../../../..{self.canary.folder}/climbed", f"{self.canary.folder}/absolute"):
                        archive.writestr(name, "x")
            case "skops of its own types":
                skops.io.dump({"a": Planted()}, path)
            case "skops of os.system":
                write_calling_skops(self.canary.marker, path)
            case "python":
                path.write_text(self.script)
            case "model":
                path.mkdir(exist_ok=True)
                (path / "e.pkl").write_bytes(self.canary.pickle)
                flavors = {
                    "python_function": {"loader_module": "mlflow.sklearn", "model_path": "e.pkl"},
                    "sklearn": {"pickled_model": "e.pkl", "serialization_format": "pickle"},
                }
                (path / "MLmodel").write_text(yaml.safe_dump({"flavors": flavors}))
            case _:
                raise ValueError(kind)


class Planted:
    """A type that nobody trusts."""


def save_bases(folder: Path) -> None:
    """Save the smallest model of each form."""
    folder.mkdir(exist_ok=True)
    estimator, X = logistic().estimator, logistic().train
    needs: dict[str, Any] = {"pip_requirements": ["scikit-learn"]}
    boosted = {"n_estimators": 1, "max_depth": 2}
    y = labels(0, 1)[: len(X)]
    fin_pyfunc.save_model(estimator, X, folder / "ours", input_example=None)
    fin_pyfunc.save_model(estimator, X, folder / "ours-pickled", serialization="cloudpickle", input_example=None)
    for name, serialization in (("skops", "skops"), ("sklearn", "cloudpickle")):
        mlflow.sklearn.save_model(estimator, folder / name, serialization_format=serialization, **needs)
    mlflow.lightgbm.save_model(
        lightgbm.LGBMClassifier(**boosted, verbose=-1).fit(X, y),
        folder / "lightgbm",
        serialization_format="skops",
        **needs,
    )
    mlflow.xgboost.save_model(xgboost.XGBClassifier(**boosted).fit(X, y), folder / "xgboost", **needs)
    graph = to_onnx(estimator, X.to_numpy()[:1].astype("float32"), options={"zipmap": False})
    mlflow.onnx.save_model(graph, folder / "onnx", save_as_external_data=False, **needs)
    mlflow.pyfunc.save_model(folder / "pyfunc", python_model=Constant(), **needs)
    skops.io.dump(estimator, folder / "bare.skops")
    onnx.save(graph, folder / "bare.onnx")
    (folder / "bare.pkl").write_bytes(cloudpickle.dumps(estimator))
    joblib.dump(estimator, folder / "bare.joblib")


#: Forms that are data, by base, and their one file.
DATA = {
    "ours": "artifacts/fin_pyfunc/estimator.skops",
    "skops": "model.skops",
    "lightgbm": "model.skops",
    "onnx": "model.onnx",
}
CODE = ("ours-pickled", "sklearn", "xgboost", "pyfunc")
FOLDERS = (*DATA, *CODE)
BARE = ("bare.skops", "bare.onnx", "bare.pkl", "bare.joblib")
PAYLOADS = (
    "pickle",
    "cloudpickle",
    "joblib",
    "npy",
    "zip",
    "skops of its own types",
    "skops of os.system",
    "python",
    "model",
)
SUFFIXES = {"python": ".py", "model": "", "zip": ".zip", "npy": ".npy", "joblib": ".joblib"}
SUFFIXES |= {"skops of its own types": ".skops", "skops of os.system": ".skops"}
