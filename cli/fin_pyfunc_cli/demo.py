"""`fin-pyfunc demo`: a model to try things with."""

from __future__ import annotations

import sys

import click

from fin_pyfunc_cli import options


@click.command()
@click.option("--if-missing", is_flag=True, help="Do nothing where the store has the model already.")
@click.option("--name", default="eurusd_rf", show_default=True, help="Registered model to make a version of.")
@click.option("--alias", default="champion", show_default=True, help="Alias that then means this version.")
@click.option("--trees", type=click.IntRange(1, 10_000), default=200, show_default=True, help="Trees of the forest.")
@options.tracking_uri
@options.experiment_name
def demo(
    if_missing: bool, name: str, alias: str, trees: int, tracking_uri: str | None, experiment_name: str | None
) -> None:
    """Train a random forest on generated FX bars, log it and register it.

    Example: fin-pyfunc demo && fin-pyfunc serve -m models:/eurusd_rf@champion
    """
    options.use_store(tracking_uri)
    options.ask_store()
    from fin_pyfunc.demo.register import log_demo, version_of

    if if_missing and (version := version_of(name, alias)) is not None:
        click.echo(f"models:/{name}@{alias} is there already (version {version})")
        return
    experiment = options.experiment(experiment_name)
    bar = click.progressbar(length=trees, label="training the demo forest", file=sys.stderr)

    def next_step(step: str) -> None:
        bar.render_finish()
        click.echo(step, err=True)

    bar.render_progress()
    logged = log_demo(name, alias, experiment, trees, on_trees=bar.update, on_step=next_step)
    click.echo(
        f"registered models:/{name}@{alias}, version {logged.version}: accuracy {logged.accuracy:.2f} on held-out bars"
    )
