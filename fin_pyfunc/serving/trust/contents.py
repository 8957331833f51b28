"""What is in a model's folder, read as data: how much of it there is, and whether any of it is executable."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fin_pyfunc.model import artifact
from fin_pyfunc.model.errors import ArtifactError, ModelForbiddenError

#: Our own code file: what each released one does, this one does.
ENTRY = Path(artifact.__file__).with_name("entry.py")
#: Most files in a model's folder.
MAX_FILES = 10_000
_CODE_MODEL = "mlflow.pyfunc.loaders.code_model"
#: What our own MLmodel says to MLflow; a key beyond these may have it import or unpickle something.
_OWN_KEYS = frozenset(
    {
        "artifacts", "cloudpickle_version", "code", "config", "env", "loader_module", "model_code_path",
        "python_version", "streamable",
    }
)  # fmt: skip
#: The flavor of each kind of file that is nothing but data.
_FLAVORS = {"skops": "sklearn", "onnx": "onnx"}
_MODELS_TRUST = "deployment.api.models.trust"
_EXECUTABLE = (
    f"This model is more than data ({{}}), and '{_MODELS_TRUST}' does not let such a one be loaded from there; log it "
    "with fin_pyfunc.log_model without serialization='cloudpickle' and code_paths, or as skops or ONNX."
)


def check_size(path: Path, max_bytes: int, roots: Sequence[Path] = ()) -> None:
    """Check how large a model is, and that no link in its folder leads elsewhere.

    Parameters
    ----------
    path : Path
        A model's folder, or a bare file.
    max_bytes : int
    roots : sequence of Path
        Where links may lead besides the folder itself.

    Raises
    ------
    ModelForbiddenError
    """
    inside = (path.resolve(), *roots)
    total = count = 0
    for entry in path.rglob("*") if path.is_dir() else (path,):
        if entry.is_symlink() and not any(entry.resolve().is_relative_to(root) for root in inside):
            raise ModelForbiddenError("The model's folder holds a link that leads elsewhere; remove it.")
        if entry.is_dir():
            continue
        if not entry.is_file():
            raise ModelForbiddenError("The model's folder holds something that is neither file nor folder; remove it.")
        count, total = count + 1, total + entry.stat().st_size
        check_total(total, count, max_bytes)


def check_total(total: int, count: int, max_bytes: int) -> None:
    """Raise ModelForbiddenError for more bytes or files than a model may have."""
    if total > max_bytes or count > MAX_FILES:
        raise ModelForbiddenError(
            f"The model is larger than this server loads (deployment.api.models.max_bytes, {max_bytes} bytes, and "
            f"{MAX_FILES} files)."
        )


def without_code(path: Path, folder: Path) -> Path:
    """Lay out one of our own models for MLflow so that it runs our code file and nothing else.

    Python takes a compiled file that lies beside a code file for it, and MLflow puts the model's ``code/`` on the path;
    neither comes along.

    Parameters
    ----------
    path : Path
        A folder that `check_data` has passed.
    folder : Path
        An empty one; must last as long as the model.

    Returns
    -------
    Path
        `folder`.

    Raises
    ------
    ModelForbiddenError
        The code file is another one by now.
    """
    name = _check_entry(path, flavors_of(path)["python_function"].get("model_code_path")).name
    for file in path.iterdir():
        if file.is_file() and file.suffix != ".py":
            shutil.copy(file, folder)
    (folder / name).write_bytes(ENTRY.read_bytes())
    (folder / "artifacts").symlink_to(path.resolve() / "artifacts")
    return folder


def check_data(path: Path) -> None:
    """Check that nothing in a model's folder would be executed by loading it.

    It is one of ours, with the code file of a released version and nothing importable beside it; or an `mlflow.sklearn`
    model in skops; or an `mlflow.onnx` model.

    Parameters
    ----------
    path : Path
        The folder with its MLmodel.

    Raises
    ------
    ModelForbiddenError
        It may be a good model, but it is more than data.
    ArtifactError
        It is damaged.
    """
    flavors = flavors_of(path)
    if (found := data_file(path)) is not None:
        function = flavors.get("python_function", {})
        if function.get("loader_module") != f"mlflow.{_FLAVORS[found[0]]}" or function.get("code") is not None:
            raise _executable("a loader of its own")
        return
    if set(flavors) != {"python_function"}:
        raise _executable("flavors that may run code")
    function = flavors["python_function"]
    if function.get("loader_module") != _CODE_MODEL or not set(function) <= _OWN_KEYS:
        raise _executable("a loader of its own")
    if function.get("code") not in (None, "code"):
        raise _executable("code elsewhere")
    if not _is_own_artifact(function.get("artifacts")):
        raise _executable("artifacts elsewhere")
    if not isinstance(function.get("config", {}), dict):
        raise _executable("a configuration elsewhere")
    _check_entry(path, function.get("model_code_path"))
    _check_code(path / "code")
    if artifact.declared(path / "artifacts" / artifact.NAME).serialization != "skops":
        raise _executable("a pickle")


def data_file(path: Path) -> tuple[str, Path] | None:
    """The one file that an `mlflow.sklearn` model in skops, or an `mlflow.onnx` model, is made of, and its kind.

    None for any other model. The list of types that the model itself trusts, and the options that it has for ONNX
    Runtime, are not looked at.
    """
    flavors = flavors_of(path)
    sklearn, onnx = flavors.get("sklearn"), flavors.get("onnx")
    if sklearn is not None and sklearn.get("serialization_format") == "skops":
        return "skops", _file(path, sklearn.get("pickled_model"))
    if onnx is not None and sklearn is None:
        return "onnx", _file(path, onnx.get("data"))
    return None


def flavors_of(path: Path) -> dict[str, dict[str, Any]]:
    """What an MLmodel says of flavors.

    Raises
    ------
    ArtifactError
        There is no MLmodel, or none that MLflow writes.
    """
    flavors = (artifact.mlmodel(path) or {}).get("flavors")
    if not isinstance(flavors, dict) or not all(
        isinstance(name, str) and isinstance(flavor, dict) for name, flavor in flavors.items()
    ):
        raise ArtifactError("The model's MLmodel is not one that MLflow writes: log the model again.")
    return flavors


def _is_own_artifact(artifacts: Any) -> bool:
    if (
        not isinstance(artifacts, dict)
        or set(artifacts) != {artifact.NAME}
        or not isinstance(artifacts[artifact.NAME], dict)
    ):
        return False
    # the uri is where it was logged from, for the record
    return {name: value for name, value in artifacts[artifact.NAME].items() if name != "uri"} == {
        "path": f"artifacts/{artifact.NAME}"
    }


def _file(path: Path, name: Any) -> Path:
    if not isinstance(name, str) or Path(name).name != name or not (path / name).is_file():
        raise ArtifactError("The model's MLmodel names a file that is not in its folder: log the model again.")
    return path / name


def _check_entry(path: Path, name: Any) -> Path:
    # MLflow writes where it was, and looks for its last part alone
    file = _file(path, Path(name).name if isinstance(name, str) else None)
    if file.stat().st_size > artifact.MAX_TEXT or hashlib.sha256(file.read_bytes()).hexdigest() not in artifact.ENTRIES:
        raise _executable("a code file that is not of a released fin_pyfunc")
    return file


def _check_code(folder: Path) -> None:
    """A wheel in a folder on the path is not importable, and nothing else may be there."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        is_wheel = entry.name.startswith(f"{artifact.NAME}-") and entry.suffix == ".whl"
        if not is_wheel or not entry.is_file() or entry.is_symlink():
            raise _executable("code of its user's")


def _executable(why: str) -> ModelForbiddenError:
    return ModelForbiddenError(_EXECUTABLE.format(why))
