"""The models of every benchmark: trained and logged once, ours and as `mlflow.sklearn` does it."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.data import NAMES, TRAIN_ROWS, make_data, train_forest

#: Rows that are sent in turn, so that no server answers the same one again and again.
N_ROWS = 64
#: Small forests that one server holds at a time.
N_SMALL, SMALL_TREES = 20, 20
#: Rows that neighbours and kernel methods are trained on: they keep them all.
KERNEL_ROWS = 1000
#: Families that `mlflow models serve` is asked about too.
SERVED = ("forest", "svc", "knn", "custom")
INDEX = "models.json"


class Models(NamedTuple):
    """Where everything lies.

    Parameters
    ----------
    folder : Path
        Holds the tracking store, the estimators as joblib files, and `forest.onnx`.
    tracking_uri : str
    ours, theirs : dict of str to str
        Model URI by family, as logged by `fin_pyfunc.log_model` and by `mlflow.sklearn.log_model`.
    small : list of str
        URIs of `N_SMALL` distinct small forests.
    nothing : str
        URI of a model with the forest's signature that computes nothing.
    """

    folder: Path
    tracking_uri: str
    ours: dict[str, str]
    theirs: dict[str, str]
    small: list[str]
    nothing: str

    @property
    def saved(self) -> Path:
        """The forest as a folder, as an image of one model has it."""
        (found,) = (self.folder / "artifacts" / "models" / self.ours["forest"].partition(":/")[2]).glob("artifacts")
        return found

    @property
    def onnx(self) -> Path:
        """The forest as a float32 ONNX graph."""
        return self.folder / "forest.onnx"

    def estimator(self, family: str) -> Any:
        """A fitted estimator, as it was before it was logged."""
        import joblib

        return joblib.load(self.folder / f"{family}.joblib")

    def on_matrix(self, family: str) -> Any:
        """The same without the names of its features, so that an ndarray is as good to it as a DataFrame."""
        estimator = self.estimator(family)
        estimator.__dict__.pop("feature_names_in_", None)
        return estimator

    def frame(self, rows: int = N_ROWS) -> Any:
        """The rows to ask about, as a DataFrame of shape (rows, FEATURES)."""
        import pandas as pd

        return pd.DataFrame(make_data(max(rows, TRAIN_ROWS))[0][:rows], columns=NAMES)

    def records(self, rows: int = N_ROWS) -> list[dict[str, float]]:
        """The same as one dict a row."""
        records: list[dict[str, float]] = self.frame(rows).to_dict("records")
        return records

    def expected(self, family: str, rows: int = N_ROWS) -> list[Any]:
        """What the estimator itself says of them."""
        labels: list[Any] = self.estimator(family).predict(self.frame(rows)).tolist()
        return labels


def families() -> dict[str, Callable[[], Any]]:
    """How each family's estimator is made, unfitted; the forest has a function of its own."""
    from lightgbm import LGBMClassifier
    from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC
    from xgboost import XGBClassifier

    from benchmarks.parzen import ParzenClassifier

    return {
        "logistic": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
        "gradient_boosting": lambda: GradientBoostingClassifier(random_state=0),
        "hist_gradient_boosting": lambda: HistGradientBoostingClassifier(random_state=0),
        "lightgbm": lambda: LGBMClassifier(random_state=0, verbose=-1, n_jobs=1),
        "xgboost": lambda: XGBClassifier(random_state=0, n_jobs=1),
        "svc": lambda: SVC(kernel="rbf"),
        "knn": lambda: KNeighborsClassifier(),
        "custom": lambda: ParzenClassifier(),
    }


def build(folder: Path) -> Models:
    """Train and log everything below a folder, or find it there from an earlier call."""
    folder = folder.resolve()
    tracking_uri = f"sqlite:///{folder / 'mlflow.db'}"
    if (folder / INDEX).exists():
        return Models(folder, tracking_uri, **json.loads((folder / INDEX).read_text()))
    folder.mkdir(parents=True, exist_ok=True)
    import mlflow

    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    mlflow.set_tracking_uri(tracking_uri)
    known = mlflow.get_experiment_by_name("benchmark")  # there where an earlier call did not get to the end
    location = (folder / "artifacts").as_uri()
    chosen = known.experiment_id if known else mlflow.create_experiment("benchmark", artifact_location=location)
    mlflow.set_experiment(experiment_id=chosen)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # libraries' notices to users, which would fill the screen
        found = _log_all(folder)
    (folder / INDEX).write_text(json.dumps(found))
    return Models(folder, tracking_uri, **found)


def _log_all(folder: Path) -> dict[str, Any]:
    """Fit, dump and log; returns what `Models` takes besides the folder."""
    import cloudpickle
    import joblib
    import pandas as pd

    import benchmarks.parzen

    # servers that run from another folder read the custom object's class out of the pickle
    cloudpickle.register_pickle_by_value(benchmarks.parzen)
    X, y = make_data()
    frame = pd.DataFrame(X, columns=NAMES)
    ours, theirs = {}, {}
    for family, make in {"forest": None, **families()}.items():
        rows = KERNEL_ROWS if family in ("svc", "knn", "custom") else len(frame)
        estimator = train_forest(frame, y) if make is None else make().fit(frame[:rows], y[:rows])
        joblib.dump(estimator, folder / f"{family}.joblib")
        ours[family] = _log_ours(estimator, frame, "cloudpickle" if family == "custom" else "skops")
        if family in SERVED:
            theirs[family] = _log_theirs(estimator, frame)
        if family == "forest":
            write_onnx(estimator, folder / "forest.onnx")
        print(f"  logged {family}", flush=True)
    small = [_log_ours(train_forest(frame, y, SMALL_TREES, 1 + i), frame, "skops") for i in range(N_SMALL)]
    return {"ours": ours, "theirs": theirs, "small": small, "nothing": _log_nothing(frame)}


def _log_ours(estimator: Any, frame: Any, serialization: Any) -> str:
    import mlflow

    import fin_pyfunc

    with mlflow.start_run():
        uri: str = fin_pyfunc.log_model(estimator, frame, serialization=serialization).model_uri
    return uri


def _log_theirs(estimator: Any, frame: Any) -> str:
    import mlflow
    from mlflow.models import infer_signature

    with mlflow.start_run():
        uri: str = mlflow.sklearn.log_model(
            estimator, name="model", serialization_format="cloudpickle", signature=infer_signature(frame)
        ).model_uri
    return uri


def _log_nothing(frame: Any) -> str:
    """What MLflow itself takes for a row: its own work on a model that answers with a frame made beforehand."""
    import cloudpickle
    import mlflow
    from mlflow.models import infer_signature

    import benchmarks.nothing

    cloudpickle.register_pickle_by_value(benchmarks.nothing)
    with mlflow.start_run():
        uri: str = mlflow.pyfunc.log_model(
            name="model", python_model=benchmarks.nothing.Nothing(), signature=infer_signature(frame)
        ).model_uri
    return uri


def write_onnx(estimator: Any, file: Path) -> None:
    """An estimator as the float32 graph that skl2onnx makes by itself, probabilities as one tensor."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    graph = convert_sklearn(
        estimator,
        initial_types=[("X", FloatTensorType([None, len(NAMES)]))],
        options={id(estimator): {"zipmap": False}},
    )
    file.write_bytes(graph.SerializeToString())


def onnx_session(file: Path) -> Any:
    """An ONNX Runtime session for one row at a time: one thread, which hands nothing over to another."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
