"""The folder that Docker builds a model's image from: the model, our wheel, the locked packages, the Dockerfile."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from fin_pyfunc import __version__
from fin_pyfunc.authoring import wheel
from fin_pyfunc.model import artifact
from fin_pyfunc.model.errors import ArtifactError, FinPyfuncError
from fin_pyfunc.serving.resolver import Resolved, Resolver
from fin_pyfunc.serving.snapshot import digest

#: As the labels of an image begin.
LABEL = "fin-pyfunc"
#: Where the Dockerfile takes the locked packages from, seen from the folder's root.
_LOCK = Path("fin_pyfunc/image/requirements.txt")


class Context(NamedTuple):
    """A folder to build from.

    Parameters
    ----------
    folder : Path
    labels : dict of str to str
        What the image is: the immutable model, its run, the digest of its files, the estimator, our version.
    """

    folder: Path
    labels: dict[str, str]


def write_context(uri: str, folder: Path, tracking_uri: str | None = None) -> Context:
    """Resolve a model and write all that its image is made of.

    Parameters
    ----------
    uri : str
        Whatever MLflow takes, or a local folder. An alias is resolved now: the image holds what it means today.
    folder : Path
        Where to; must be missing or empty.
    tracking_uri : str, optional
        Default: MLflow's own.

    Returns
    -------
    Context

    Raises
    ------
    ArtifactError
        The model's files are missing or damaged, or it is a bare estimator file.
    FinPyfuncError
        `folder` holds something.
    ModelNotFoundError, StoreUnavailableError
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FinPyfuncError(f"{folder} holds something already: name a folder that is missing or empty.")
    with _fetched(uri, tracking_uri) as (resolved, model):
        if resolved.kind != "mlflow":
            raise ArtifactError(
                f"{uri} is a bare estimator file: log it with 'fin-pyfunc log', and build the image of that model."
            )
        manifest = _checked(model)
        _write_frame(folder)
        shutil.copytree(model, folder / "model")
        _let_all_read(folder / "model")
    labels = {
        f"{LABEL}.version": __version__,
        f"{LABEL}.model-uri": uri,
        f"{LABEL}.model-id": resolved.model_id,
        f"{LABEL}.model-sha256": digest(folder / "model").removeprefix("sha256:"),
    }
    if resolved.run_id:
        labels[f"{LABEL}.run-id"] = resolved.run_id
    if manifest is not None:
        labels[f"{LABEL}.estimator"] = manifest.estimator
        labels |= {f"{LABEL}.sha256.{name}": file.sha256 for name, file in sorted(manifest.files.items())}
    (folder / "labels").write_text("".join(f"{name}={value}\n" for name, value in labels.items()), encoding="utf-8")
    return Context(folder, labels)


def _let_all_read(folder: Path) -> None:
    """Let the image's own user read the model: a private copy is for the user who made it alone."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


@contextlib.contextmanager
def _fetched(uri: str, tracking_uri: str | None) -> Iterator[tuple[Resolved, Path]]:
    resolver = Resolver(tracking_uri)
    try:
        resolved = resolver.resolve_argument(uri)
        yield resolved, resolver.fetch(resolved).path
    finally:
        resolver.close()


def _checked(model: Path) -> artifact.Manifest | None:
    """The manifest of a model of ours, its files held to their digests; None for a model that MLflow alone logged."""
    described: Any = artifact.mlmodel(model)
    if described is None:
        raise ArtifactError(f"{model} has no readable MLmodel file: name the folder of a model that was logged.")
    ours = artifact.NAME in (described.get("metadata") or {})
    return artifact.read(model / "artifacts" / artifact.NAME) if ours else None


def _write_frame(folder: Path) -> None:
    """Everything but the model."""
    ours = files("fin_pyfunc.image")
    (folder / _LOCK).parent.mkdir(parents=True)
    (folder / "dist").mkdir()
    for name, target in (("Dockerfile", "Dockerfile"), ("dockerignore", ".dockerignore"), ("requirements.txt", _LOCK)):
        source = ours / name
        if not source.is_file():
            raise FinPyfuncError(
                f"fin_pyfunc was installed without {name}: install it with pip from its own wheel or checkout."
            )
        (folder / target).write_bytes(source.read_bytes())
    with tempfile.TemporaryDirectory() as temporary:
        shutil.move(wheel.build(Path(temporary)), folder / "dist")
