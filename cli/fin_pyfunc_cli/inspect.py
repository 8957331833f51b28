"""`fin-pyfunc inspect`: what is known of a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from fin_pyfunc_cli import options, text

if TYPE_CHECKING:
    from fin_pyfunc.inspection import Backend, Report
    from fin_pyfunc.model.form import Form


@click.command()
@click.argument("uri")
@click.option("--measure", is_flag=True, help="Time every backend on this machine: which computes how many rows.")
@options.backend
@options.as_json
@options.tracking_uri
def inspect(uri: str, measure: bool, backend: str | None, as_json: bool, tracking_uri: str | None) -> None:
    """Show what is known of the model at URI, and check its files.

    URI is whatever MLflow takes, a local folder, or an estimator file. No code of the model is run.

    Example: fin-pyfunc inspect models:/eurusd_rf@champion --measure
    """
    options.use_store(tracking_uri, must_exist=uri.startswith(("models:/", "runs:/")))
    import mlflow
    import msgspec

    from fin_pyfunc.inspection import inspect as look_at

    report = look_at(uri, mlflow.get_tracking_uri(), measure=measure, backend=backend)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
    else:
        click.echo("\n".join(_sections(report)))


def _sections(report: Report) -> Iterator[str]:
    yield text.table(_facts(report))
    if report.features is not None:
        yield f"\nfeatures ({len(report.features)})"
        rows = [(f.name, f.kind, "null allowed" if f.nullable else "", _known(f.categories)) for f in report.features]
        yield text.table(rows, "  ")
    yield from _compiled(report.backend)
    yield "\nfiles"
    checked = {True: "digest ok", False: "digest not recorded"}
    yield text.table(((f.name, f"{f.size:,} bytes", f.sha256, checked[f.checked]) for f in report.files), "  ")
    if report.libraries:
        yield "\nlibraries"
        versions = [(lib.name, lib.logged, _here(lib.logged, lib.installed)) for lib in report.libraries]
        yield text.table(versions, "  ")


def _compiled(backend: Backend) -> Iterator[str]:
    """Compiled forms, what became of the others, and the plan."""
    if backend.forms or backend.dropped:
        yield f"\ncompiled (within {backend.tolerance:g} of the estimator's probabilities)"
        yield text.table(
            [*((form.backend, _exactness(form)) for form in backend.forms), *backend.dropped.items()], "  "
        )
    if backend.seconds is not None:
        yield f"\nspeed\n  {_speed(backend, backend.seconds)}"
    if backend.plan is not None and backend.times is not None:
        yield "\nplan, as measured here"
        yield text.table(((f"from {step.from_rows:,} rows", step.backend) for step in backend.plan), "  ")
        sizes = sorted({n for times in backend.times.values() for n in times})
        head = ("rows", *(f"{n:,}" for n in sizes))
        rows = ((name, *(_milliseconds(times.get(n)) for n in sizes)) for name, times in backend.times.items())
        yield text.table([head, *rows], "  ")


def _speed(backend: Backend, seconds: float) -> str:
    """What a row took each way when the model was logged, or what keeps it from being compiled."""
    from fin_pyfunc.compiling.advice import slow_line, spoken

    if backend.advice is not None:
        return slow_line(backend.advice, seconds)
    ways = [f"{spoken(form.seconds[1])} by {form.backend}" for form in backend.forms if 1 in form.seconds]
    return f"a row took {', '.join([*ways, f'{spoken(seconds)} by the estimator itself'])} when it was logged"


def _exactness(form: Form) -> str:
    if not form.band:
        return "equal to the estimator to the last bit"
    return f"differs by up to {form.error:.0e}; what hangs on less than {form.band:.0e} is asked of the estimator"


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.3g} ms"


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    thresholds, backend = report.thresholds, report.backend
    yield "model", report.model_id
    yield "run", report.run_id or "-"
    yield (
        "logged by",
        {"fin_pyfunc": "fin_pyfunc", "mlflow": "MLflow alone", "file": "nobody: a bare file"}[report.source],
    )
    yield "estimator", report.estimator or "not known"
    yield "created", report.created or "not known"
    if report.serialization:
        yield "serialization", report.serialization
    yield "classes", "not known" if report.classes is None else ", ".join(map(str, report.classes))
    if report.has_proba is not None:
        yield "probabilities", "yes" if report.has_proba else "no"
    if thresholds is not None:
        yield "confidence", f"high from {thresholds.high:g}, medium from {thresholds.medium:g}, else low"
    yield "identifiers", ", ".join(report.identifiers) or "-"
    if report.extra is not None:
        yield "extra columns", {"ignore": "ignored", "forbid": "refused"}.get(report.extra, report.extra)
    if report.features is None:
        yield "features", "not known"
    yield "backends here", ", ".join(backend.available) or f"not known: {backend.reason}"
    if backend.chosen:
        yield "chosen here", backend.chosen + (f" (asked for: {backend.default})" if backend.default else "")
    yield "GPU", backend.gpu


def _known(categories: list[str | int | float | bool] | None) -> str:
    if categories is None:
        return ""
    more = f" and {len(categories) - 5} more" if len(categories) > 5 else ""
    return "one of " + ", ".join(map(str, categories[:5])) + more


def _here(logged: str, installed: str | None) -> str:
    return "same here" if installed == logged else f"{installed} here" if installed else "not installed here"
