"""The credentials that a server takes: API keys, JWT, or either."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fin_pyfunc.serving.callers.keys import PREFIX, KeyFile
from fin_pyfunc.serving.callers.principal import Principal
from fin_pyfunc.serving.errors import RETRY_AFTER, RequestError
from fin_pyfunc.serving.settings import Auth

if TYPE_CHECKING:
    from fin_pyfunc.serving.callers.tokens import Tokens


class Credentials:
    """Tells who a credential belongs to.

    Parameters
    ----------
    keyfile : KeyFile or None
        Loaded.
    tokens : Tokens or None
    """

    def __init__(self, keyfile: KeyFile | None, tokens: Tokens | None = None) -> None:
        self._keyfile, self._tokens = keyfile, tokens
        #: what there is to send, for whoever sent none
        self.wanted = " or ".join(
            [
                *["an API key as 'Authorization: Bearer <key>' or 'X-API-Key: <key>'"] * (keyfile is not None),
                *["a JWT as 'Authorization: Bearer <token>'"] * (tokens is not None),
            ]
        )

    def peek(self, sent: str) -> Principal | None:
        """Whose it is, where that can be told without waiting."""
        if self._tokens is not None and (self._keyfile is None or not sent.startswith(PREFIX)):
            return self._tokens.peek(sent)
        return None if self._keyfile is None else self._keyfile.verify(sent)

    async def verify(self, sent: str) -> Principal | None:
        """Whose it is, after `peek` could not tell; None for a wrong one.

        Raises
        ------
        RequestError
            503: the keys to check it with were never had.
        """
        if self._tokens is None or (self._keyfile is not None and sent.startswith(PREFIX)):
            return None
        subject = await self._tokens.verify(sent)
        if subject is None and self._tokens.is_unable:
            raise RequestError(
                503, "The server cannot check tokens yet: their issuer's keys do not answer; try again.", RETRY_AFTER
            )
        return subject


def open_credentials(settings: Auth) -> Credentials:
    """The credentials of a server, with the files that they are in read.

    Raises
    ------
    KeyFileError, KeySetError
        A file is missing, unreadable or damaged; an address is asked later.
    """
    keyfile = tokens = None
    if settings.by_keys:
        keyfile = KeyFile(Path(settings.keys_file or ""))
        keyfile.load()
    if settings.by_jwt:
        from fin_pyfunc.serving.callers.jwks import KeySet  # cryptography, for those who take tokens
        from fin_pyfunc.serving.callers.tokens import Tokens

        keys = KeySet(settings.jwks or "", settings.jwks_seconds)
        if keys.is_file:
            keys.load()
        tokens = Tokens(settings, keys)
    return Credentials(keyfile, tokens)
