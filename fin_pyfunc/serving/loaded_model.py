"""A model in memory, and what a server keeps beside it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fin_pyfunc.model.classifier import Classifier
from fin_pyfunc.model.errors import ArtifactError
from fin_pyfunc.serving import served_pyfunc
from fin_pyfunc.serving.hosts.hosted_model import HostedModel
from fin_pyfunc.serving.model_folder import ModelFolder
from fin_pyfunc.serving.resolver import Resolved

if TYPE_CHECKING:
    from mlflow.pyfunc import PyFuncModel


class LoadedModel:
    """A model in memory.

    Parameters
    ----------
    resolved : Resolved
        What was asked for and what it turned out to be.
    model : Classifier
        What answers.
    open_pyfunc : callable or None
        Makes the same as MLflow's scoring code takes it, when MLflow's routes first ask; None for a bare file, which
        MLflow does not know.
    folder : ModelFolder
        What it was classified as: the private copy of its folder, or of the bare file.
    artifact_sha256 : str
        Digest of its files, hexadecimal: of our manifest, which holds those of all others, or of all there are.
    size : int
        Bytes of its files.
    hosted : HostedModel, optional
        The same in a process of its own, where MLflow's routes are answered there.

    Attributes
    ----------
    loaded_at : float
        Seconds since the epoch.
    hits : int
        How often it was asked for.
    default_uri : str or None
        The server's default model's URI, where it is that model or was: another URI may have loaded it before.
    """

    def __init__(
        self,
        resolved: Resolved,
        model: Classifier,
        open_pyfunc: Callable[[], PyFuncModel] | None,
        folder: ModelFolder,
        artifact_sha256: str,
        size: int,
        hosted: HostedModel | None = None,
    ) -> None:
        self.resolved, self.model, self.folder = resolved, model, folder
        self.artifact_sha256, self.size, self.hosted = artifact_sha256, size, hosted
        self.hits = 0
        self.default_uri: str | None = None
        self.has_pyfunc = open_pyfunc is not None or (hosted is not None and hosted.described.has_pyfunc)
        self._open_pyfunc, self._opening = open_pyfunc, threading.Lock()
        self._pyfunc: PyFuncModel | None = None
        self.loaded_at = time.time()
        #: header lines of an answer by what was asked and which backend answered, for `endpoints.lineage`
        self.lineage: dict[tuple[str | None, str], list[tuple[bytes, bytes]]] = {}
        #: what all records of an answer have in common, by the same, for `record.facts`
        self.recorded: dict[tuple[str | None, str | None], bytes] = {}
        #: the text of a usual record around what differs, by the same and by who asked, for `record.recorder`
        self.noted: dict[tuple[str | None, str, str | None], tuple[bytes, ...]] = {}

    def asked_by(self, asked: str | None) -> str:
        """The URI that a request asked for: the one it sent, or, where it sent none, the default model's."""
        return self.default_uri or self.resolved.uri if asked is None else asked

    @property
    def is_out(self) -> bool:
        """Whether it was taken out because its process ended too often, and nothing else computes it."""
        outage = None if self.hosted is None else self.hosted.outage
        return outage is not None and outage.is_out and len(self.model.dispatch.backends) == 1

    @property
    def input_schema(self) -> Any:
        """MLflow's schema of its rows, from the signature in its MLmodel; None where there is none."""
        signature = served_pyfunc.signature_of(self.folder)
        return None if signature is None else signature.inputs

    @property
    def is_pyfunc_open(self) -> bool:
        """Whether MLflow's routes have asked for it."""
        return self._pyfunc is not None

    def prepare_pyfunc(self) -> None:
        """Be ready for MLflow's routes, where this process answers them."""
        if self.hosted is None:
            _ = self.pyfunc

    @property
    def pyfunc(self) -> PyFuncModel:
        """The model as MLflow's scoring code takes it, made when it is first asked for."""
        with self._opening:
            if self._pyfunc is None:
                if self._open_pyfunc is None:
                    raise ArtifactError("The model is no MLflow model in this process: use /predict.")
                self._pyfunc = self._open_pyfunc()
        return self._pyfunc
