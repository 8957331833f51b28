"""JWT: who they speak for, if the issuer's key signed them and they are for this server, now."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

import jwt
import msgspec

from fin_pyfunc.serving.callers.jwks import KeySet
from fin_pyfunc.serving.callers.principal import Pattern, Scope, Subject
from fin_pyfunc.serving.settings import Auth

#: Longest token that is read, in characters.
MAX_LENGTH = 8192
#: Tokens whose signature was checked that are remembered, so that it is not checked with every request.
MAX_REMEMBERED = 4096
#: What a header may call a token (RFC 7519, RFC 9068); an ID token or a logout token is something else.
TYPES = frozenset({"", "jwt", "at+jwt", "application/at+jwt", "application/jwt"})
#: No claim makes a subject longer than this.
MAX_SUBJECT = 200


class _Known(NamedTuple):
    subject: Subject
    expires: float
    version: int


class Tokens:
    """Checks JWT of one issuer.

    Parameters
    ----------
    settings : Auth
        `issuer`, `audience`, the names of the claims, and the leeway.
    keys : KeySet
    """

    def __init__(self, settings: Auth, keys: KeySet) -> None:
        self._settings, self._keys = settings, keys
        self._known: OrderedDict[bytes, _Known] = OrderedDict()

    @property
    def is_unable(self) -> bool:
        """Whether no token can be checked, because the issuer's keys were never had."""
        return self._keys.is_empty

    def peek(self, token: str) -> Subject | None:
        """Who a token speaks for, if it was checked before, with the keys there are now, and has not expired."""
        self._keys.refresh_if_due()
        known = self._known.get(_digest(token))
        if known is None or known.version != self._keys.version or time.time() >= known.expires:
            return None
        return known.subject

    async def verify(self, token: str) -> Subject | None:
        """Who a token speaks for; None for one that is not valid here, whatever is wrong with it."""
        if len(token) > MAX_LENGTH:
            return None
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):
            return None
        if not _is_plain(header):
            return None
        key = await self._keys.get(header.get("kid"))
        # the key says which algorithm: neither `none` nor an HMAC with the public key as its secret can be chosen
        if key is None or header.get("alg") != key.algorithm_name:
            return None
        settings = self._settings
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=settings.audience,
                issuer=settings.issuer,
                leeway=settings.leeway_seconds,
                options={"require": ["exp", "iss", "aud", "sub"], "verify_iat": False},
            )
            subject = self._subject(claims)
            expires = float(claims["exp"]) + settings.leeway_seconds
        except (jwt.PyJWTError, msgspec.ValidationError, ValueError, TypeError, OverflowError, RecursionError):
            return None
        self._known[_digest(token)] = _Known(subject, expires, self._keys.version)
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)
        return subject

    def _subject(self, claims: Mapping[str, Any]) -> Subject:
        """What the claims say; a claim of another form than it should have makes the token invalid."""
        who = claims["sub"]
        if not isinstance(who, str) or not 0 < len(who) <= MAX_SUBJECT or not who.isprintable():
            raise ValueError("sub")
        scopes = claims.get(self._settings.scopes_claim, [])
        words = msgspec.convert(scopes.split() if isinstance(scopes, str) else scopes, list[str])
        # an issuer's tokens may hold scopes of other servers, which say nothing here
        known = frozenset(Scope(word) for word in words if word in set(Scope))
        models: tuple[str, ...] = ()
        if self._settings.models_claim in claims:
            named = claims[self._settings.models_claim]
            models = msgspec.convert(named.split() if isinstance(named, str) else named, tuple[Pattern, ...])
            if not models:  # a claim that allows none: no URI is like this
                models = ("models:/",)
        return Subject(id=f"jwt:{who}", scopes=known, models=models)


def _is_plain(header: Mapping[str, Any]) -> bool:
    """Whether a header asks for nothing that is not done here."""
    kind, kid = header.get("typ", ""), header.get("kid")
    if not isinstance(kind, str) or kind.lower() not in TYPES or not isinstance(kid, str | None):
        return False
    return "crit" not in header and "b64" not in header


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
