"""From an estimator file and a sample file to a logged model: what ``fin-pyfunc log`` does."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Unpack, cast

import pandas as pd

from fin_pyfunc.authoring.log import LogOptions, ModelOptions, log_model
from fin_pyfunc.model import estimators
from fin_pyfunc.model.errors import ArtifactError, NotLoggableError

#: Suffix to what reads it. joblib reads pickles too, and many a .pkl was written by joblib.
KINDS: dict[str, estimators.FileKind] = {".skops": "skops", ".joblib": "joblib", ".pkl": "joblib"}
#: The experiment where nothing names one (the guide's).
DEFAULT_EXPERIMENT = "financial_ml"
#: Where a local store keeps artifacts: beside its database, in the folder one works in.
EMBEDDED_ARTIFACTS = "mlartifacts"


class Logged(NamedTuple):
    """What was logged.

    Parameters
    ----------
    model_uri : str
        The model itself, ``models:/m-<id>``.
    run_uri : str
        ``runs:/<run_id>/<name>``.
    version : str or None
        Registered version.
    """

    model_uri: str
    run_uri: str
    version: str | None


def log_file(
    estimator_file: Path,
    sample_file: Path,
    name: str = "model",
    *,
    experiment_name: str,
    register: str | None = None,
    alias: str | None = None,
    drop: Sequence[str] = (),
    label: str | None = None,
    text: Sequence[str] = (),
    **options: Unpack[ModelOptions],
) -> Logged:
    """Log the estimator in a file to MLflow's current store, in a run of its own.

    Parameters
    ----------
    estimator_file : Path
        ``.skops``, or ``.joblib`` and ``.pkl``: reading one of those runs the code in it.
    sample_file : Path
        Training rows as ``.csv`` or ``.parquet``.
    name : str, default "model"
        Name of the logged model.
    experiment_name : str
        Made where it is missing; a SQLite store then keeps its artifacts in ``./mlartifacts``.
    register, alias : str, optional
        Registered model to make a version of, and the alias that then means it.
    drop : sequence of str, default ()
        Columns of the sample to leave out, such as the label.
    label : str, optional
        Column of the sample with the labels: left out too, and compared with the estimator's answers.
    text : sequence of str, default ()
        Columns of a CSV sample that hold text however it looks: "007" stays "007".
    **options
        As in `fin_pyfunc.log_model`.

    Raises
    ------
    NotLoggableError
        A file cannot be read, or the model cannot be served; nothing has been logged then.
    """
    import mlflow
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    if alias and not register:
        raise NotLoggableError("an alias belongs to a registered model: name that too.")
    _check_names(register, alias)
    sample = read_sample(sample_file, drop, text)
    if label is not None:
        _refuse_unknown(sample_file, (label,), list(sample.columns))
        options["y"] = sample.pop(label)
    estimator = read_estimator(estimator_file, options.get("code_paths") or ())
    client = MlflowClient()
    run = mlflow.start_run(experiment_id=experiment_id(client, experiment_name))
    try:
        registered = {"registered_model_name": register} if register else {}
        info = log_model(estimator, sample, name, **cast("LogOptions", {**options, **registered}))
    except BaseException as e:
        mlflow.end_run("FAILED")
        if isinstance(e, NotLoggableError):  # nothing is in the run
            client.delete_run(run.info.run_id)
        raise
    mlflow.end_run()
    version = info.registered_model_version
    if alias:
        try:
            client.set_registered_model_alias(register, alias, str(version))
        except MlflowException as e:
            raise NotLoggableError(
                f"{register!r} has a new version {version}, but the alias could not be set: {e.message}"
            ) from e
    return Logged(info.model_uri, f"runs:/{run.info.run_id}/{name}", None if version is None else str(version))


def read_estimator(path: Path, code_paths: Sequence[str] = ()) -> Any:
    """Read an estimator file; all but skops runs the code in it.

    Parameters
    ----------
    path : Path
    code_paths : sequence of str, default ()
        Files and folders with modules that the estimator's classes come from; made importable.

    Raises
    ------
    NotLoggableError
    """
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise NotLoggableError(f"{path.name} is no estimator file: its name must end in .skops, .joblib or .pkl.")
    if not path.is_file():
        raise NotLoggableError(f"there is no file {path}: name the file that holds the fitted estimator.")
    sys.path[:0] = [str(Path(code).resolve().parent) for code in code_paths]
    try:
        return estimators.load_file(path, kind)
    except ArtifactError as e:
        cause = e.__cause__
        if isinstance(cause, ModuleNotFoundError):
            raise NotLoggableError(
                f"{path.name} needs module {cause.name!r}, which is not installed here: install its package, or name "
                f"the file or folder with its code in code_paths=['{cause.name}.py']."
            ) from e
        if isinstance(cause, AttributeError):  # pickle's word for a class of __main__, such as a notebook's
            raise NotLoggableError(
                f"{path.name} needs a class that its pickle does not hold ({cause}): write it with cloudpickle, or log "
                "the model where the class is, with fin_pyfunc.log_model."
            ) from e
        raise NotLoggableError(f"{path.name}: {e}") from e


def read_sample(path: Path, drop: Sequence[str] = (), text: Sequence[str] = ()) -> pd.DataFrame:
    """Read training rows.

    Raises
    ------
    NotLoggableError
    """
    try:
        if path.suffix.lower() == ".csv":
            header = pd.read_csv(path, nrows=0).columns
            _refuse_unknown(path, (*drop, *text), list(header))
            dtypes: dict[Any, Any] = dict.fromkeys(text, "str")
            usual = ["", "NaN", "nan", "NA", "N/A", "null", "NULL", "None"]
            frame = pd.read_csv(
                path,
                dtype=dtypes,
                keep_default_na=False,  # in a column of text only an empty cell is a missing value
                na_values={str(name): [""] if name in text else usual for name in header},
                low_memory=False,
            )
        elif path.suffix.lower() in (".parquet", ".pq"):
            frame = pd.read_parquet(path)
            if frame.index.name is not None:
                frame = frame.reset_index()
            _refuse_unknown(path, drop, list(frame.columns))
        else:
            raise NotLoggableError(f"{path.name} is neither CSV nor Parquet: its name must end in .csv or .parquet.")
    except OSError as e:
        raise NotLoggableError(f"{path} cannot be read ({(e.strerror or str(e)).lower()}).") from e
    except ValueError as e:  # the parsers' errors are all such
        raise NotLoggableError(f"{path.name} cannot be read: {' '.join(str(e).split())}") from e
    return frame.drop(columns=list(drop))


def _refuse_unknown(path: Path, named: Sequence[str], columns: Sequence[Any]) -> None:
    if unknown := [name for name in named if name not in columns]:
        raise NotLoggableError(
            f"{path.name} has no column {unknown[0]!r}; it has {', '.join(map(repr, columns[:5]))}"
            f"{f' and {len(columns) - 5} more' if len(columns) > 5 else ''}."
        )


def _check_names(register: str | None, alias: str | None) -> None:
    """Ask MLflow whether it takes the names, before a model is logged under them."""
    from mlflow.exceptions import MlflowException
    from mlflow.utils import validation

    try:
        if register is not None:
            validation._validate_model_name(register)
        if alias is not None:
            validation._validate_model_alias_name(alias)
            validation._validate_model_alias_name_reserved(alias)
    except MlflowException as e:
        raise NotLoggableError(str(e.message)) from e


def experiment_id(client: Any, name: str) -> str:
    """The id of an experiment of this name, made where it is missing."""
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    is_local = client.tracking_uri.startswith("sqlite:")
    location = Path(EMBEDDED_ARTIFACTS).absolute().as_uri() if is_local else None
    return str(client.create_experiment(name, artifact_location=location))
