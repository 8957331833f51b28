"""A fitted estimator on disk: skops, which executes nothing, or cloudpickle where the user asked for it by name."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from fin_pyfunc.model.errors import ArtifactError, NotLoggableError

Serialization = Literal["skops", "cloudpickle"]
#: A bare estimator file, by what reads it.
FileKind = Literal["pickle", "joblib", "skops"]
FILE_NAMES: dict[Serialization, str] = {"skops": "estimator.skops", "cloudpickle": "estimator.pkl"}

#: Environment variable with further types (comma separated) that the operator trusts in a skops file.
TRUSTED_TYPES_VARIABLE = "FIN_PYFUNC_TRUSTED_TYPES"

#: Types beyond skops' own list that fitted classifiers of scikit-learn, LightGBM and XGBoost are made of. All of them
#: only hold data; none runs code of the file's choosing when it is rebuilt. The file's own list of types is never used.
TRUSTED_TYPES = frozenset(
    {
        "collections.OrderedDict",
        "collections.defaultdict",
        "lightgbm.basic.Booster",
        "lightgbm.sklearn.LGBMClassifier",
        "sklearn._loss.link.Interval",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.calibration._TemperatureScaling",
        "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        *(
            f"sklearn.metrics._dist_metrics.{metric}Distance{bits}"
            for metric in ("Chebyshev", "Euclidean", "Manhattan", "Minkowski")
            for bits in ("", "32", "64")
        ),
        *(f"sklearn.neighbors._kd_tree.KDTree{bits}" for bits in ("", "32", "64")),
        *(f"sklearn.neighbors._ball_tree.BallTree{bits}" for bits in ("", "32", "64")),
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
        "sklearn.tree._tree.Tree",
        "sklearn.utils._bunch.Bunch",
        "xgboost.core.Booster",
        "xgboost.sklearn.XGBClassifier",
        "xgboost.sklearn.XGBRFClassifier",
    }
)  # fmt: skip


def dump(estimator: Any, path: Path, serialization: Serialization) -> None:
    """Write an estimator.

    Raises
    ------
    NotLoggableError
        It cannot be written this way, or could not be read back from a skops file without trusting unknown types.
    """
    if serialization == "cloudpickle":
        import cloudpickle

        with path.open("wb") as file:
            cloudpickle.dump(estimator, file)
        return
    import skops.io

    try:
        skops.io.dump(estimator, path)
        unknown = unknown_types(path)
    except Exception as e:
        raise NotLoggableError(
            f"{type(estimator).__name__} cannot be written as skops ({type(e).__name__}: {e}); "
            "if you trust where the model will be loaded, log it with serialization='cloudpickle'."
        ) from e
    if unknown:
        raise NotLoggableError(
            f"{type(estimator).__name__} is made of types that no server trusts by itself: {', '.join(unknown[:5])}; "
            f"log it with serialization='cloudpickle', or have the operator name them in {TRUSTED_TYPES_VARIABLE}."
        )


def load(path: Path, serialization: Serialization) -> Any:
    """Read an estimator back.

    Raises
    ------
    ArtifactError
        The file is damaged, needs types that are not trusted, or is a pickle where pickles are not allowed.
    """
    if serialization == "cloudpickle":
        require_pickle_allowed()
        return _reading(path, _load_pickle)
    return _reading(path, _load_skops)


def load_file(path: Path, kind: FileKind) -> Any:
    """Read a bare estimator file, which nobody's manifest vouches for.

    Raises
    ------
    ArtifactError
        As `load`.
    """
    if kind == "joblib":
        require_pickle_allowed()
        return _reading(path, _load_joblib)
    return load(path, "skops" if kind == "skops" else "cloudpickle")


def unknown_types(path: Path) -> list[str]:
    """Types in a skops file that neither skops, this project nor the operator trusts."""
    import skops.io

    return sorted(set(skops.io.get_untrusted_types(file=path)) - _trusted())


def require_pickle_allowed() -> None:
    """Honour MLflow's own switch against pickles for the estimator file too."""
    from mlflow.environment_variables import MLFLOW_ALLOW_PICKLE_DESERIALIZATION as ALLOWED

    if not ALLOWED.get():
        raise ArtifactError(
            "The model's estimator is a pickle, and MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false forbids loading it: "
            "log it with serialization='skops', or allow pickles if you trust where it comes from."
        )


def _trusted() -> frozenset[str]:
    named = os.environ.get(TRUSTED_TYPES_VARIABLE, "").split(",")
    return TRUSTED_TYPES | {name.strip() for name in named if name.strip()}


def _load_pickle(path: Path) -> Any:
    with path.open("rb") as file:
        return pickle.load(file)  # noqa: S301 - asked for by name when logged, and allowed by the operator


def _load_joblib(path: Path) -> Any:
    import joblib

    return joblib.load(path)


def _load_skops(path: Path) -> Any:
    import skops.io

    unknown = unknown_types(path)
    if unknown:
        raise ArtifactError(
            f"The estimator file needs types that are not trusted here: {', '.join(unknown[:5])}; "
            f"if you know them, name them in {TRUSTED_TYPES_VARIABLE}."
        )
    return skops.io.load(path, trusted=sorted(_trusted()))


def _reading(path: Path, read: Callable[[Path], Any]) -> Any:
    try:
        return read(path)
    except ArtifactError:
        raise
    except ModuleNotFoundError as e:
        raise ArtifactError(
            f"The model needs the Python package {e.name!r}, which is not installed here: install the model's "
            "requirements."
        ) from e
    except Exception as e:
        raise ArtifactError(
            f"The estimator file could not be read ({type(e).__name__}): it is damaged, or was written by "
            "versions of its libraries that differ too much from those installed here."
        ) from e
