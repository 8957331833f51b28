"""`fin-pyfunc`: the group of commands, and how an error looks."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

import click

from fin_pyfunc import __version__
from fin_pyfunc.model.errors import FinPyfuncError
from fin_pyfunc_cli.demo import demo
from fin_pyfunc_cli.image import image
from fin_pyfunc_cli.inspect import inspect
from fin_pyfunc_cli.keys import keys
from fin_pyfunc_cli.log import log
from fin_pyfunc_cli.models import models
from fin_pyfunc_cli.predict import predict
from fin_pyfunc_cli.record import record
from fin_pyfunc_cli.score import score
from fin_pyfunc_cli.serve import serve

#: As a shell says it of a process that Ctrl-C ended.
INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="fin-pyfunc")
def cli() -> None:
    """Log a fitted classifier once, and serve it as every MLflow way of running it would.

    Example: fin-pyfunc demo && fin-pyfunc serve -m models:/eurusd_rf@champion
    """


def _summarize(command: click.Command) -> None:
    """Have a group's help show the first sentence of each command's whole; click cuts it off where a line ends."""
    command.short_help = re.split(r"\.(?:\s|$)", " ".join((command.help or "").split()), maxsplit=1)[0] + "."
    for part in command.commands.values() if isinstance(command, click.Group) else ():
        _summarize(part)


for command in (demo, image, inspect, keys, log, models, predict, record, score, serve):
    _summarize(command)
    cli.add_command(command)


def main(args: Sequence[str] | None = None) -> None:
    """Run a command; an error is one line on stderr and a non-zero exit, never a traceback.

    Parameters
    ----------
    args : sequence of str, optional
        Default: the process's own.
    """
    try:
        cli(args, prog_name="fin-pyfunc", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as e:
        e.show()
        sys.exit(e.exit_code)
    except click.ClickException as e:
        context = getattr(e, "ctx", None)
        _fail(e.format_message() + (f" See '{context.command_path} --help'." if context else ""), e.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Aborted.", err=True)
        sys.exit(INTERRUPTED)
    except (FinPyfuncError, OSError) as e:
        _fail(str(e))
    except Exception as e:  # a defect, or a library's own error: still one line
        _fail(f"{type(e).__name__}: {e}")


def _fail(message: str, exit_code: int = 1) -> None:
    click.echo(f"Error: {' '.join(message.split())}", err=True)
    sys.exit(exit_code)
