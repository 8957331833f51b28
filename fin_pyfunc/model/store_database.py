"""Look at the database of an MLflow store before MLflow opens it.

Whoever opens a database with MLflow, if only to read, creates an SQLite file that is not there, fills an empty database
with tables, and migrates one of an older MLflow in place, after which that older MLflow refuses it.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import url2pathname

from fin_pyfunc.model.errors import StoreUnavailableError

#: Seconds that a locked SQLite file is waited for.
SQLITE_WAIT = 2.0
#: Seconds that a database server may take to accept a connection; the default of its drivers is minutes.
CONNECT_SECONDS = 10
#: The name of MLflow's setting that has a server upgrade an older database, for messages.
UPGRADE_SETTING = "deployment.api.mlflow.upgrade_store"

UNAVAILABLE = (
    "MLflow does not answer, and is needed for this: check that it runs and that its tracking URI is right, "
    "or try again later."
)
MISSING = (
    "There is no MLflow store at the tracking URI, and reading does not make one: check MLFLOW_TRACKING_URI, or log a "
    "model first."
)
OLDER = (
    "The MLflow store is of an older MLflow, and opening it would upgrade it for good, after which that MLflow refuses "
    f"it: back it up and run 'mlflow db upgrade <tracking URI>', or set {UPGRADE_SETTING}."
)
NEWER = "The MLflow store is of a newer MLflow than the one installed here: install that version of MLflow."
#: Where MLflow keeps the revision of its tables, and a table that it has had from the beginning.
_REVISION_TABLE, _FIRST_TABLE = "alembic_version", "experiments"
_REVISION = f"SELECT version_num FROM {_REVISION_TABLE}"
_DATABASES = re.compile(r"(sqlite|postgres(ql)?|mysql|mssql)[+:]")
#: Drivers that take the seconds to wait for a connection under this name.
_TIMED = ("postgresql", "mysql")


class Revisions(NamedTuple):
    """Revisions of MLflow's tables: those that it knows, and the last, which it works with."""

    known: frozenset[str]
    current: frozenset[str]


class _Tables(NamedTuple):
    names: set[str]
    revision: str | None


def is_database(uri: str) -> bool:
    """Whether a tracking or registry URI names a database that MLflow opens without a server of its own."""
    return _DATABASES.match(uri) is not None


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite store; None for other stores, and for a database in memory."""
    if not uri.startswith("sqlite"):
        return None
    from sqlalchemy.engine import make_url

    database = make_url(uri).database
    database = (database or ":memory:").removeprefix("file:")  # of an SQLite URI in SQLAlchemy's URL
    return None if database == ":memory:" else Path(database).absolute()


def missing_file(uri: str) -> Path | None:
    """The file or folder that a store would be made in by opening it; None where it is there, or is elsewhere."""
    path = _folder(uri) or sqlite_file(uri)
    return None if path is None or path.exists() else path


def require_store(uri: str) -> None:
    """Refuse a store that is not there, for a person who may be told in which folder it was looked for.

    Raises
    ------
    StoreUnavailableError
    """
    if (path := missing_file(uri)) is not None:
        raise StoreUnavailableError(
            f"There is no MLflow store {path.name} in {path.parent}: work in the folder that has it, or name another "
            "with MLFLOW_TRACKING_URI (--mlflow-tracking-uri of a command)."
        )


def check_database(uri: str) -> None:
    """Refuse a store that MLflow would make or migrate by opening it; nothing is written.

    Parameters
    ----------
    uri : str
        Tracking or registry URI of MLflow's; one that is no database is checked for its folder alone, or not at all.

    Raises
    ------
    StoreUnavailableError
        The store is not there, does not answer, or is of another version of MLflow.
    """
    if missing_file(uri) is not None:
        raise StoreUnavailableError(MISSING)
    if not is_database(uri) or (uri.startswith("sqlite") and sqlite_file(uri) is None):
        return
    tables = _sqlite_tables(uri) if uri.startswith("sqlite") else _server_tables(uri)
    if _FIRST_TABLE not in tables.names:
        raise StoreUnavailableError(MISSING)
    revisions = read_revisions()
    if tables.revision is not None and tables.revision not in revisions.known:
        raise StoreUnavailableError(NEWER)
    if tables.revision not in revisions.current:
        raise StoreUnavailableError(OLDER)


def touch_sqlite(uri: str) -> None:
    """Read one row of an SQLite store, without MLflow.

    MLflow tries ten times, with pauses that add up to 100 s, to open a file that is no database, and waits 20 s for a
    locked one; neither can be configured.

    Raises
    ------
    StoreUnavailableError
    """
    path = sqlite_file(uri)
    if path is None:
        return
    if not path.exists():
        raise StoreUnavailableError(MISSING)
    try:
        with closing(_open_sqlite(path)) as connection:
            connection.execute(f"SELECT 1 FROM {_FIRST_TABLE} LIMIT 1").fetchone()
    except (sqlite3.Error, OSError) as e:
        raise StoreUnavailableError(UNAVAILABLE) from e


@cache
def read_revisions() -> Revisions:
    """Read which revisions of its tables the installed MLflow knows, and which it works with; once a process."""
    import mlflow
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    return Revisions(frozenset(script.revision for script in scripts.walk_revisions()), frozenset(scripts.get_heads()))


def _folder(uri: str) -> Path | None:
    """The folder of a store in files."""
    if uri.startswith("file:"):
        return Path(url2pathname(urlsplit(uri).path)).absolute()
    is_path = not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", uri) and not uri.startswith(("databricks", "uc"))
    return Path(uri).absolute() if is_path and uri else None


def _open_sqlite(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=SQLITE_WAIT)  # rw: it makes no file


def _sqlite_tables(uri: str) -> _Tables:
    path = sqlite_file(uri)
    assert path is not None  # noqa: S101 - for the type checker
    try:
        with closing(_open_sqlite(path)) as connection:
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            rows = connection.execute(_REVISION).fetchall() if _REVISION_TABLE in names else []
    except (sqlite3.Error, OSError) as e:
        raise StoreUnavailableError(UNAVAILABLE) from e
    return _Tables(names, rows[0][0] if rows else None)


def _server_tables(uri: str) -> _Tables:
    import sqlalchemy
    from sqlalchemy.pool import NullPool

    try:
        url = sqlalchemy.make_url(uri)
        timed = {"connect_timeout": CONNECT_SECONDS} if url.get_backend_name() in _TIMED else {}
        engine = sqlalchemy.create_engine(url, poolclass=NullPool, connect_args=timed)
        with engine.connect() as connection:
            names = set(sqlalchemy.inspect(connection).get_table_names())
            rows = connection.execute(sqlalchemy.text(_REVISION)).fetchall() if _REVISION_TABLE in names else []
    except ImportError as e:
        raise StoreUnavailableError(
            f"The database of the MLflow store needs the Python package {e.name!r}, which is not installed here: for "
            "PostgreSQL, pip install 'fin_pyfunc[postgres]'."
        ) from e
    except (sqlalchemy.exc.SQLAlchemyError, OSError) as e:
        raise StoreUnavailableError(UNAVAILABLE) from e
    return _Tables(names, rows[0][0] if rows else None)
