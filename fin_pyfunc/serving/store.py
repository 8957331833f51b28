"""Asking MLflow: one client, bounded waits, and no exception of MLflow's or its libraries' outwards."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, MutableMapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fin_pyfunc.model.errors import ModelNotFoundError, StoreUnavailableError

if TYPE_CHECKING:
    from mlflow import MlflowClient

#: Seconds that a locked SQLite file is waited for.
SQLITE_WAIT = 2.0
#: What MLflow calls the variable that lets MLflow 3.7 and later use a file store.
ALLOW_FILE_STORE = "MLFLOW_ALLOW_FILE_STORE"

_UNAVAILABLE = (
    "MLflow does not answer, and is needed for this: check that it runs and that its tracking URI is right, "
    "or try again later."
)
_FILE_STORE = (
    f"MLflow 3.7 and later refuse a file store unless {ALLOW_FILE_STORE} is set to true; set it, or use a database."
)
# What MLflow says of a thing it looked for and did not find. An unknown alias is INVALID_PARAMETER_VALUE.
_NOT_FOUND = {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "INVALID_PARAMETER_VALUE"}
# MLflow waits up to 120 s a request, retries 7 times with growing pauses, and sleeps as long as a Retry-After says.
_WAITS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0.1",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
}


def bound_mlflow_waits(environ: MutableMapping[str, str]) -> None:
    """Bound how long MLflow's HTTP client waits and retries, where the operator has not said.

    Called once when a server process starts, with ``os.environ``; MLflow reads the variables at each request. A refused
    connection is then an error within a second, a silent server after 20 seconds (two tries of 10).

    Parameters
    ----------
    environ : mutable mapping of str to str
        Changed in place; a variable that is there already is left alone.
    """
    for name, value in _WAITS.items():
        environ.setdefault(name, value)


def allow_file_store(environ: MutableMapping[str, str], tracking_uri: str | None) -> None:
    """Let MLflow 3.7 and later use the file store that the operator configured, such as ``file:./mlruns``.

    MLflow's file registry, whichever client asks it, reads a version's logged model from the store that
    ``MLFLOW_TRACKING_URI`` names, and makes an empty ``mlflow.db`` in the working directory where it names none. So
    that variable is set to the file store too.

    Parameters
    ----------
    environ : mutable mapping of str to str
        Changed in place: ``MLFLOW_ALLOW_FILE_STORE=true``, unless the variable is there already, and
        ``MLFLOW_TRACKING_URI``.
    tracking_uri : str, optional
        Nothing is changed unless this is a ``file:`` URI or a plain path.
    """
    if tracking_uri and urlsplit(tracking_uri).scheme in ("", "file") and not tracking_uri.startswith("databricks"):
        environ.setdefault(ALLOW_FILE_STORE, "true")
        environ["MLFLOW_TRACKING_URI"] = tracking_uri


class Store:
    """One tracking store and model registry, asked from any thread.

    Both addresses are handed to the client here: MLflow's module-level functions go by a process-wide setting, which
    two of these in one process would fight over.

    Parameters
    ----------
    tracking_uri : str, optional
        Default: what MLflow itself would take (``MLFLOW_TRACKING_URI``).
    registry_uri : str, optional
        Default: the tracking store.
    """

    def __init__(self, tracking_uri: str | None = None, registry_uri: str | None = None) -> None:
        self.tracking_uri = tracking_uri
        self.registry_uri = registry_uri
        self._client: MlflowClient | None = None
        self._lock = threading.Lock()
        #: whether a ping has found the SQLite file: from then on none is made in its place
        self._was_there = False

    @contextmanager
    def asking(self, missing: str) -> Iterator[MlflowClient]:
        """Hand out the client for one or more calls, and turn what they raise into this project's errors.

        Parameters
        ----------
        missing : str
            The sentence to say where MLflow answers that there is no such thing.

        Raises
        ------
        ModelNotFoundError
            MLflow answered that there is no such thing.
        StoreUnavailableError
            It did not answer, or with an error of its own.
        """
        import requests
        import sqlalchemy.exc
        from mlflow.exceptions import MlflowException

        try:
            client = self._connected()
            yield client
        except MlflowException as exc:
            if _answered(exc, self.tracking_uri, self.registry_uri) and exc.error_code in _NOT_FOUND:
                raise ModelNotFoundError(missing) from exc
            raise StoreUnavailableError(_UNAVAILABLE) from exc
        except (requests.RequestException, sqlalchemy.exc.SQLAlchemyError, sqlite3.Error, OSError) as exc:
            raise StoreUnavailableError(_UNAVAILABLE) from exc

    def ping(self) -> None:
        """Ask MLflow the cheapest question there is.

        An SQLite file is asked without MLflow, whose way to it takes 18 MB of a worker that has no other use for it.

        Raises
        ------
        StoreUnavailableError
            It did not answer.
        """
        from mlflow import get_tracking_uri

        uri = self.tracking_uri or get_tracking_uri()
        if uri.startswith("sqlite:") and self._client is None:
            try:
                self._was_there = _asked_sqlite(uri, "experiments") or self._was_there
            except (sqlite3.Error, OSError) as exc:
                raise StoreUnavailableError(_UNAVAILABLE) from exc
            if self._was_there:
                return _check_sqlite(uri, must_exist=True)
        with self.asking(_UNAVAILABLE) as client:
            client.search_experiments(max_results=1)
        return None

    def _connected(self) -> MlflowClient:
        for uri in (self.tracking_uri, self.registry_uri):
            if uri and uri.startswith("sqlite:"):
                _check_sqlite(uri, must_exist=self._client is not None)
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _connect(self) -> MlflowClient:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        try:
            return MlflowClient(tracking_uri=self.tracking_uri, registry_uri=self.registry_uri)
        except MlflowException as exc:  # here INVALID_PARAMETER_VALUE says something of the store, not of a model
            raise StoreUnavailableError(_FILE_STORE if ALLOW_FILE_STORE in str(exc) else _UNAVAILABLE) from exc


def _answered(exc: Any, *uris: str | None) -> bool:
    # over HTTP only a RestException carries MLflow's own answer; a proxy's 404 page is a plain MlflowException
    from mlflow.exceptions import RestException

    remote = any(uri and urlsplit(uri).scheme in ("http", "https") for uri in uris)
    return not remote or isinstance(exc, RestException)


def _check_sqlite(uri: str, *, must_exist: bool) -> None:
    # MLflow tries ten times, with pauses that add up to 100 s, to open a file that is no database, and waits 20 s for a
    # locked one; neither can be configured
    if not _asked_sqlite(uri, "sqlite_master") and must_exist:
        raise StoreUnavailableError(_UNAVAILABLE)


def _asked_sqlite(uri: str, table: str) -> bool:
    """Whether a table of an SQLite store could be read; False where there is no file yet, of which MLflow makes one."""
    from sqlalchemy.engine import make_url

    database = make_url(uri).database
    if not database or database == ":memory:":
        return False
    path = Path(database).absolute()
    if not path.exists():
        return False
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=SQLITE_WAIT)) as connection:
        connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()
    return True
