"""A fitted estimator on disk: skops, which executes nothing, or cloudpickle where the user asked for it by name."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from fin_pyfunc.model.errors import ArtifactError, NotLoggableError
from fin_pyfunc.model.library_imports import import_libraries
from fin_pyfunc.model.soundness.boosters import check_boosters
from fin_pyfunc.model.soundness.estimator import check_estimator
from fin_pyfunc.model.soundness.parameters import check_construction, check_parameters

Serialization = Literal["skops", "cloudpickle"]
#: A bare estimator file, by what reads it.
FileKind = Literal["pickle", "joblib", "skops"]
FILE_NAMES: dict[Serialization, str] = {"skops": "estimator.skops", "cloudpickle": "estimator.pkl"}

#: Environment variable with further types (comma separated) that the operator trusts in a skops file.
TRUSTED_TYPES_VARIABLE = "FIN_PYFUNC_TRUSTED_TYPES"

#: How many times its size a skops file may take unpacked, where that is more than a file may always take, in bytes.
#: skops writes without compression by default; a zip file of zeros is a thousand times as small as they are.
MAX_EXPANSION, _ALWAYS = 50, 1 << 28

#: Types beyond skops' own list that fitted classifiers of scikit-learn, LightGBM and XGBoost are made of. All of them
#: only hold data or look at an array; none runs code of the file's choosing. The file's own list of types is unused.
#: What compiled code trusts in their arrays is checked by `soundness.check_estimator`.
TRUSTED_TYPES = frozenset(
    {
        "collections.OrderedDict",
        "collections.defaultdict",
        "lightgbm.basic.Booster",
        "lightgbm.sklearn.LGBMClassifier",
        "numpy.dtype",
        *(f"numpy.{pooling}" for pooling in ("max", "mean", "median", "min")),
        *(f"scipy.sparse._{form}.{form}_{kind}" for form in ("csc", "csr") for kind in ("array", "matrix")),
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
        "sklearn.compose._column_transformer.make_column_selector",
        "sklearn.feature_selection._mutual_info.mutual_info_classif",
        *(f"sklearn.feature_selection._univariate_selection.{score}" for score in ("chi2", "f_classif")),
        "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
        *(
            f"sklearn.gaussian_process.kernels.{kernel}"
            for kernel in ("ConstantKernel", "Matern", "Product", "RBF", "RationalQuadratic", "Sum", "WhiteKernel")
        ),
        "sklearn.impute._iterative.IterativeImputer",  # skops lists it only where scikit-learn was told to offer it
        "sklearn.impute._iterative._ImputerTriplet",
        "sklearn.metrics._scorer._PassthroughScorer",
        *(f"sklearn.model_selection._split.{name}" for name in ("KFold", "StratifiedKFold", "TimeSeriesSplit")),
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
        "sklearn.tree._tree.Tree",
        "sklearn.utils._bunch.Bunch",
        "sklearn.utils.validation.check_array",
        "xgboost.core.Booster",
        "xgboost.sklearn.XGBClassifier",
        "xgboost.sklearn.XGBRFClassifier",
    }
)  # fmt: skip


#: functools.partial calls what the file names, so it is trusted only around this function, which looks at an array:
#: that is how HistGradientBoosting holds the columns beside its categories.
PARTIAL, PARTIAL_OF = "functools.partial", ("sklearn.utils.validation", "check_array", "FunctionNode")


def dump(estimator: Any, path: Path, serialization: Serialization) -> None:
    """Write an estimator.

    Raises
    ------
    NotLoggableError
        It cannot be written this way, or could not be read back from a skops file without trusting unknown types.
    """
    if serialization == "cloudpickle":
        import cloudpickle

        try:
            path.write_bytes(cloudpickle.dumps(estimator))
        except Exception as e:
            raise NotLoggableError(
                f"{type(estimator).__name__} cannot be pickled ({type(e).__name__}: {e}): leave out of it what belongs "
                "to this process alone, such as locks, connections and open files."
            ) from e
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
    try:
        check_parameters(estimator, _named())
    except ArtifactError as e:
        raise NotLoggableError(
            f"{e} If you trust where the model will be loaded, log it with serialization='cloudpickle'."
        ) from e


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

    unknown = set(skops.io.get_untrusted_types(file=path)) - _trusted()
    if PARTIAL in unknown and _partials_are_harmless(path):
        unknown.remove(PARTIAL)
    return sorted(unknown)


def skops_nodes(path: Path) -> Iterator[dict[str, Any]]:
    """Every JSON object of a skops file's schema; those with `__class__` and `__module__` stand for an object."""
    with zipfile.ZipFile(path) as archive:
        pending = [json.loads(archive.read("schema.json"))]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            yield node
            pending += node.values()
        elif isinstance(node, list):
            pending += node


def _partials_are_harmless(path: Path) -> bool:
    """Whether every functools.partial of a skops file calls `PARTIAL_OF` and nothing else."""
    called: list[Any] = []
    meanings: dict[Any, set[Any]] = defaultdict(set)  # skops reads a node whose id it has met as the object it has met
    for node in skops_nodes(path):
        what = tuple(map(node.get, ("__module__", "__class__", "__loader__")))
        meanings[node.get("__id__")].add(what)
        if what[2] == "PartialNode":
            called.append(node.get("content", {}).get("func", {}).get("__id__"))
    return all(meanings[func] == {PARTIAL_OF} for func in called)


def require_pickle_allowed() -> None:
    """Honour MLflow's own switch against pickles for the estimator file too."""
    from mlflow.environment_variables import MLFLOW_ALLOW_PICKLE_DESERIALIZATION as ALLOWED

    if not ALLOWED.get():
        raise ArtifactError(
            "The model's estimator is a pickle, and MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false forbids loading it: "
            "log it with serialization='skops', or allow pickles if you trust where it comes from."
        )


def _named() -> frozenset[str]:
    """Types that the operator trusts."""
    names = os.environ.get(TRUSTED_TYPES_VARIABLE, "").split(",")
    return frozenset(name.strip() for name in names if name.strip())


def _trusted() -> frozenset[str]:
    return TRUSTED_TYPES | _named()


def _load_pickle(path: Path) -> Any:
    with path.open("rb") as file:
        return pickle.load(file)  # noqa: S301 - asked for by name when logged, and allowed by the operator


def _load_joblib(path: Path) -> Any:
    import joblib

    return joblib.load(path)


def _load_skops(path: Path) -> Any:
    _check_size(path)
    _import_libraries(path)
    import skops.io

    unknown = unknown_types(path)
    if unknown:
        raise ArtifactError(
            f"The estimator file needs types that are not trusted here: {', '.join(unknown[:5])}; "
            f"if you know them, name them in {TRUSTED_TYPES_VARIABLE}."
        )
    nodes = list(skops_nodes(path))
    check_construction(nodes, _named())
    with zipfile.ZipFile(path) as archive:
        check_boosters(nodes, archive.read)
    estimator = skops.io.load(path, trusted=sorted({*_trusted(), PARTIAL}))
    check_parameters(estimator, _named())
    check_estimator(estimator)
    return estimator


def _import_libraries(path: Path) -> None:
    """Import skops, which imports all of scikit-learn, and those libraries of trusted types that a skops file names."""
    with zipfile.ZipFile(path) as archive:
        schema = archive.read("schema.json")
    packages = {name.partition(".")[0] for name in _trusted()}
    import_libraries("skops.io", *sorted(name for name in packages if f'"{name}'.encode() in schema))


def _check_size(path: Path) -> None:
    """A zip file says how large its parts are unpacked, and no more of them is read than that."""
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(info.file_size for info in archive.infolist())
    if unpacked > max(MAX_EXPANSION * path.stat().st_size, _ALWAYS):
        raise ArtifactError(
            f"The estimator file unpacks to more than {MAX_EXPANSION} times its size: write it with skops.io.dump."
        )


def _reading(path: Path, read: Callable[[Path], Any]) -> Any:
    try:
        return read(path)
    except ArtifactError:
        raise
    except Exception as e:
        if (missing := ArtifactError.missing(e)) is not None:
            raise missing from e
        raise ArtifactError(
            f"The estimator file could not be read ({type(e).__name__}): it is damaged, or was written by "
            "versions of its libraries that differ too much from those installed here."
        ) from e
