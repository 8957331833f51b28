"""The artifact store: whether a model is there, and its files brought here."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from fin_pyfunc.model.errors import ArtifactError, ModelForbiddenError, StoreUnavailableError
from fin_pyfunc.serving.files import local_path
from fin_pyfunc.serving.snapshot import check_total
from fin_pyfunc.serving.store import Store

DAMAGED = "The files of this model are missing from the artifact store or are no model; restore them or log it again."
_UNAVAILABLE = "The artifact store does not answer, so the model could not be fetched; try again later."
_DENIED = (
    "The artifact store refuses this server's credentials (401 or 403), so the model is not fetched: set those of "
    "a user who may read it (MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or the cloud's own variables)."
)
# What artifact stores say of credentials that are wrong or missing.
_REFUSED = re.compile(r"40[13] Client Error|AccessDenied|Forbidden|InvalidAccessKeyId|[Cc]redentials")
# What artifact stores say of a file that is not there, once MLflow has made one message of many failures.
_GONE = re.compile(
    r"404 Client Error|RESOURCE_DOES_NOT_EXIST|NoSuch(Key|Bucket)|No such (file|artifact)|Not ?Found", re.IGNORECASE
)


def below(artifact_uri: str, path: str) -> str:
    """The artifact URI of a path below another."""
    from mlflow.utils.uri import append_to_uri_path

    location: str = append_to_uri_path(artifact_uri, path)
    return location


def has_mlmodel(store: Store, location: str) -> bool:
    """Whether there is a model's folder at an artifact URI.

    Raises
    ------
    StoreUnavailableError
        The artifact store does not answer.
    """
    if (path := local_path(location)) is not None:
        return (path / "MLmodel").is_file()
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with store.asking(DAMAGED) as client:
        tracking_uri = client.tracking_uri
    try:
        repository = get_artifact_repository(location, tracking_uri=tracking_uri, registry_uri=store.registry_uri)
        return any(file.path == "MLmodel" for file in repository.list_artifacts(None))
    except Exception as exc:  # each cloud's library raises its own
        if _GONE.search(str(exc)):
            return False
        raise _unavailable(exc) from exc


def download(store: Store, location: str, folder: Path, max_bytes: int) -> Path:
    """Download a model's folder.

    Parameters
    ----------
    store : Store
        Whose server the artifacts may go through.
    location : str
        An artifact URI; neither ``models:/`` nor ``runs:/``.
    folder : Path
        An empty folder of the caller's, to download into.
    max_bytes : int
        The most that the store may say that the model has.

    Returns
    -------
    Path
        The model's folder, in `folder`.

    Raises
    ------
    ModelForbiddenError
        It is too large, or has a file that would lie elsewhere.
    ArtifactError
        There is nothing there, or no model.
    StoreUnavailableError
        The artifact store does not answer.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with store.asking(DAMAGED) as client:
        tracking_uri = client.tracking_uri
    try:
        repository = get_artifact_repository(location, tracking_uri=tracking_uri, registry_uri=store.registry_uri)
        _check_listing(repository, max_bytes)
        path = Path(
            download_artifacts(
                artifact_uri=location, dst_path=str(folder), tracking_uri=tracking_uri, registry_uri=store.registry_uri
            )
        )
    except ModelForbiddenError:
        raise
    except Exception as exc:  # each cloud's library raises its own
        if _GONE.search(str(exc)):
            raise ArtifactError(DAMAGED) from exc
        raise _unavailable(exc) from exc
    if not (path / "MLmodel").is_file():
        raise ArtifactError(DAMAGED)
    return path


def _unavailable(error: Exception) -> StoreUnavailableError:
    return StoreUnavailableError(_DENIED if _REFUSED.search(str(error)) else _UNAVAILABLE)


def _check_listing(repository: Any, max_bytes: int) -> None:
    """Look at what the store says there is, before any of it is fetched."""
    total = count = 0
    folders: list[str | None] = [None]
    while folders:
        for file in repository.list_artifacts(folders.pop()):
            name = PurePosixPath(file.path)
            if name.is_absolute() or ".." in name.parts or "\\" in file.path:
                raise ModelForbiddenError("The artifact store lists a file of the model that would lie elsewhere.")
            if file.is_dir:
                folders.append(file.path)
            count, total = count + 1, total + (0 if file.is_dir else file.file_size or 0)
            check_total(total, count, max_bytes)
