"""`fin-pyfunc serve`: gunicorn in front of MLflow models."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

import click

from fin_pyfunc_cli import options


@click.command()
@click.option("-m", "--model-uri", metavar="URI", help="Default model: whatever MLflow takes, a local path too.")
@click.option("--host", help="Address to listen on. Default: 127.0.0.1.")
@click.option("--port", type=int, help="Port to listen on. Default: 8000.")
@click.option("--workers", type=int, help="Worker processes. Default: 1.")
@click.option(
    "--config", type=click.Path(dir_okay=False, path_type=Path), help="YAML file, such as configs/deployment/api.yaml."
)
@click.option("--certfile", metavar="FILE", help="Serve HTTPS with this certificate (PEM, with its chain).")
@click.option("--keyfile", metavar="FILE", help="The certificate's private key, where its file does not hold it.")
@options.backend
@options.tracking_uri
@options.experiment_name
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning, error or critical. Default: info.")
def serve(config: Path | None, tracking_uri: str | None, experiment_name: str | None, **given: Any) -> None:
    """Serve MLflow classifiers over HTTP.

    Options beat environment variables, those beat the file, that beats the defaults. Without -m every request names its
    model.

    Example: fin-pyfunc serve -m models:/eurusd_rf@champion --port 8000
    """
    from fin_pyfunc.model.store_database import require_store
    from fin_pyfunc.serving import settings

    if given["log_level"]:
        given["log_level"] = given["log_level"].lower()
    for name in ("certfile", "keyfile"):
        given[f"tls.{name}"] = given.pop(name)
    overrides = {**given, "mlflow.tracking_uri": tracking_uri, "mlflow.experiment_name": experiment_name}
    loaded = settings.load(config, overrides=overrides)
    if not loaded.enabled:
        raise click.ClickException("deployment.api.enabled is false: set it to true to start the server.")
    if (loaded.model_uri or "").startswith(("models:", "runs:")) and "MLFLOW_REGISTRY_URI" not in os.environ:
        # MLflow's own default, unless there is a store of the older kind
        default = "" if Path("mlruns").exists() else "sqlite:///mlflow.db"
        require_store(loaded.mlflow.tracking_uri or default)
    is_text = loaded.log_format == "text"  # as JSON, the log alone says it
    if is_text:
        scheme = _scheme(loaded)
        click.echo(f"fin-pyfunc is starting on {scheme}://{loaded.host}:{loaded.port} (docs at /docs)", err=True)
    from fin_pyfunc.serving.gunicorn_app import run

    run(loaded, on_ready=(lambda default: _say_ready(loaded, default)) if is_text else None)


def _say_ready(settings: Any, default: Any) -> None:
    """Print a request that works when pasted."""
    manifest = default.model.manifest if default is not None else None
    if manifest is None:
        named = "" if settings.model_uri else "; each request names its model with the key 'model_uri'"
        click.echo(f"ready{named}", err=True)
        return
    body = json.dumps({"features": manifest.example.features, "return_proba": True})
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104 - read, not bound
    url = f"{_scheme(settings)}://{host}:{settings.port}/predict"
    key = ' -H "Authorization: Bearer $KEY"' if settings.auth.is_on else ""
    click.echo(f"\nready; try:\n\ncurl -s {url} -H 'Content-Type: application/json'{key} -d {shlex.quote(body)}\n")


def _scheme(settings: Any) -> str:
    return "http" if settings.tls.certfile is None else "https"
