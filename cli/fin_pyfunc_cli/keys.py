"""`fin-pyfunc keys`: who may call a server with `auth.mode: keys`."""

from __future__ import annotations

from pathlib import Path

import click

from fin_pyfunc.serving.keys import KeyFile, Scope

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
@key_file
def add(name: str, scopes: tuple[str, ...], path: Path) -> None:
    """Make a key for NAME and print it, this once; the file keeps only its digest.

    Example: fin-pyfunc keys add desk-1 --scope predict --scope models
    """
    token = KeyFile(path).add(name, [Scope(scope) for scope in scopes])
    click.echo(f"made a key for {name} in {path}; it is not shown again:", err=True)
    click.echo(token)


@keys.command("list")
@key_file
def list_keys(path: Path) -> None:
    """Show each key's id, name, scopes and time of making.

    Example: fin-pyfunc keys list --file keys.json
    """
    for key in KeyFile(path).list():
        click.echo("\t".join((key.id, key.name, ",".join(key.scopes), key.created.isoformat())))


@keys.command()
@click.argument("key")
@key_file
def revoke(key: str, path: Path) -> None:
    """Remove KEY, an id or a name.

    Example: fin-pyfunc keys revoke desk-1
    """
    gone = KeyFile(path).revoke(key)
    click.echo(f"revoked {gone.name} ({gone.id})")
