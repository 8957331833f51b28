"""Stopping and starting from outside a server: through its routes, or in its state file."""

from __future__ import annotations

import getpass
import os
from pathlib import Path
from typing import Any

import msgspec

from fin_pyfunc.model.errors import FinPyfuncError
from fin_pyfunc.serving.motion.names import normal
from fin_pyfunc.serving.motion.state import StateFile, Stop, made, with_stop, without_stop

#: Holds the key that a server with `auth.mode: keys` asks for.
KEY_VARIABLE = "FIN_PYFUNC_API_KEY"
#: Seconds to connect, and seconds to wait for the answer.
TIMEOUT = (5.0, 30.0)


class CommandError(FinPyfuncError):
    """A server that refused a command, or did not answer."""


def stop_in_file(path: Path, name: str, reason: str) -> None:
    """Add a stop to a state file, which is made where there is none.

    Raises
    ------
    StateFileError, CommandError
    """
    stop = made(name, reason, by=getpass.getuser())
    try:
        msgspec.convert(msgspec.to_builtins(stop), Stop)
    except msgspec.ValidationError:
        raise CommandError("A name has 1 to 1,024 characters and a reason 1 to 500: say it shorter.") from None
    if not (name + reason).isprintable():
        raise CommandError("A name and a reason are one line of printable characters: leave out the others.")
    file = StateFile(path)
    with file.locked():
        file.write(with_stop(file.read() or (), stop))


def start_in_file(path: Path, name: str) -> None:
    """Take a stop out of a state file.

    Raises
    ------
    StateFileError, NotStoppedError
    """
    file = StateFile(path)
    with file.locked():
        file.write(without_stop(file.read() or (), normal(name)))


def ask_server(url: str, action: str, body: dict[str, Any]) -> dict[str, Any]:
    """Ask a server to stop or to start.

    Parameters
    ----------
    url : str
    action : {"stop", "start"}
    body : dict

    Raises
    ------
    CommandError
        With the server's own sentence, where it has one.
    """
    import requests

    key = os.environ.get(KEY_VARIABLE)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with requests.Session() as session:
        session.trust_env = False  # neither a proxy nor ~/.netrc has a part in this
        try:
            answered = session.post(
                f"{url.rstrip('/')}/admin/models/{action}",
                json=body,
                headers=headers,
                timeout=TIMEOUT,
                allow_redirects=False,
            )
        except (requests.RequestException, ValueError) as e:
            raise CommandError(
                f"The server did not answer ({type(e).__name__}): check its URL, or change its state file with --file."
            ) from None
    try:
        said = answered.json()
    except ValueError:
        said = {}
    if answered.status_code != 200 or not isinstance(said, dict) or "kept" not in said:
        detail = said.get("detail") if isinstance(said, dict) else None
        hint = f" Put a key with the scope admin into {KEY_VARIABLE}." if answered.status_code == 401 else ""
        raise CommandError(f"{detail or f'The server answered {answered.status_code}, which is not ours.'}{hint}")
    return said
