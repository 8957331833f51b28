"""Open the models that may run code in hosts: what a `ModelFolder` says as what a host is told."""

from __future__ import annotations

from pathlib import Path

from fin_pyfunc.host.fork_client import is_supported
from fin_pyfunc.host.lifeline import Lifeline
from fin_pyfunc.host.opening import Opening
from fin_pyfunc.model import estimators
from fin_pyfunc.model.artifact import Manifest
from fin_pyfunc.model.errors import ArtifactError
from fin_pyfunc.model.features import FeatureSpec
from fin_pyfunc.serving.hosts.connection import Limits
from fin_pyfunc.serving.hosts.environments import Environments
from fin_pyfunc.serving.hosts.hosted_model import HostedModel
from fin_pyfunc.serving.hosts.hosts import Hosts
from fin_pyfunc.serving.metrics.values import Values
from fin_pyfunc.serving.model_folder import ModelFolder, drop_references
from fin_pyfunc.serving.settings import Models
from fin_pyfunc.serving.snapshot import Snapshot


class Isolation:
    """Opens models that may run code, each in a process of its own.

    Parameters
    ----------
    hosts : Hosts
    environments : Environments or None
        Where `models.environment` is "model": a host then runs in an environment built for its model.
    """

    def __init__(self, hosts: Hosts, environments: Environments | None = None) -> None:
        self.hosts, self._environments = hosts, environments

    @property
    def has_environments(self) -> bool:
        """Whether hosts run in environments built for their models."""
        return self._environments is not None

    def open_estimator(self, snapshot: Snapshot, folder: ModelFolder, manifest: Manifest, name: str) -> HostedModel:
        """Open the estimator of a model logged by this project.

        Parameters
        ----------
        snapshot : Snapshot
        folder : ModelFolder
            Of the form "fin_pyfunc".
        manifest : Manifest
            Its own.
        name : str
            The model's id, for the log.

        Raises
        ------
        ArtifactError, BackendError, ModelUnavailableError
        """
        file = folder.own_folder / estimators.FILE_NAMES[manifest.serialization]
        if manifest.serialization == "skops":
            _refuse_unknown_types(file)
        opening = Opening(
            form="artifact",
            path=str(folder.path),
            digest=snapshot.digest,
            features=manifest.features,
            classes=manifest.classes,
            serialization=manifest.serialization,
            device="gpu" if manifest.gpu_only else "cpu",
            python=self._python(folder.path),
        )
        return self._open(opening, name)

    def open_foreign(
        self, snapshot: Snapshot, folder: ModelFolder, features: FeatureSpec | None, backend: str | None, name: str
    ) -> HostedModel:
        """Open a model that was not logged by this project.

        Parameters
        ----------
        snapshot : Snapshot
        folder : ModelFolder
        features : FeatureSpec or None
            What its signature says.
        backend : str or None
            The operator's choice.
        name : str
            The model's id, for the log.

        Raises
        ------
        ArtifactError, BackendError, ModelUnavailableError
        """
        if folder.form == "skops":
            _refuse_unknown_types(folder.data_file)
        python = None if folder.is_bare else self._python(folder.path)  # reads the requirements as they are
        drop_references(folder.path)
        opening = Opening(
            form=folder.form if folder.form in ("pickle", "joblib") else "pyfunc",
            path=str(folder.path),
            digest=snapshot.digest,
            features=features,
            backend=backend,
            python=python,
        )
        return self._open(opening, name)

    def _open(self, opening: Opening, name: str) -> HostedModel:
        if not is_supported():
            raise ArtifactError(
                "The model may run code, and a process of its own needs Linux 5.3 or later: set deployment.api.models."
                "isolation to 'none', or log the model with fin_pyfunc.log_model without serialization='cloudpickle' "
                "and code_paths."
            )
        return self.hosts.open(opening, name)

    def _python(self, path: Path) -> str | None:
        return None if self._environments is None else str(self._environments.python_of(path))


def isolate(
    models: Models, request_seconds: float, lifeline: Lifeline | None = None, values: Values | None = None
) -> Isolation | None:
    """What the settings say of models that may run code; None where they are to run in this process.

    Parameters
    ----------
    models : Models
    request_seconds : float
        How long one answer may take.
    lifeline : Lifeline, optional
        What all workers of one server share; default one of this process's own.
    values : Values, optional
        Where ends of hosts are counted.
    """
    if models.isolation == "none":
        return None
    limits = Limits(models.host_memory_bytes, models.load_seconds, request_seconds)
    hosts = Hosts(limits, models.host_environment, lifeline, values)
    if models.environment == "server":
        return Isolation(hosts)
    folder = models.environments_folder
    return Isolation(hosts, Environments(None if folder is None else Path(folder), models.environment_seconds))


def _refuse_unknown_types(file: Path) -> None:
    """Which types a skops file may hold is for the operator to say, wherever it is opened."""
    try:
        unknown = estimators.unknown_types(file)
    except Exception as e:  # whatever a damaged file leads to
        raise ArtifactError("The estimator file could not be read: it is damaged, or no skops file.") from e
    if unknown:
        raise ArtifactError(
            f"The estimator file needs types that are not trusted here: {', '.join(unknown[:5])}; if you know them, "
            f"name them in {estimators.TRUSTED_TYPES_VARIABLE}."
        )
