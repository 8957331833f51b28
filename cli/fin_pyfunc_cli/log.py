"""`fin-pyfunc log`: an estimator file and a sample file become a logged model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fin_pyfunc.model.errors import NotLoggableError
from fin_pyfunc_cli import options

#: What `fin_pyfunc.log_model` calls an option, and what it is called here.
_HERE = {
    "serialization='cloudpickle'": "--serialization cloudpickle",
    "drop it from X, or declare it under identifiers": "leave it out with --drop, or declare it with --identifier",
    "declare it under identifiers": "declare it with --identifier",
    "pass its file or folder in code_paths=[…], or define the class in the notebook itself": (
        "name its file or folder with --code-path"
    ),
    "in code_paths=": "with --code-path ",
    "what it predicts, with classes=[…]": "what it predicts with --class, once a label, in column order",
    "agrees with y": "agrees with the column of --label",
    "leave y out": "leave the column out with --drop",
    "y holds a label": "the column of --label holds a label",
    "with classes=[…], in column order": "with --class, once a label, in column order",
    "pass {'high': 0.8, 'medium': 0.6}, say": "set --confidence-high and --confidence-medium, from 0 to 1",
}


@click.command()
@click.argument("estimator_file", type=click.Path(path_type=Path))
@click.argument("sample_file", type=click.Path(path_type=Path))
@click.option("--name", default="model", show_default=True, help="Name of the logged model.")
@click.option("--register", metavar="NAME", help="Registered model to make a version of.")
@click.option("--alias", help="Alias that then means this version; needs --register.")
@click.option(
    "--identifier", "identifiers", metavar="COL", multiple=True, help="Column to accept and never score. Repeatable."
)
@click.option("--drop", metavar="COL", multiple=True, help="Column of the sample to leave out. Repeatable.")
@click.option(
    "--label",
    metavar="COL",
    help="Column of the sample with the labels: left out too, and compared with the estimator's answers.",
)
@click.option(
    "--text",
    metavar="COL",
    multiple=True,
    help="Column of a CSV sample that is text even where it looks like a number. Repeatable.",
)
@click.option(
    "--confidence-high", type=click.FloatRange(0, 1), help="From which probability an answer is 'high'. Default: 0.8."
)
@click.option("--confidence-medium", type=click.FloatRange(0, 1), help="From which it is 'medium'. Default: 0.6.")
@click.option(
    "--extra",
    type=click.Choice(["ignore", "forbid"]),
    default="ignore",
    show_default=True,
    help="What becomes of unknown columns in a request.",
)
@click.option(
    "--backend", metavar="NAME", default="auto", show_default=True, help="auto, cpu, gpu or a backend's name."
)
@click.option(
    "--serialization",
    type=click.Choice(["skops", "cloudpickle"]),
    default="skops",
    show_default=True,
    help="skops runs nothing when it is read; cloudpickle takes any object.",
)
@click.option(
    "--class",
    "classes",
    metavar="LABEL",
    multiple=True,
    help="Label of a predict_proba column, in order; integers if all are. Repeatable.",
)
@click.option(
    "--code-path",
    "code_paths",
    metavar="PATH",
    multiple=True,
    help="File or folder with the code of the estimator's own classes, to go with the model. Repeatable.",
)
@options.tracking_uri
@options.experiment_name
def log(
    estimator_file: Path,
    sample_file: Path,
    tracking_uri: str | None,
    experiment_name: str | None,
    classes: tuple[str, ...],
    confidence_high: float | None,
    confidence_medium: float | None,
    **given: Any,
) -> None:
    """Log the fitted classifier in ESTIMATOR_FILE to MLflow, and print the URIs of the model.

    ESTIMATOR_FILE ends in .skops, .joblib or .pkl. Reading a .joblib or .pkl file runs the code in it: log only what
    you trust. SAMPLE_FILE holds training rows, as .csv or .parquet: its columns are the model's features, and a feature
    may be null in a request only where it is null there.

    Example: fin-pyfunc log forest.skops train.csv --label label --identifier bar_id --register eurusd_rf
    """
    if given["alias"] and not given["register"]:
        raise click.UsageError("--alias needs --register.", click.get_current_context())
    options.use_store(tracking_uri)
    options.ask_store()  # before reading and checking, which may take a while
    from fin_pyfunc.authoring.files import log_file

    confidence = {"high": confidence_high, "medium": confidence_medium}
    if classes:
        given["classes"] = [int(label) for label in classes] if all(map(_is_integer, classes)) else list(classes)
    try:
        logged = log_file(
            estimator_file,
            sample_file,
            experiment_name=options.experiment(experiment_name),
            confidence={level: value for level, value in confidence.items() if value is not None},
            **given,
        )
    except NotLoggableError as e:
        raise NotLoggableError(_in_options(str(e))) from e
    click.echo(logged.model_uri)
    click.echo(logged.run_uri)
    if logged.version is not None:
        click.echo(f"models:/{given['register']}/{logged.version}")
    if given["alias"]:
        click.echo(f"models:/{given['register']}@{given['alias']}")


def _is_integer(label: str) -> bool:
    return label.removeprefix("-").isascii() and label.removeprefix("-").isdigit()


def _in_options(message: str) -> str:
    for keyword, option in _HERE.items():
        message = message.replace(keyword, option)
    return message
