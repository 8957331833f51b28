"""Asking MLflow: one client, bounded waits, and no exception of MLflow's or its libraries' outwards."""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fin_pyfunc.model.errors import FinPyfuncError, ModelForbiddenError, ModelNotFoundError, StoreUnavailableError
from fin_pyfunc.model.store_database import (
    OLDER,
    UNAVAILABLE,
    check_database,
    is_database,
    missing_file,
    sqlite_file,
    touch_sqlite,
)
from fin_pyfunc.serving.warming import warm_database

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

logger = logging.getLogger("fin_pyfunc.server")

#: What MLflow calls the variable that lets MLflow 3.7 and later use a file store.
ALLOW_FILE_STORE = "MLFLOW_ALLOW_FILE_STORE"

_FILE_STORE = (
    f"MLflow 3.7 and later refuse a file store unless {ALLOW_FILE_STORE} is set to true; set it, or use a database."
)
_CREDENTIALS = (
    "MLflow does not take this server's credentials (401): set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, "
    "or MLFLOW_TRACKING_TOKEN, to those of a user of its, and start this again."
)
_PERMISSION = (
    "MLflow does not let the user of this server's credentials read this (403): grant it READ in MLflow, or set "
    "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, to another's."
)
_HOST = (
    "MLflow refuses the host name in its tracking URI (403): name it in MLFLOW_SERVER_ALLOWED_HOSTS where MLflow's "
    "server is started."
)
#: What the client's errors say of a 401, for MLflow and for Databricks.
_REFUSED = {"UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"}
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


def upgrade_database(uri: str) -> bool:
    """Upgrade the database of an older MLflow, where the operator has allowed it; with MLflow's own command.

    Parameters
    ----------
    uri : str
        Tracking or registry URI; a store that is not of an older MLflow is left alone.

    Returns
    -------
    bool
        Whether it was upgraded.

    Raises
    ------
    StoreUnavailableError
        MLflow could not upgrade it.
    """
    try:
        check_database(uri)
    except StoreUnavailableError as e:
        if str(e) != OLDER:
            return False  # the store's to report, when it is asked
    else:
        return False
    # in a process of its own, since it configures logging; by its input, since a URI may hold a password
    program = "import sys; from mlflow.db import commands; commands(['upgrade', sys.stdin.read()])"
    done = subprocess.run([sys.executable, "-c", program], input=uri, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        logger.error("upgrading the MLflow store failed:\n%s", done.stderr)
        raise StoreUnavailableError("MLflow could not upgrade its store: the log has MLflow's own message.")
    return True


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
        #: whether a ping has found the SQLite file to be of this version of MLflow
        self._is_checked = False

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
            MLflow answered that there is no such thing, or is too old to have it.
        ModelForbiddenError
            It answered 403: the user of this server's credentials may not read it.
        StoreUnavailableError
            It did not answer, or with an error of its own, or 401; or it is a database that is not there, or of another
            version of MLflow, which is never made or migrated by reading.
        """
        import requests
        import sqlalchemy.exc
        from mlflow.exceptions import MlflowException

        client = None
        try:
            client = self._connected()
            yield client
        except MlflowException as exc:
            raise self._in_our_words(exc, client, missing) from exc
        except (requests.RequestException, sqlalchemy.exc.SQLAlchemyError, sqlite3.Error, OSError) as exc:
            raise StoreUnavailableError(UNAVAILABLE) from exc

    def ping(self) -> None:
        """Ask MLflow the cheapest question there is.

        An SQLite file is asked without MLflow, whose way to it takes 18 MB of a worker that has no other use for it.

        Raises
        ------
        StoreUnavailableError
            It did not answer.
        ModelForbiddenError
            It answered 403.
        """
        uri = self._uris()[0]
        if sqlite_file(uri) is not None and self._client is None:
            if not self._is_checked:
                _check(uri)
                self._is_checked = True
            return touch_sqlite(uri)
        with self.asking(UNAVAILABLE) as client:
            client.search_experiments(max_results=1)
        return None

    def _connected(self) -> MlflowClient:
        for uri in self._uris():
            if self._client is None:
                _check(uri)
            else:
                touch_sqlite(uri)
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
            raise StoreUnavailableError(_FILE_STORE if ALLOW_FILE_STORE in str(exc) else UNAVAILABLE) from exc

    def _in_our_words(self, error: MlflowException, client: MlflowClient | None, missing: str) -> FinPyfuncError:
        """Put an error of MLflow's client into one of this project's."""
        code = error.error_code
        if code in _REFUSED:
            return StoreUnavailableError(_CREDENTIALS)
        if code == "PERMISSION_DENIED":
            is_host = "Host header" in str(error)
            return StoreUnavailableError(_HOST) if is_host else ModelForbiddenError(_PERMISSION)
        is_remote = any(urlsplit(uri).scheme in ("http", "https") for uri in self._uris())
        has_answered = not is_remote or _is_mlflows(error)
        if has_answered and code in _NOT_FOUND:
            return ModelNotFoundError(missing)
        if client is not None and lacks_route(error) and _is_mlflow(client):
            return ModelNotFoundError(missing)  # an older server, which has no such thing
        return StoreUnavailableError(UNAVAILABLE)

    def _uris(self) -> list[str]:
        """Where the tracking store and the registry are, by MLflow's own rules where nothing is set; each once."""
        from mlflow import get_tracking_uri

        tracking_uri = self.tracking_uri or get_tracking_uri()
        registry_uri = self.registry_uri or os.environ.get("MLFLOW_REGISTRY_URI") or tracking_uri
        return list(dict.fromkeys((tracking_uri, registry_uri)))


def _check(uri: str) -> None:
    """As `check_database`; a database that was made since the server started has its libraries imported first."""
    if is_database(uri) and missing_file(uri) is None:
        warm_database(uri)
    check_database(uri)


def lacks_route(error: MlflowException) -> bool:
    """Whether an HTTP server answered a plain 404: an older MLflow, which lacks what was asked for, or no MLflow."""
    return error.error_code == "ENDPOINT_NOT_FOUND" and not _is_mlflows(error)


def _is_mlflows(error: MlflowException) -> bool:
    """Whether MLflow itself answered so over HTTP; a proxy's 404 page is a plain MlflowException."""
    from mlflow.exceptions import RestException

    return isinstance(error, RestException)


def _is_mlflow(client: MlflowClient) -> bool:
    """Whether what answers is an MLflow server, of whatever version."""
    import requests
    from mlflow.exceptions import MlflowException

    try:
        client.search_experiments(max_results=1)
    except (MlflowException, requests.RequestException):
        return False
    return True
