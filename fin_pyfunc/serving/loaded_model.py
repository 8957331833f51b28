"""A model in memory, and what a server keeps beside it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fin_pyfunc.model.classifier import Classifier
from fin_pyfunc.model.errors import ArtifactError
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
    path : Path
        The private copy of its folder, or of the bare file.
    artifact_sha256 : str
        Digest of its files, hexadecimal: of our manifest, which holds those of all others, or of all there are.
    size : int
        Bytes of its files.

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
        path: Path,
        artifact_sha256: str,
        size: int,
    ) -> None:
        self.resolved, self.model, self.path = resolved, model, path
        self.artifact_sha256, self.size = artifact_sha256, size
        self.hits = 0
        self.default_uri: str | None = None
        self.has_pyfunc = open_pyfunc is not None
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
    def is_pyfunc_open(self) -> bool:
        """Whether MLflow's routes have asked for it."""
        return self._pyfunc is not None

    @property
    def pyfunc(self) -> PyFuncModel:
        """The model as MLflow's scoring code takes it, made when it is first asked for."""
        with self._opening:
            if self._pyfunc is None:
                if self._open_pyfunc is None:
                    raise ArtifactError("A bare file is no MLflow model: log it, or use /predict.")
                self._pyfunc = self._open_pyfunc()
        return self._pyfunc
