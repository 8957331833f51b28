"""The public keys of a tokens' issuer: read from a file or an address, kept, and read again when they change."""

from __future__ import annotations

import asyncio
import logging
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
import msgspec
import requests

from fin_pyfunc.model.errors import FinPyfuncError

#: The largest key set that is read, in bytes.
MAX_BYTES = 1 << 20
#: Seconds that fetching a key set may take.
FETCH_SECONDS = 5.0
#: Seconds between two readings that a token with an unknown key asks for, and after one that failed.
AGAIN_SECONDS = 10.0
#: Kind of key (and curve) to the one algorithm it is used with: what a token's header says cannot choose another.
ALGORITHMS = {("RSA", ""): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}
#: Shorter RSA keys are refused (NIST SP 800-131A).
MIN_RSA_BITS = 2048

logger = logging.getLogger("fin_pyfunc.server")


class KeySetError(FinPyfuncError):
    """The issuer's keys cannot be had."""


class KeySet:
    """The keys of one issuer, by their `kid`.

    Parameters
    ----------
    source : str
        A file, or an address that begins with ``https://`` (or ``http://``).
    refresh_seconds : float
        After so long it is read again, beside the requests; keys that were read last hold until that has worked.
    """

    def __init__(self, source: str, refresh_seconds: float) -> None:
        self._source, self._refresh_seconds = source, refresh_seconds
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._next = self._not_before = 0.0
        self._reading: asyncio.Task[None] | None = None
        self._problem: str | None = None
        #: grows with each change of the keys, so that what was decided with the old ones can be told
        self.version = 0

    @property
    def is_file(self) -> bool:
        """Whether no network is needed to read it."""
        return "://" not in self._source

    def load(self) -> None:
        """Read the keys now.

        Raises
        ------
        KeySetError
        """
        self._take(self._read())

    def refresh_if_due(self) -> None:
        """Start reading beside the requests where it is time to; must be called on the event loop."""
        if time.monotonic() >= self._next and self._reading is None:
            self._start()

    async def get(self, kid: str | None) -> jwt.PyJWK | None:
        """The key of an id; where there is none, the set is read again first, but not more often than it may be.

        A token without a `kid` is of the only key, if there is only one.
        """
        key = self._keys.get(kid)
        if key is None and (self._reading is not None or time.monotonic() >= self._not_before):
            if self._reading is None:
                self._start()
            if self._reading is not None:
                await asyncio.shield(self._reading)
            key = self._keys.get(kid)
        return key

    @property
    def is_empty(self) -> bool:
        """Whether no keys were ever read."""
        return not self._keys

    def _start(self) -> None:
        self._not_before = time.monotonic() + AGAIN_SECONDS
        self._next = time.monotonic() + AGAIN_SECONDS
        self._reading = asyncio.create_task(self._read_beside())
        self._reading.add_done_callback(self._done)

    def _done(self, _: object) -> None:
        self._reading = None

    async def _read_beside(self) -> None:
        try:
            keys = await asyncio.to_thread(self._read)
        except Exception as error:
            problem = str(error) if isinstance(error, KeySetError) else f"reading it raised {type(error).__name__}"
            if problem != self._problem:
                self._problem = problem
                logger.error("%s Until then the keys that were read last hold.", problem)
        else:
            self._problem = None
            self._take(keys)

    def _take(self, keys: dict[str | None, jwt.PyJWK]) -> None:
        now = time.monotonic()
        self._next, self._not_before = now + self._refresh_seconds, now + AGAIN_SECONDS
        if {kid: _thumbprint(key) for kid, key in keys.items()} != {
            kid: _thumbprint(key) for kid, key in self._keys.items()
        }:
            self._keys, self.version = keys, self.version + 1
            logger.info("the issuer's key set was read: %d keys", len({id(key) for key in keys.values()}))

    def _read(self) -> dict[str | None, jwt.PyJWK]:
        content = _from_file(self._source) if self.is_file else _from_address(self._source)
        try:
            listed: Any = msgspec.json.decode(content)["keys"]
            keys = [key for each in listed if (key := _signing_key(each)) is not None]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError):
            raise KeySetError(
                "The issuer's key set is no JWKS: deployment.api.auth.jwks must lead to an object with a list 'keys'."
            ) from None
        if not keys:
            raise KeySetError(
                "The issuer's key set holds no key that can be used: RSA (RS256), EC P-256 (ES256) or Ed25519 (EdDSA)."
            )
        by_id: dict[str | None, jwt.PyJWK] = {key.key_id: key for key in reversed(keys) if key.key_id}
        if len(keys) == 1:
            by_id[None] = keys[0]
        return by_id


def _signing_key(described: Mapping[str, Any]) -> jwt.PyJWK | None:
    """A key of the set, if it is a public one of a kind that is taken; a secret one never is."""
    algorithm = ALGORITHMS.get((str(described.get("kty")), str(described.get("crv", ""))))
    is_other = described.get("use", "sig") != "sig" or described.get("alg", algorithm) != algorithm
    if algorithm is None or is_other or "verify" not in described.get("key_ops", ["verify"]):
        return None
    try:
        key = jwt.PyJWK({name: value for name, value in described.items() if name != "d"}, algorithm)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    return None if algorithm == "RS256" and key.key.key_size < MIN_RSA_BITS else key


def _thumbprint(key: jwt.PyJWK) -> Any:
    numbers = key.key.public_bytes_raw() if key.algorithm_name == "EdDSA" else key.key.public_numbers()
    return key.algorithm_name, numbers


def _from_file(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            if not stat.S_ISREG(Path(path).stat().st_mode):
                raise OSError(0, "not a file")
            return file.read(MAX_BYTES)
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or "not a usable path").lower()
        raise KeySetError(
            f"The issuer's key set {path} cannot be read ({reason}): see deployment.api.auth.jwks."
        ) from None


def _from_address(address: str) -> bytes:
    """Fetch it from the one address that the operator named: no redirects, within bounds."""
    try:
        with requests.get(
            address, timeout=FETCH_SECONDS, allow_redirects=False, stream=True, headers={"Accept": "application/json"}
        ) as answered:
            if answered.status_code != 200:
                raise KeySetError(
                    f"The issuer's key set was answered with {answered.status_code}: see deployment.api.auth.jwks."
                )
            deadline, content = time.monotonic() + FETCH_SECONDS, b""
            for chunk in answered.iter_content(1 << 16):
                content += chunk
                if len(content) > MAX_BYTES or time.monotonic() > deadline:
                    raise KeySetError("The issuer's key set is too large, or takes too long to come.")
            return content
    except requests.RequestException as error:
        raise KeySetError(
            f"The issuer's key set cannot be fetched ({type(error).__name__}): see deployment.api.auth.jwks."
        ) from None
