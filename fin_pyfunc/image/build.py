"""`docker build` of a context, with its labels."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fin_pyfunc.image.context import Context, write_context
from fin_pyfunc.model.errors import FinPyfuncError

#: The published image that ours is built on.
BASE_IMAGE = "python:3.11-slim"


def build(
    uri: str,
    tag: str,
    *,
    tracking_uri: str | None = None,
    base_image: str | None = None,
    network: str | None = None,
) -> Context:
    """Build the image of one model; Docker's own output goes to the terminal.

    Parameters
    ----------
    uri : str
        As `write_context` takes it.
    tag : str
        Name of the image, such as ``eurusd:1``.
    tracking_uri : str, optional
        Default: MLflow's own.
    base_image : str, optional
        Default: the environment's BASE_IMAGE, else ``python:3.11-slim``.
    network : str, optional
        Docker's network of the build, such as ``host``; default Docker's own.

    Returns
    -------
    Context
        What was built; its folder is gone.

    Raises
    ------
    FinPyfuncError
        There is no Docker, or it could not build.
    ArtifactError, ModelNotFoundError, StoreUnavailableError
        As `write_context` raises them.
    """
    docker = shutil.which("docker")
    if docker is None:
        raise FinPyfuncError(
            "There is no docker command here: install Docker, or write what it needs with 'fin-pyfunc image context' "
            "and build that elsewhere."
        )
    with tempfile.TemporaryDirectory(prefix="fin-pyfunc-image-") as temporary:
        context = write_context(uri, Path(temporary, "context"), tracking_uri)
        command = [docker, *arguments(context, tag, base_image or os.environ.get("BASE_IMAGE") or BASE_IMAGE, network)]
        done = subprocess.run(command, env={**os.environ, "DOCKER_BUILDKIT": "1"}, check=False)
    if done.returncode:
        raise FinPyfuncError(f"docker build ended with status {done.returncode}: what it said is above.")
    return context


def arguments(context: Context, tag: str, base_image: str, network: str | None = None) -> Sequence[str]:
    """What `docker` is told."""
    labels = [part for name, value in context.labels.items() for part in ("--label", f"{name}={value}")]
    return [
        *("build", "--target", "model", "--tag", tag, "--build-arg", f"BASE_IMAGE={base_image}"),
        *(("--network", network) if network else ()),
        *labels,
        str(context.folder),
    ]
