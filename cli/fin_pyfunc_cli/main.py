"""`fin-pyfunc`: the group of commands, and how an error looks."""

from __future__ import annotations

import sys

import click

from fin_pyfunc import __version__
from fin_pyfunc.model.errors import FinPyfuncError
from fin_pyfunc_cli.demo import demo
from fin_pyfunc_cli.serve import serve


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="fin-pyfunc")
def cli() -> None:
    """Log a fitted classifier once, and serve it as every MLflow way of running it would.

    Example: fin-pyfunc demo && fin-pyfunc serve -m models:/eurusd_rf@champion
    """


for command in (demo, serve):
    cli.add_command(command)


def main() -> None:
    """Run a command; an error is one line on stderr and a non-zero exit, never a traceback."""
    try:
        cli(standalone_mode=False)
    except click.ClickException as e:
        e.show()
        sys.exit(e.exit_code)
    except click.Abort:
        click.echo("Aborted.", err=True)
        sys.exit(130)
    except (FinPyfuncError, OSError) as e:
        _fail(str(e))
    except Exception as e:  # a defect, or a library's own error: still one line
        _fail(f"{type(e).__name__}: {' '.join(str(e).split())}")


def _fail(message: str) -> None:
    click.echo(f"Error: {message}", err=True)
    sys.exit(1)
