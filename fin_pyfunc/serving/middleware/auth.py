"""Who may call: API keys and JWT, and which routes need none."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Mapping

from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from fin_pyfunc.serving.callers.credentials import Credentials
from fin_pyfunc.serving.callers.principal import Principal, Scope
from fin_pyfunc.serving.errors import RequestError
from fin_pyfunc.serving.settings import Settings

#: What a load balancer and a browser reach without a credential.
OPEN = frozenset({"/", "/health", "/ping", "/docs", "/redoc", "/openapi.json"})
OPEN_BELOW = ("/health/", "/docs/static/")

_CHALLENGE = {"WWW-Authenticate": "Bearer"}
logger = logging.getLogger("fin_pyfunc.server")


class Authenticate:
    """Refuses a request without a valid credential, or whose credential lacks the route's scope.

    The caller's id and scopes go to ``scope["state"]``, as ``principal`` and ``scopes``, on an open route too, if a
    valid credential was sent; the patterns of its models go there as ``models``, if it has any.

    Parameters
    ----------
    app : ASGI application
    credentials : Credentials
    scopes : mapping of str to Scope
        Path to what a caller must be allowed, one that ends with a slash to all below it; a path that is neither here
        nor open takes any valid credential.
    """

    def __init__(self, app: ASGIApp, credentials: Credentials, scopes: Mapping[str, Scope]) -> None:
        self._app, self._credentials, self._scopes = app, credentials, scopes
        self._below = tuple(path for path in scopes if path.endswith("/"))

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Let one request pass, or raise; anything but HTTP passes."""
        if scope["type"] == "http":
            path, sent = scope["path"], _credential(scope)
            caller = self._credentials.peek(sent) if sent else None
            if not _is_open(path):
                if caller is None:
                    caller = await self._known(sent)
                needed = self._needed(path)
                if needed is not None and needed not in caller.scopes:
                    raise RequestError(
                        403,
                        "The credential may not use this route: ask the server's operator for one with the scope "
                        f"'{needed}'.",
                    )
            if caller is not None:
                state = scope.setdefault("state", {})
                state["principal"], state["scopes"] = caller.id, caller.scopes
                if caller.models:
                    state["models"] = caller.models
        await self._app(scope, receive, send)

    async def _known(self, sent: str | None) -> Principal:
        """Whose credential was sent, where that could not be told at once."""
        wanted = self._credentials.wanted
        if sent is None:
            raise RequestError(401, f"This request has no credential: send {wanted}.", _CHALLENGE)
        caller = await self._credentials.verify(sent) if sent else None
        if caller is None:
            raise RequestError(
                401,
                f"The credential is not one that this server knows, or not any more: send {wanted}, a valid one.",
                _CHALLENGE,
            )
        return caller

    def _needed(self, path: str) -> Scope | None:
        needed = self._scopes.get(path)
        if needed is None:
            return next((self._scopes[prefix] for prefix in self._below if path.startswith(prefix)), None)
        return needed


def warn_if_exposed(settings: Settings) -> None:
    """Say so, loudly, where other machines reach a server that asks nobody who they are."""
    if settings.auth.mode == "off" and not _is_loopback(settings.host):
        logger.warning(
            "ANYONE WHO REACHES %s:%d MAY USE THIS SERVER: set deployment.api.auth.mode to keys or jwt, or to external "
            "where a proxy checks callers, or listen on 127.0.0.1",
            settings.host,
            settings.port,
        )


def _credential(scope: AsgiScope) -> str | None:
    """What was sent: a bearer's, else a key in its own header; more than one of a kind is none that can be trusted."""
    bearer = own = None
    for name, value in scope["headers"]:
        if name == b"authorization":
            if bearer is not None:
                return ""
            bearer = value
        elif name == b"x-api-key":
            if own is not None:
                return ""
            own = value
    if bearer is not None and bearer[:7].lower() == b"bearer ":
        return str(bearer[7:].strip().decode("latin-1"))
    return None if own is None else str(own.decode("latin-1"))


def _is_open(path: str) -> bool:
    return path in OPEN or path.startswith(OPEN_BELOW)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
