"""`fin-pyfunc models`: what ``GET /models`` answers; and the kill switch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from fin_pyfunc_cli import options, text


@click.group(invoke_without_command=True)
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="At most this many.")
@options.as_json
@options.tracking_uri
@options.experiment_name
@click.pass_context
def models(
    context: click.Context, limit: int, as_json: bool, tracking_uri: str | None, experiment_name: str | None
) -> None:
    """List the runs of an experiment that have a logged model, newest first; or stop a model and start it again.

    Example: fin-pyfunc models --mlflow-experiment-name financial_ml --limit 10
    """
    if context.invoked_subcommand is not None:
        return
    options.use_store(tracking_uri, must_exist=True)
    import mlflow
    import msgspec

    from fin_pyfunc.serving.catalog import Catalog

    found = Catalog(mlflow.get_tracking_uri(), options.experiment(experiment_name)).list_models(
        limit=limit, with_names=True
    )
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
        return
    if not found.models:
        click.echo("The experiment has no models yet; log one with 'fin-pyfunc log' or fin_pyfunc.log_model.", err=True)
        return
    rows = [
        (m.model_uri, _names(m.registered), text.pairs(m.metrics), text.pairs(m.params), text.pairs(m.tags))
        for m in found.models
    ]
    click.echo(text.table([("MODEL", "NAME", "METRICS", "PARAMS", "TAGS"), *rows]))


def _names(registered: Any) -> str:
    """What a model is registered as, newest version first, such as ``fx/3 @champion``."""
    shown = (" ".join([f"{each.name}/{each.version}", *(f"@{alias}" for alias in each.aliases)]) for each in registered)
    return ", ".join(reversed(list(shown))) or "-"


def _where(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--port`, `--socket`, `--server` and `--file`, of which one can be given."""
    for option in (
        click.option(
            "--file",
            "file",
            type=click.Path(dir_okay=False, path_type=Path),
            help="The server's deployment.api.admin.state_file, in place of a server: whether it runs or not.",
        ),
        click.option(
            "--server", metavar="URL", help="Another machine's server; it takes the credential in FIN_PYFUNC_API_KEY."
        ),
        click.option(
            "--socket",
            type=click.Path(dir_okay=False, path_type=Path),
            help="The server's deployment.api.admin.socket, if that is a path.",
        ),
        click.option(
            "--port",
            type=click.IntRange(1, 65535),
            help="Port of your server on this machine. Default: that of the only one.",
        ),
    ):
        command = option(command)
    return command


def _ask(action: str, body: dict[str, Any], where: dict[str, Any]) -> dict[str, Any]:
    """Ask the server that the options name."""
    from fin_pyfunc.serving.admin.client import find_socket
    from fin_pyfunc.serving.motion import commands

    if where["server"] is not None:
        return commands.ask_server(where["server"], action, body)
    return commands.ask_socket(where["socket"] or find_socket(where["port"]), action, body)


def _require_one_place(where: dict[str, Any]) -> None:
    given = [f"--{name}" for name, value in where.items() if value is not None]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} name different servers: give one of them.")


@models.command()
@click.argument("name")
@click.option("--reason", required=True, help="What callers are told.")
@_where
def stop(name: str, reason: str, **where: Any) -> None:
    """Have NAME answered 503 at once, by every worker: a registered model, a model URI, or a model id.

    It holds when this returns; with --file within a second, and from the next start on.

    Example: fin-pyfunc models stop eurusd_rf --reason "limits breached, ask the desk"
    """
    from fin_pyfunc.serving.motion import commands
    from fin_pyfunc.serving.motion.names import normal

    _require_one_place(where)
    if where["file"] is not None:
        commands.stop_in_file(where["file"], name, reason)
    else:
        answer = _ask("stop", {"name": name, "reason": reason}, where)
        _show_kept(answer)
        if not any(stop["model_ids"] for stop in answer["stopped"] if stop["name"] == normal(name)):
            click.echo(
                f"Note: {name} leads to no model that the server or MLflow knows of now. Is it spelled right? "
                "'fin-pyfunc models' and GET /admin/models list what there is.",
                err=True,
            )
    click.echo(f"stopped {name}")


@models.command()
@click.argument("name")
@_where
def start(name: str, **where: Any) -> None:
    """Let NAME, as it was stopped, answer again.

    Example: fin-pyfunc models start eurusd_rf
    """
    from fin_pyfunc.serving.motion import commands

    _require_one_place(where)
    if where["file"] is not None:
        commands.start_in_file(where["file"], name)
    else:
        _show_kept(_ask("start", {"name": name}, where))
    click.echo(f"started {name} again")


def _show_kept(answer: dict[str, Any]) -> None:
    if not answer["kept"]:
        click.echo(
            "The server has no state file that it can write: a restart forgets this (deployment.api.admin.state_file).",
            err=True,
        )
