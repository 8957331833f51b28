"""`fin-pyfunc models`: what ``GET /models`` answers."""

from __future__ import annotations

import click

from fin_pyfunc_cli import options, text


@click.command()
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="At most this many.")
@options.as_json
@options.tracking_uri
@options.experiment_name
def models(limit: int, as_json: bool, tracking_uri: str | None, experiment_name: str | None) -> None:
    """List the runs of an experiment that have a logged model, newest first.

    Example: fin-pyfunc models --mlflow-experiment-name financial_ml --limit 10
    """
    options.use_store(tracking_uri, must_exist=True)
    import mlflow
    import msgspec

    from fin_pyfunc.serving.catalog import Catalog

    found = Catalog(mlflow.get_tracking_uri(), options.experiment(experiment_name)).list_models(limit=limit)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
        return
    if not found.models:
        click.echo("The experiment has no models yet; log one with 'fin-pyfunc log' or fin_pyfunc.log_model.", err=True)
        return
    rows = [(m.model_uri, text.pairs(m.metrics), text.pairs(m.params), text.pairs(m.tags)) for m in found.models]
    click.echo(text.table([("MODEL", "METRICS", "PARAMS", "TAGS"), *rows]))
