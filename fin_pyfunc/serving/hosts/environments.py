"""Python environments of models: built with uv from checked requirements, each once, and kept.

uv is run here and not by MLflow (``mlflow.utils.virtualenv``), which runs the same two commands. MLflow's has no time
limit, builds in place, hands uv the model's own folder (where a ``uv.lock`` with a ``pyproject.toml`` beats the
requirements), wants the exact patch release of Python, and installs from source.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import re
import shutil
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.metadata import metadata
from pathlib import Path
from typing import IO, NamedTuple

from packaging.specifiers import SpecifierSet

from fin_pyfunc.model import artifact, requirements_file
from fin_pyfunc.model.errors import ArtifactError
from fin_pyfunc.model.requirements_file import Requirement
from fin_pyfunc.serving.hosts.uv_program import UvError, find_uv, run_uv

_OWN = "fin-pyfunc"
#: What a model host needs besides our own package, where the model names no version of it.
HOST_PACKAGES = ("mlflow", "msgspec", "numpy", "pandas", "pyarrow")
#: Seconds for which an environment that could not be built is not tried again.
FAILURE_SECONDS = 300.0
#: Part of each environment's key; raise it when environments are built in another way.
_FORMAT = 1
#: Names of packages that one line of the log holds.
_LOGGED_NAMES = 12
_VERSION = re.compile(r"(3\.\d{1,2})(\.[\w.+]{1,20})?")
_POLL_SECONDS = 0.2

logger = logging.getLogger("fin_pyfunc.server")


class EnvironmentSpec(NamedTuple):
    """What an environment is made of.

    Parameters
    ----------
    python : str
        Version of Python, such as ``"3.11"``.
    requirements : tuple of Requirement
        Sorted, without our own package.
    """

    python: str
    requirements: tuple[Requirement, ...]


class Environments:
    """Environments of models, in one folder that all workers and servers of this user share.

    Parameters
    ----------
    folder : Path or None
        Made if it is not there; default `default_folder`. Nobody else may write to it: what lies there is run.
    timeout_seconds : float
        Longest time that building one may take, waiting for another process that builds it included.
    """

    def __init__(self, folder: Path | None, timeout_seconds: float) -> None:
        self._folder, self._timeout_seconds = folder, timeout_seconds

    def python_of(self, model: Path) -> Path:
        """Find or build the environment of a model; takes seconds to minutes where it must be built.

        Parameters
        ----------
        model : Path
            A model's folder, which nobody else may write to.

        Returns
        -------
        Path
            The environment's Python. Whatever is installed there may run code whenever it is started.

        Raises
        ------
        ArtifactError
            The requirements are not plain, or cannot be installed here; or the time is up.
        """
        deadline = time.monotonic() + self._timeout_seconds
        spec = read_spec(model)
        folder, key = self._checked_folder(), _key(spec)
        python = folder / key / "bin" / "python"
        if python.exists():
            return python
        try:
            with _locked(folder / f"{key}.lock", deadline) as lock:
                if not python.exists():  # another process has built it meanwhile
                    _build_or_remember(spec, folder / key, deadline, lock)
        except OSError as e:
            raise ArtifactError(
                f"The model's environment could not be written ({e.strerror}): see to the folder of "
                "'deployment.api.models.environments_folder'."
            ) from e
        return python

    def _checked_folder(self) -> Path:
        folder = (self._folder or default_folder()).resolve()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = folder.stat()
        except OSError as e:
            raise ArtifactError(
                f"The folder for models' environments cannot be made ({e.strerror}): set "
                "'deployment.api.models.environments_folder' to one that the server may write to."
            ) from e
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise ArtifactError(
                "The folder for models' environments may be written to by other users: make it the server's own, "
                "with mode 0700 (deployment.api.models.environments_folder)."
            )
        return folder


def default_folder() -> Path:
    """The folder for environments in the user's cache."""
    try:
        cache_folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError as e:
        raise ArtifactError(
            "The server's user has no home folder for models' environments: set "
            "'deployment.api.models.environments_folder'."
        ) from e
    return cache_folder / "fin_pyfunc" / "environments"


def read_spec(model: Path) -> EnvironmentSpec:
    """Read what environment a model wants, as data.

    Our own package is left out: a host brings the server's along, of which it runs the program.

    Parameters
    ----------
    model : Path
        A model's folder.

    Raises
    ------
    ArtifactError
        It has no requirements, they are not plain, or it wants a version of Python that this package does not run on.
    """
    try:
        content = artifact.read_bounded(model / requirements_file.FILE)
    except OSError as e:
        raise ArtifactError(
            f"The model's {requirements_file.FILE} cannot be read ({e.strerror}), and 'deployment.api.models."
            "environment: model' builds an environment from it: log the model again."
        ) from e
    requirements = {each for each in requirements_file.parse(content) if each.name != _OWN}
    return EnvironmentSpec(_python_version(model), tuple(sorted(requirements)))


def _python_version(model: Path) -> str:
    """The minor version of Python that a model was logged with, such as ``"3.11"``; the server's where it says none."""
    version = (artifact.read_yaml(model / "python_env.yaml") or {}).get("python")
    if version is None:
        with contextlib.suppress(KeyError, TypeError):
            version = (artifact.mlmodel(model) or {})["flavors"]["python_function"]["python_version"]
    if version is None:
        return _own_python()
    matched = _VERSION.fullmatch(version) if isinstance(version, str) else None
    if matched is None:
        raise ArtifactError(
            "The model's version of Python is none, such as 3.11.7: log the model again (python_env.yaml, MLmodel)."
        )
    supported = metadata(_OWN)["Requires-Python"]
    if not SpecifierSet(supported).contains(matched[1]):
        raise ArtifactError(
            f"The model was logged with Python {matched[1]}, and this version of fin_pyfunc runs on {supported}: log "
            "the model again with such a Python, or serve it with 'deployment.api.models.environment: server'."
        )
    return matched[1]


def _own_python() -> str:
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def _key(spec: EnvironmentSpec) -> str:
    """Digest of all that an environment depends on."""
    interpreter = str(Path(sys.executable).resolve()) if spec.python == _own_python() else ""
    parts = [str(_FORMAT), spec.python, interpreter, sysconfig.get_platform(), _text(spec)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _text(spec: EnvironmentSpec) -> str:
    """What uv is to install, as a requirements file: the model's pins, and the host's packages where it names none."""
    named = {each.name for each in spec.requirements}
    if "mlflow-skinny" in named:
        named.add("mlflow")
    added = "".join(f"{name}\n" for name in HOST_PACKAGES if name not in named)
    return requirements_file.text_of(spec.requirements) + added


def _build_or_remember(spec: EnvironmentSpec, target: Path, deadline: float, lock: IO[bytes]) -> None:
    """Build an environment unless that has failed a short while ago, in whichever process."""
    failed = target.with_suffix(".failed")
    if failed.exists() and time.time() - failed.stat().st_mtime < FAILURE_SECONDS:
        raise ArtifactError(failed.read_text(encoding="utf-8"))
    try:
        _build(spec, target, deadline, lock)
    except ArtifactError as e:
        failed.write_text(str(e), encoding="utf-8")
        raise
    failed.unlink(missing_ok=True)


def _build(spec: EnvironmentSpec, target: Path, deadline: float, lock: IO[bytes]) -> None:
    """Build an environment beside its place, and move it there once it is whole."""
    uv = find_uv()
    if uv is None:
        raise ArtifactError(
            "The model's environment could not be built, as uv is not installed here: run pip install "
            "'fin_pyfunc[environments]'."
        )
    names = list(dict.fromkeys(each.name for each in spec.requirements))
    more = f" and {len(names) - _LOGGED_NAMES} more" if len(names) > _LOGGED_NAMES else ""
    logger.info(
        "building environment %s with Python %s for %s%s",
        target.name, spec.python, ", ".join(names[:_LOGGED_NAMES]), more,
    )  # fmt: skip
    begun = time.monotonic()
    building = target.with_suffix(".building")
    for leftover in (building, target):  # of a process that was killed; of a Python that is gone
        shutil.rmtree(leftover, ignore_errors=True)
    building.mkdir(mode=0o700)
    try:
        # uv takes the nearest uv.toml of the folders above, and those may be anybody's; the user's own is still read
        (building / "uv.toml").touch()
        (building / requirements_file.FILE).write_text(_text(spec), encoding="utf-8")
        python = sys.executable if spec.python == _own_python() else spec.python
        run = partial(_run, uv, building, deadline, lock)
        run(
            ("venv", "--relocatable", "--no-project", "--no-python-downloads", "--python", python, "environment"),
            f"The model was logged with Python {spec.python}, which uv does not find here: install it (uv python "
            f"install {spec.python}), or serve the model with 'deployment.api.models.environment: server'.",
        )
        # all at once: uv starts the environment's Python first, which would run what an earlier run has installed
        run(
            ("pip", "install", "--python", "environment", "--no-build", "-r", requirements_file.FILE),
            "The model's environment could not be built: uv could not install its requirements, and the server's log "
            "says why; it is tried again in a few minutes.",
        )
        shutil.move(building / requirements_file.FILE, building / "environment")  # for whoever looks what it is
        (building / "environment").rename(target)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    logger.info("environment %s was built in %.1f s", target.name, time.monotonic() - begun)


def _run(uv: str, folder: Path, deadline: float, lock: IO[bytes], arguments: Sequence[str], otherwise: str) -> None:
    try:
        # should this process be killed, uv still holds the lock until it ends
        run_uv(uv, arguments, folder, deadline - time.monotonic(), (lock.fileno(),))
    except UvError as e:
        raise ArtifactError(otherwise) from e
    except TimeoutError as e:
        raise ArtifactError(
            "The model's environment could not be built in the time that "
            "'deployment.api.models.environment_seconds' allows; it is tried again in a few minutes."
        ) from e


@contextlib.contextmanager
def _locked(file: Path, deadline: float) -> Iterator[IO[bytes]]:
    """Hold a file's lock against other threads and processes."""
    with file.open("ab") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ArtifactError(
                        "The model's environment is still being built by another process of the server: try again in "
                        "a few minutes."
                    ) from None
                time.sleep(_POLL_SECONDS)
        yield lock
