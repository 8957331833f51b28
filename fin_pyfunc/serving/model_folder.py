"""The one reader of model folders: what a folder is, which of its files are read, and whether any of it can run code.

A folder is classified once, from a private copy (`snapshot`), and opened as what it was classified. MLflow reads a
folder by its own rules, which differ: two readers of one folder are how code was run that nobody had looked at. So a
folder that two forms could claim is refused, and MLflow is given only models that may run code, in a process of their
own, or metadata that this server wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from fin_pyfunc.model import artifact, requirements_file
from fin_pyfunc.model.artifact import FileDigest
from fin_pyfunc.model.errors import ArtifactError, ModelForbiddenError
from fin_pyfunc.serving.snapshot import Snapshot

#: What a model is opened as. "fin_pyfunc": our own artifact. "skops": a scikit-learn or LightGBM estimator in one
#: skops file. "onnx": one ONNX file. "pyfunc": any other MLflow model. "pickle", "joblib": a bare file of that kind.
Form = Literal["fin_pyfunc", "skops", "onnx", "pyfunc", "pickle", "joblib"]

#: The MLmodel's signature: JSON texts under "inputs", "outputs" and "params".
Signature = Mapping[str, str | None] | None

_MLMODEL = "MLmodel"
_CODE_MODEL = "mlflow.pyfunc.loaders.code_model"
#: What MLflow loads a PythonModel with, which may hold any artifact, one of ours too.
_PYTHON_MODELS = (_CODE_MODEL, "mlflow.pyfunc.model")
_FUNCTION = "python_function"
#: Where our own artifact lies in its folder.
OWN_FOLDER = f"artifacts/{artifact.NAME}"
#: What our own MLmodel says to MLflow; a key beyond these may have it import or unpickle something.
_OWN_KEYS = frozenset(
    {
        "artifacts", "cloudpickle_version", "code", "config", "env", "loader_module", "model_code_path",
        "python_version", "streamable",
    }
)  # fmt: skip
#: What MLflow writes for a model of one data file; the rest are texts about where it was logged.
_DATA_KEYS = frozenset({"code", "data", "env", "loader_module", "model_path", "predict_fn", "python_version"})
#: By flavor of models in one data file, the key that names the file.
_FILE_KEYS = {"sklearn": "pickled_model", "lightgbm": "data", "onnx": "data"}
_BOOSTER = "lightgbm.basic.Booster"
#: Methods of an estimator that MLflow answers with (`pyfunc_predict_fn` when logging).
PREDICT_METHODS = ("predict", "predict_proba", "predict_log_proba", "predict_joint_log_proba")

_NOT_WRITTEN = "The model's MLmodel is not one that MLflow writes: log the model again."


@dataclass(frozen=True)
class ModelFolder:
    """What a model's folder, or a bare file, is.

    Parameters
    ----------
    path : Path
        The private copy.
    form : Form
    flavor : str or None
        The MLflow flavor of a "skops" or "onnx" form; None for a bare file and the other forms.
    file : str or None
        The one data file of a "skops" or "onnx" form, or the bare file; relative to `path`, "" for a bare file.
    files : mapping of str to FileDigest
        What is read when it is opened as this form.
    runs_code : str or None
        Why opening it may run code that came with it; None: it is data.
    signature : Signature
    predict_method : str
        One of `PREDICT_METHODS`, for a "skops" form.
    """

    path: Path
    form: Form
    files: Mapping[str, FileDigest]
    flavor: str | None = None
    file: str | None = None
    runs_code: str | None = None
    signature: Signature = None
    predict_method: str = "predict"

    @property
    def data_file(self) -> Path:
        """The one data file."""
        if self.file is None:
            raise TypeError(f"a model of the form {self.form} is not one file")
        return self.path / self.file if self.file else self.path

    @property
    def is_bare(self) -> bool:
        """Whether it is a file without an MLmodel."""
        return self.file == ""

    @property
    def own_folder(self) -> Path:
        """The folder of our own artifact."""
        return self.path / OWN_FOLDER


def classify(snapshot: Snapshot, kind: str = "mlflow") -> ModelFolder:
    """Tell what a model is.

    Parameters
    ----------
    snapshot : Snapshot
    kind : {"mlflow", "pickle", "joblib", "skops", "onnx"}, default "mlflow"
        "mlflow" for a folder with an MLmodel, else the kind of bare file, by its suffix.

    Raises
    ------
    ArtifactError
        It is damaged.
    ModelForbiddenError
        Two forms could claim it.
    """
    if kind != "mlflow":
        return _bare(snapshot, kind)
    described = artifact.mlmodel(snapshot.path)
    flavors = _flavors(described)
    if described is None or _FUNCTION not in flavors:
        raise ArtifactError(
            "The model's MLmodel has no flavor 'python_function', which serving needs: log the model with MLflow's "
            "log_model of its library, or with fin_pyfunc.log_model."
        )
    function, others = flavors[_FUNCTION], {name: of for name, of in flavors.items() if name != _FUNCTION}
    claims = [f"the {name} flavor" for name, of in others.items() if _is_data_flavor(name, of)]
    if _claims_ours(described, function, snapshot.files):
        claims.append("an artifact of fin_pyfunc")
    if len(claims) > 1:
        raise _two_forms(*claims[:2])
    if function.get("code") not in (None, "code"):  # the one folder that MLflow writes; it would import from any
        raise ModelForbiddenError("The model's MLmodel has its code elsewhere than in 'code': log the model again.")
    signature = _signature(described)
    if claims and claims[0].startswith("an artifact"):
        return _ours(snapshot, described, function, set(others), signature)
    for name, of in others.items():
        if _is_data_flavor(name, of):
            return _one_file(snapshot, function, name, of, set(others), signature)
    return _pyfunc(snapshot, "flavors that may run code" if others else "a loader of its own", signature)


def _pyfunc(snapshot: Snapshot, why: str, signature: Signature) -> ModelFolder:
    return ModelFolder(snapshot.path, "pyfunc", snapshot.files, runs_code=why, signature=signature)


def _two_forms(one: str, other: str) -> ModelForbiddenError:
    return ModelForbiddenError(
        f"The model's folder can be read in two ways ({one}, and {other}), and which one is meant cannot be told: log "
        "the model again into a folder of its own."
    )


def _bare(snapshot: Snapshot, kind: str) -> ModelFolder:
    forms: dict[str, Form] = {"pickle": "pickle", "joblib": "joblib", "skops": "skops", "onnx": "onnx"}
    why = "a pickle" if kind in ("pickle", "joblib") else None
    return ModelFolder(snapshot.path, forms[kind], snapshot.files, file="", runs_code=why)


def _flavors(described: Any) -> dict[str, dict[str, Any]]:
    flavors = described.get("flavors") if isinstance(described, dict) else None
    if not isinstance(flavors, dict) or not all(
        isinstance(name, str) and isinstance(flavor, dict) for name, flavor in flavors.items()
    ):
        raise ArtifactError(_NOT_WRITTEN)
    return flavors


def _is_data_flavor(name: str, flavor: Mapping[str, Any]) -> bool:
    """Whether a flavor says that its model is one file of nothing but data."""
    if name == "lightgbm" and flavor.get("model_class", _BOOSTER) == _BOOSTER:
        return False  # in LightGBM's own text, whatever MLflow says of its serialization
    return name == "onnx" or (name in ("sklearn", "lightgbm") and flavor.get("serialization_format") == "skops")


def _claims_ours(described: Mapping[str, Any], function: Mapping[str, Any], files: Mapping[str, Any]) -> bool:
    """Whether anything in the folder says that it is our own artifact."""
    artifacts = function.get("artifacts")
    return (
        _is_declared(described)
        or (isinstance(artifacts, dict) and artifact.NAME in artifacts)
        or f"{OWN_FOLDER}/{artifact.MANIFEST}" in files
    )


def _is_declared(described: Mapping[str, Any]) -> bool:
    """Whether the MLmodel's metadata says that it is our own artifact, as `fin_pyfunc.log_model` writes it."""
    metadata = described.get("metadata")
    return isinstance(metadata, dict) and artifact.NAME in metadata


def _one_file(
    snapshot: Snapshot,
    function: Mapping[str, Any],
    name: str,
    flavor: Mapping[str, Any],
    others: set[str],
    signature: Signature,
) -> ModelFolder:
    """A model in one skops or ONNX file, unless it brings code along."""
    file, loader = flavor.get(_FILE_KEYS[name]), function.get("loader_module")
    if loader in [f"mlflow.{other}" for other in others - {name}]:  # one flavor of several, and not the one served
        return _pyfunc(snapshot, "flavors that may run code", signature)
    if not isinstance(file, str) or file not in snapshot.files:
        raise ArtifactError("The model's MLmodel names a file that is not in its folder: log the model again.")
    named = [function[key] for key in ("data", "model_path") if function.get(key) is not None]
    if loader != f"mlflow.{name}" or any(of != file for of in named):
        raise _two_forms(f"the {name} flavor", "what python_function names")
    if function.get("code") is not None or flavor.get("code") is not None:
        return _pyfunc(snapshot, "code of its user's", signature)
    if not set(function) <= _DATA_KEYS or function.get("predict_fn", "predict") not in PREDICT_METHODS:
        return _pyfunc(snapshot, "options of its own", signature)
    return ModelFolder(
        snapshot.path,
        "onnx" if name == "onnx" else "skops",
        {read: snapshot.files[read] for read in (_MLMODEL, file)},
        flavor=name,
        file=file,
        signature=signature,
        predict_method=function.get("predict_fn", "predict"),
    )


def _ours(
    snapshot: Snapshot,
    described: Mapping[str, Any],
    function: Mapping[str, Any],
    others: set[str],
    signature: Signature,
) -> ModelFolder:
    """Our own artifact, unless its code file is another."""
    path = function.get("model_code_path")
    entry = Path(path).name if isinstance(path, str) else ""  # MLflow writes where it was, and looks for its last part
    if (
        others
        or function.get("loader_module") != _CODE_MODEL
        or not set(function) <= _OWN_KEYS
        or not _is_own_artifact(function.get("artifacts"))
        or not isinstance(function.get("config") or {}, dict)
    ):
        if not others and not _is_declared(described) and function.get("loader_module") in _PYTHON_MODELS:
            return _pyfunc(snapshot, "a Python model around an artifact of fin_pyfunc", signature)
        raise _two_forms("an artifact of fin_pyfunc", "what python_function names")
    if entry not in snapshot.files:
        raise ArtifactError("The model's MLmodel names a file that is not in its folder: log the model again.")
    if snapshot.files[entry].sha256 not in artifact.ENTRIES:
        return _pyfunc(snapshot, "a code file that is not of a released fin_pyfunc", signature)
    parts = (f"{OWN_FOLDER}/", "code/")
    files = {name: digest for name, digest in snapshot.files.items() if name == _MLMODEL or name.startswith(parts)}
    why = None
    if any(map(_is_user_code, files)):
        why = "code of its user's"
    elif artifact.declared(snapshot.path / OWN_FOLDER).serialization != "skops":
        why = "a pickle"
    return ModelFolder(snapshot.path, "fin_pyfunc", files, runs_code=why, signature=signature)


def _is_own_artifact(artifacts: Any) -> bool:
    if not isinstance(artifacts, dict) or set(artifacts) != {artifact.NAME}:
        return False
    described = artifacts[artifact.NAME]
    # the uri is where it was logged from, for the audit log
    return isinstance(described, dict) and {k: v for k, v in described.items() if k != "uri"} == {"path": OWN_FOLDER}


def _is_user_code(name: str) -> bool:
    """Whether a file of our own folder is importable; our wheel in a folder on the path is not."""
    if not name.startswith("code/"):
        return False
    below = name.removeprefix("code/")
    return not (below.startswith(f"{artifact.NAME}-") and below.endswith(".whl") and "/" not in below)


def _signature(described: Mapping[str, Any]) -> Signature:
    signature = described.get("signature")
    if signature is None:
        return None
    parts = {key: signature.get(key) for key in ("inputs", "outputs", "params")} if isinstance(signature, dict) else {}
    if not parts or not all(part is None or isinstance(part, str) for part in parts.values()):
        raise ArtifactError(_NOT_WRITTEN)
    return MappingProxyType(parts)


def drop_references(path: Path) -> None:
    """Keep only plain requirements in the copy of a model: MLflow follows ``-r FILE`` when it loads one."""
    file = path / requirements_file.FILE
    if file.is_file():
        content = file.read_bytes() if file.stat().st_size <= requirements_file.MAX_BYTES else b""
        file.write_text(requirements_file.text_of(requirements_file.parse_plain(content)), encoding="utf-8")
