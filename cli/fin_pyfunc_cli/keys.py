"""`fin-pyfunc keys`: who may call a server that takes API keys (`auth.mode`)."""

from __future__ import annotations

from pathlib import Path

import click

from fin_pyfunc.serving.callers.keys import KeyFile
from fin_pyfunc.serving.callers.principal import Scope

key_file = click.option(
    "--file",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    default="keys.json",
    show_default=True,
    envvar="FIN_PYFUNC__AUTH__KEYS_FILE",
    show_envvar=True,
    help="The server's deployment.api.auth.keys_file.",
)


@click.group()
def keys() -> None:
    """Make, list and revoke API keys; a server that runs notices within a second.

    Example: fin-pyfunc keys add desk-1 --scope predict --file keys.json
    """


@keys.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice([scope.value for scope in Scope]),
    multiple=True,
    required=True,
    help="What it is for; repeatable.",
)
@click.option(
    "--model",
    "models",
    metavar="PATTERN",
    multiple=True,
    help="Model URIs that it may ask for, such as models:/eurusd_*; repeatable. Default: every model.",
)
@key_file
def add(name: str, scopes: tuple[str, ...], models: tuple[str, ...], path: Path) -> None:
    """Make a key for NAME and print it, this once; the file keeps only its digest.

    Example: fin-pyfunc keys add desk-1 --scope predict --scope models --model 'models:/eurusd_*@champion'
    """
    token = KeyFile(path).add(name, [Scope(scope) for scope in scopes], models)
    click.echo(f"made a key for {name} in {path}; it is not shown again:", err=True)
    click.echo(token)


@keys.command("list")
@key_file
def list_keys(path: Path) -> None:
    """Show each key's id, name, scopes, time of making and patterns of models.

    Example: fin-pyfunc keys list --file keys.json
    """
    for key in KeyFile(path).list():
        click.echo("\t".join((key.id, key.name, ",".join(key.scopes), key.created.isoformat(), ",".join(key.models))))


@keys.command()
@click.argument("key")
@key_file
def revoke(key: str, path: Path) -> None:
    """Remove KEY, an id or a name.

    Example: fin-pyfunc keys revoke desk-1
    """
    gone = KeyFile(path).revoke(key)
    click.echo(f"revoked {gone.name} ({gone.id})")
