"""Models that may run code, opened in this process: for `models.isolation: none`, and for commands that a person runs.

One process has one `sys.modules`: of two models that bring different modules of one name, the second would get the
first one's. Such a model is refused here; a model host (`isolation: process`) has a process for each.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from fin_pyfunc.model.artifact import FileDigest
from fin_pyfunc.model.choice import asking_for
from fin_pyfunc.model.classifier import Classifier
from fin_pyfunc.model.dispatch import Dispatch
from fin_pyfunc.model.errors import ArtifactError
from fin_pyfunc.model.features import FeatureSpec
from fin_pyfunc.model.foreign.estimator import FLAVORS, classifier_of
from fin_pyfunc.serving import served_pyfunc
from fin_pyfunc.serving.foreign import from_foreign
from fin_pyfunc.serving.model_folder import ModelFolder, drop_references
from fin_pyfunc.serving.snapshot import folder_sha256

#: By top-level module that a model brought here, the digest of its files; a module stays imported for good.
_BROUGHT: dict[str, str] = {}
_LOCK = threading.Lock()


@contextlib.contextmanager
def importable(folder: ModelFolder, holder: object) -> Iterator[None]:
    """Have a model's own modules importable while it is opened, and then for as long as `holder` lives.

    Raises
    ------
    ArtifactError
        A module of the same name and other content is there already.
    """
    code = str(folder.path / "code")
    modules = _modules(folder.files)
    if not modules:
        yield
        return
    with _LOCK:
        _refuse_others(modules, folder.path / "code")
        _BROUGHT.update(modules)
        sys.path.insert(0, code)
    weakref.finalize(holder, _forget, code)
    yield
    # MLflow puts the folder there once more
    with _LOCK:
        while sys.path.count(code) > 1:
            sys.path.remove(code)


def open_pyfunc(
    folder: ModelFolder, signed: FeatureSpec | None, backend: str | None
) -> tuple[Classifier, Callable[[], Any]]:
    """Open a model with MLflow.

    Parameters
    ----------
    folder : ModelFolder
    signed : FeatureSpec or None
        The features of its signature.
    backend : str or None

    Returns
    -------
    tuple of (Classifier, callable)
        What answers, and what returns MLflow's PyFuncModel.

    Raises
    ------
    ArtifactError
    """
    drop_references(folder.path)
    holder = _Holder()
    with importable(folder, holder), asking_for(backend):
        pyfunc = served_pyfunc.by_mlflow(folder.path)
    model = _classifier(pyfunc, signed, backend)
    vars(model)["_modules"] = holder
    return model, partial(_same, pyfunc)


class _Holder:
    """Its end takes a model's folder off `sys.path`."""


def _same(pyfunc: Any) -> Any:
    return pyfunc


def _classifier(pyfunc: Any, signed: FeatureSpec | None, backend: str | None) -> Classifier:
    if pyfunc.loader_module == "mlflow.pyfunc.loaders.code_model":
        raw = pyfunc.unwrap_python_model()
        if isinstance(raw, Classifier):
            return raw
    if any(flavor in pyfunc.metadata.flavors for flavor in FLAVORS):
        found = classifier_of(pyfunc.get_raw_model(), signed)
        if found is not None:
            return from_foreign(found, backend)
    from fin_pyfunc.model.backends.pyfunc import PyfuncBackend

    return Classifier.of(signed, Dispatch([PyfuncBackend(pyfunc, signed)], backend or "auto"))


def _modules(files: Mapping[str, FileDigest]) -> dict[str, str]:
    """The top-level modules in a model's ``code/``, each with the digest of its files."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for name, digest in files.items():
        parts = PurePosixPath(name).parts
        if len(parts) > 1 and parts[0] == "code" and not parts[1].endswith(".whl"):
            found[parts[1].partition(".")[0]]["/".join(parts[1:])] = digest.sha256
    return {module: folder_sha256(of) for module, of in found.items()}


def _refuse_others(modules: Mapping[str, str], code: Path) -> None:
    for name, digest in modules.items():
        known = _BROUGHT.get(name)
        if known == digest or (known is None and (name not in sys.modules or _is_same_file(name, code))):
            continue
        raise ArtifactError(
            f"The model brings a module {name!r}, and this process has imported another one of that name, so the model "
            "would run the wrong code: set deployment.api.models.isolation to 'process', or rename the module and log "
            "the model again."
        )


def _is_same_file(name: str, code: Path) -> bool:
    """Whether what is imported under a name has the content of what the model brings."""
    imported = getattr(sys.modules[name], "__file__", None)
    own = next((file for file in (code / f"{name}.py", code / name / "__init__.py") if file.is_file()), None)
    if imported is None or own is None:
        return False
    try:
        return _sha256(Path(imported)) == _sha256(own)
    except OSError:
        return False


def _sha256(file: Path) -> bytes:
    return hashlib.sha256(file.read_bytes()).digest()


def _forget(code: str) -> None:
    with _LOCK:
        while code in sys.path:
            sys.path.remove(code)
