"""Who may call: API keys, and which routes need none."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Mapping

from starlette.types import ASGIApp, Receive, Scope, Send

from fin_pyfunc.serving import keys
from fin_pyfunc.serving.errors import RequestError
from fin_pyfunc.serving.http import header
from fin_pyfunc.serving.settings import Settings

#: What a load balancer and a browser reach without a credential.
OPEN = frozenset({"/", "/health", "/ping", "/docs", "/redoc", "/openapi.json"})
OPEN_BELOW = ("/health/", "/docs/static/")

_CHALLENGE = {"WWW-Authenticate": "Bearer"}
logger = logging.getLogger("fin_pyfunc.server")


class Authenticate:
    """Refuses a request without a valid key, or whose key lacks the route's scope.

    The id of the key goes to ``scope["state"]["principal"]``; on an open route too, if a valid one was sent.

    Parameters
    ----------
    app : ASGI application
    keyfile : KeyFile
        Loaded.
    scopes : mapping of str to Scope
        Path to what a key must be allowed; a path that is neither here nor open takes any valid key.
    """

    def __init__(self, app: ASGIApp, keyfile: keys.KeyFile, scopes: Mapping[str, keys.Scope]) -> None:
        self._app, self._keyfile, self._scopes = app, keyfile, scopes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request pass, or raise; anything but HTTP passes."""
        if scope["type"] == "http":
            token = _token(scope)
            key = self._keyfile.verify(token) if token is not None else None
            if key is not None:
                scope.setdefault("state", {})["principal"] = key.id
            if not _is_open(scope["path"]):
                self._require(key, token, self._scopes.get(scope["path"]))
        await self._app(scope, receive, send)

    @staticmethod
    def _require(key: keys.Key | None, token: str | None, needed: keys.Scope | None) -> None:
        if token is None:
            raise RequestError(
                401,
                "This request has no credential: send an API key as 'Authorization: Bearer <key>' or "
                "'X-API-Key: <key>'.",
                _CHALLENGE,
            )
        if key is None:
            raise RequestError(
                401, "The API key is not one that this server knows: ask its operator for a valid one.", _CHALLENGE
            )
        if needed is not None and needed not in key.scopes:
            raise RequestError(
                403, f"The API key may not use this route: ask the server's operator for one with the scope '{needed}'."
            )


def warn_if_exposed(settings: Settings) -> None:
    """Say so, loudly, where other machines reach a server that asks nobody who they are."""
    if settings.auth.mode == "off" and not _is_loopback(settings.host):
        logger.warning(
            "ANYONE WHO REACHES %s:%d MAY USE THIS SERVER: set deployment.api.auth.mode to keys, or to external where "
            "a proxy checks callers, or listen on 127.0.0.1",
            settings.host,
            settings.port,
        )


def _token(scope: Scope) -> str | None:
    sent = header(scope, b"authorization")
    if sent is not None and sent[:7].lower() == b"bearer ":
        return sent[7:].strip().decode("latin-1")
    sent = header(scope, b"x-api-key")
    return sent.decode("latin-1") if sent is not None else None


def _is_open(path: str) -> bool:
    return path in OPEN or path.startswith(OPEN_BELOW)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
