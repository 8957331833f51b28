"""What must be installed for a logged model to load: read off the estimator's own file."""

from __future__ import annotations

import pickle
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any

from fin_pyfunc._version import __version__
from fin_pyfunc.model.errors import NotLoggableError
from fin_pyfunc.model.estimators import Serialization, skops_nodes

#: Distributions that every artifact needs; the others come from what the estimator is made of.
BASE = ("mlflow", "numpy", "pandas", "scikit-learn", "skops", "cloudpickle")


def modules_of(file: Path, serialization: Serialization) -> set[str]:
    """Dotted names of the modules that an estimator file takes its classes and functions from."""
    if serialization == "cloudpickle":
        return _pickle_modules(file)
    return {module for node in skops_nodes(file) if isinstance(module := node.get("__module__"), str)}


def refuse_local_modules(modules: set[str], code_paths: Sequence[str]) -> None:
    """Refuse an estimator whose classes live in files that would stay behind on this machine.

    Raises
    ------
    NotLoggableError
    """
    carried = {Path(path).stem for path in code_paths}
    known = set(_installed()) | set(sys.stdlib_module_names) | {"builtins", "__main__"} | carried
    local = sorted({module for module in modules if module.partition(".")[0] not in known})
    if local:
        raise NotLoggableError(
            f"the estimator needs module {local[0]!r}, which is in no installed package and so would stay behind on "
            "this machine: pass its file or folder in code_paths=[…], or define the class in the notebook itself."
        )


def library_versions(modules: set[str]) -> dict[str, str]:
    """Versions of Python, of this project and of what the estimator is made of."""
    names = sorted({"fin_pyfunc", *BASE, *_distributions(modules)})
    return {"python": platform.python_version(), **{name: installed_version(name) for name in names}}


def pip_arguments(
    modules: set[str], given: Sequence[str] | str | None, extra: Sequence[str] | str | None
) -> dict[str, Any]:
    """`pip_requirements` for MLflow: our wheel and pinned versions, unless the caller gave others.

    The wheel is found through ``--find-links``, the one path in a requirements file that pip and uv read from that
    file's folder; a path to the wheel itself they read from the folder they run in, which in MLflow's image is another.
    """
    pinned = [f"{name}=={installed_version(name)}" for name in sorted({*BASE, *_distributions(modules)})]
    listed = pinned if given is None else _requirements(given)
    return {
        "pip_requirements": ["--find-links code", f"fin_pyfunc=={__version__}", *listed, *_requirements(extra or ())]
    }


def installed_version(name: str) -> str:
    """Version of a distribution here; of MLflow that of ``mlflow-skinny``, which has all of its code, where there is
    no other.

    Raises
    ------
    PackageNotFoundError
    """
    try:
        return version(name)
    except PackageNotFoundError:
        if name != "mlflow":
            raise
        return version("mlflow-skinny")


def _requirements(given: Sequence[str] | str) -> list[str]:
    """Requirements as listed, or as in the file of that name."""
    if not isinstance(given, str):
        return list(given)
    try:
        return Path(given).read_text().splitlines()
    except OSError as e:
        raise NotLoggableError(
            f"the requirements file cannot be read ({e.strerror}): pass a list of requirements, or the path of a file."
        ) from e


def _distributions(modules: set[str]) -> Iterator[str]:
    installed = _installed()
    for top in {module.partition(".")[0] for module in modules}:
        # a namespace such as "google" belongs to many; those that own a module of the estimator are few and named here
        owners = set(installed.get(top, []))
        if len(owners) == 1 and owners != {"fin_pyfunc"}:
            yield owners.pop()


def _installed() -> Mapping[str, list[str]]:
    """Distributions by the top-level modules they bring."""
    # not the folder one works in, which changes with every file that is written there
    folders = [folder for folder in sys.path if any(Path(folder).glob("*.*-info"))]
    return _installed_in(tuple((folder, Path(folder).stat().st_mtime_ns) for folder in folders))


@lru_cache(maxsize=1)
def _installed_in(folders: tuple[tuple[str, int], ...]) -> Mapping[str, list[str]]:  # noqa: ARG001 - what it depends on
    return packages_distributions()  # reads every installed file list: most of the time that logging takes


class _Recorder(pickle.Unpickler):
    """Reads a pickle that this process has just written, and notes where its classes come from."""

    modules: set[str]

    def find_class(self, module: str, name: str) -> Any:
        self.modules.add(module)
        if (module, name) == ("cloudpickle.cloudpickle", "subimport"):
            return self._subimport
        return super().find_class(module, name)

    def _subimport(self, module: str) -> Any:
        """What cloudpickle calls for a module that a notebook's class or function refers to."""
        self.modules.add(module)
        return import_module(module)


def _pickle_modules(file: Path) -> set[str]:
    with file.open("rb") as stream:
        recorder = _Recorder(stream)
        recorder.modules = set()
        recorder.load()
    return recorder.modules
