"""Stopping and starting from outside a server: through its routes, or in its state file."""

from __future__ import annotations

import getpass
import http.client
import os
from pathlib import Path
from typing import Any

import msgspec

from fin_pyfunc.model.errors import FinPyfuncError
from fin_pyfunc.serving.admin.client import AdminConnection
from fin_pyfunc.serving.motion.names import normal
from fin_pyfunc.serving.motion.state import StateFile, Stop, made, with_stop, without_stop

#: Holds the credential for a server that is asked over TCP.
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


def ask_socket(path: Path, action: str, body: dict[str, Any]) -> dict[str, Any]:
    """Ask the server behind an admin socket to stop or to start.

    Parameters
    ----------
    path : Path
    action : {"stop", "start"}
    body : dict

    Raises
    ------
    CommandError
        With the server's own sentence, where it has one.
    """
    connection = AdminConnection(path, TIMEOUT[1])
    try:
        connection.request("POST", _route(action), msgspec.json.encode(body), {"Content-Type": "application/json"})
        answered = connection.getresponse()
        return _understood(answered.status, answered.read())
    except PermissionError:
        raise CommandError(
            f"The admin socket {path} is another user's: run this as the user that runs the server."
        ) from None
    except (OSError, http.client.HTTPException) as e:
        reason = getattr(e, "strerror", None) or type(e).__name__
        raise CommandError(
            f"No server answers at the admin socket {path} ({reason}): start it, or change its state file with --file."
        ) from None
    finally:
        connection.close()


def ask_server(url: str, action: str, body: dict[str, Any]) -> dict[str, Any]:
    """Ask a server over TCP, with the credential in `KEY_VARIABLE`.

    Parameters
    ----------
    url : str
    action, body
        As `ask_socket` takes them.

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
                f"{url.rstrip('/')}{_route(action)}", json=body, headers=headers, timeout=TIMEOUT, allow_redirects=False
            )
        except (requests.RequestException, ValueError) as e:
            raise CommandError(
                f"The server did not answer ({type(e).__name__}): check its URL, or change its state file with --file."
            ) from None
    return _understood(answered.status_code, answered.content)


def _route(action: str) -> str:
    return f"/admin/models/{action}"


def _understood(status: int, content: bytes) -> dict[str, Any]:
    try:
        said = msgspec.json.decode(content)
    except msgspec.DecodeError:
        said = {}
    if status != 200 or not isinstance(said, dict) or "kept" not in said:
        detail = said.get("detail") if isinstance(said, dict) else None
        hint = f" Put a key with the scope admin into {KEY_VARIABLE}." if status == 401 else ""
        raise CommandError(f"{detail or f'The server answered {status}, which is not ours.'}{hint}")
    return said
