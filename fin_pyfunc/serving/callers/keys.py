"""API keys in a file: made, listed and revoked by an operator, checked by the server.

A key is 32 random bytes, so its plain SHA-256 is as hard to turn back as the key is to guess; the file holds nothing
else of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import logging
import os
import secrets
import stat
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from fin_pyfunc.model.errors import FinPyfuncError
from fin_pyfunc.serving.callers.principal import Pattern, Scope

#: The largest key file that is read, in bytes: some 20,000 keys.
MAX_FILE_BYTES = 1 << 22
#: What every key begins with.
PREFIX = "fpk_"
#: Seconds between two looks at whether the file has changed.
CHECK_SECONDS = 1.0

_NO_DIGEST = "0" * 64
logger = logging.getLogger("fin_pyfunc.server")


class KeyFileError(FinPyfuncError):
    """A key file that is missing, unreadable or damaged, or a change to it that cannot be made."""


# a field of a later version may restrict the key, so one that this version does not know is refused
class Key(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the file says of one key: a principal."""

    name: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9 ._@-]{0,99}\Z")]
    id: Annotated[str, Meta(pattern=r"\A[0-9a-f]{12}\Z")]
    sha256: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    scopes: Annotated[tuple[Scope, ...], Meta(min_length=1)]
    created: datetime
    #: patterns of the model URIs that it may ask for; empty is all of them
    models: tuple[Pattern, ...] = ()


class _Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    keys: tuple[Key, ...]


class _Stamp(NamedTuple):
    """What changes when a file does."""

    mtime_ns: int
    inode: int
    size: int


class KeyFile:
    """A file of API keys.

    Parameters
    ----------
    path : Path
        Nothing is read before a method asks for it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys: dict[str, Key] = {}
        self._stamp: _Stamp | None = None
        self._problem: str | None = None
        self._next_check = 0.0

    def load(self) -> None:
        """Read the keys that `verify` knows.

        Raises
        ------
        KeyFileError
        """
        keys, self._stamp = self._read()
        self._keys = {key.id: key for key in keys}
        self._next_check = time.monotonic() + CHECK_SECONDS

    def verify(self, token: str) -> Key | None:
        """The key that a token is of, or None.

        A changed file is noticed within `CHECK_SECONDS`; while it cannot be read, the keys read last hold. The work is
        the same whether or not there is a key of the token's id.
        """
        if time.monotonic() >= self._next_check:
            self._reload()
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
        key = self._keys.get(token[4:16])
        same = hmac.compare_digest(digest, _NO_DIGEST if key is None else key.sha256)
        return key if same else None

    def add(self, name: str, scopes: Collection[Scope], models: Collection[str] = ()) -> str:
        """Make a key; a file that does not exist is made too.

        Parameters
        ----------
        name : str
            Who the key is for: 1 to 100 letters, digits, spaces and ``._@-``; no other key may have it.
        scopes : collection of Scope
            At least one.
        models : collection of str, default ()
            Patterns of the model URIs that it is for, such as ``models:/eurusd_*@champion``; none is every model.

        Returns
        -------
        str
            The token, ``fpk_<id>_<secret>``; it cannot be had again.

        Raises
        ------
        KeyFileError
        """
        with self._locked():
            keys = self._read()[0] if self._path.exists() else ()
            taken = {key.name for key in keys} | {key.id for key in keys}
            if name in taken:
                raise KeyFileError("There is a key of this name already: revoke it first, or choose another name.")
            key_id = secrets.token_hex(6)
            while key_id in taken:
                key_id = secrets.token_hex(6)
            token = f"{PREFIX}{key_id}_{secrets.token_urlsafe(32)}"
            key = Key(
                name=name,
                id=key_id,
                sha256=hashlib.sha256(token.encode()).hexdigest(),
                scopes=tuple(sorted(set(scopes))),
                created=datetime.now(UTC).replace(microsecond=0),
                models=tuple(dict.fromkeys(models)),
            )
            try:
                msgspec.convert(msgspec.to_builtins(key), Key)
            except msgspec.ValidationError as error:
                if ".models" in str(error):
                    raise KeyFileError(
                        "A pattern of models begins as their URIs do, and '*' in it is any text, as in "
                        "models:/eurusd_*@champion or runs:/*."
                    ) from None
                raise KeyFileError(
                    "A key needs at least one scope, and a name of 1 to 100 letters, digits, spaces and '._@-' "
                    "that begins with a letter or a digit."
                ) from None
            self._write([*keys, key])
        return token

    def list(self) -> tuple[Key, ...]:
        """Every key, oldest first.

        Raises
        ------
        KeyFileError
        """
        return self._read()[0]

    def revoke(self, key: str) -> Key:
        """Remove a key by its id or its name; servers that use the file refuse it within `CHECK_SECONDS`.

        Returns
        -------
        Key
            The one that was removed.

        Raises
        ------
        KeyFileError
        """
        with self._locked():
            keys = self._read()[0]
            gone = next((k for k in keys if key in (k.id, k.name)), None)
            if gone is None:
                raise KeyFileError("There is no key of this id or name: 'fin-pyfunc keys list' shows those there are.")
            self._write([k for k in keys if k is not gone])
        return gone

    def _reload(self) -> None:
        """Read the file if it has changed; what is wrong with it is logged once."""
        self._next_check = time.monotonic() + CHECK_SECONDS
        try:
            if self._problem is None and self._is_unchanged():
                return
            keys, self._stamp = self._read()
        except KeyFileError as error:
            if str(error) != self._problem:
                self._problem = str(error)
                logger.error("%s Until then the keys that were read last hold.", error)
        else:
            self._problem = None
            self._keys = {key.id: key for key in keys}
            logger.info("the key file was read again: %d keys", len(keys))

    def _is_unchanged(self) -> bool:
        try:
            return _stamp(self._path.stat()) == self._stamp
        except (OSError, ValueError):
            return False

    def _read(self) -> tuple[tuple[Key, ...], _Stamp]:
        try:
            # without waiting, because a pipe may never have anything to read
            with os.fdopen(os.open(self._path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
                status = os.fstat(file.fileno())
                content = file.read(MAX_FILE_BYTES + 1) if stat.S_ISREG(status.st_mode) else b""
        except FileNotFoundError:
            raise KeyFileError(
                f"The key file {self._path} does not exist: make it with 'fin-pyfunc keys add NAME --scope predict "
                f"--file {self._path}'."
            ) from None
        except (OSError, ValueError) as error:
            reason = (getattr(error, "strerror", None) or "not a usable path").lower()
            raise KeyFileError(
                f"The key file {self._path} cannot be read ({reason}): let the server's user read it."
            ) from None
        where = ""
        try:
            keys = msgspec.json.decode(content, type=_Document).keys if len(content) <= MAX_FILE_BYTES else None
        except msgspec.ValidationError as error:
            keys, where = None, str(error).partition(" -")[2].replace("`", "")  # " at $.keys[0].id", no value
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            keys = None
        if keys is None or len({key.id for key in keys} | {key.name for key in keys}) != 2 * len(keys):
            raise KeyFileError(
                f"The key file {self._path} is damaged{where}: restore it, or remove it and make new keys."
            )
        return keys, _stamp(status)

    def _write(self, keys: Sequence[Key]) -> None:
        """Put a new file in the place of the old one, whole or not at all."""
        target = self._path.resolve()
        content = msgspec.json.format(msgspec.json.encode(_Document(keys=tuple(keys))), indent=2) + b"\n"
        handle, written = tempfile.mkstemp(dir=target.parent, prefix=".keys-")  # with mode 0600
        try:
            with open(handle, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
                with contextlib.suppress(
                    FileNotFoundError, PermissionError
                ):  # root leaves a server's file to the server
                    before = target.stat()
                    os.fchown(handle, before.st_uid, before.st_gid)
                file.write(content)
                file.flush()
                os.fsync(handle)
            Path(written).replace(target)
        except BaseException:
            Path(written).unlink(missing_ok=True)
            raise

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One change at a time, by a lock on the folder, which leaves no file behind."""
        try:
            folder = os.open(self._path.resolve().parent, os.O_RDONLY)
            try:
                fcntl.flock(folder, fcntl.LOCK_EX)
                yield
            finally:
                os.close(folder)
        except OSError as error:
            reason = (error.strerror or "unknown cause").lower()
            raise KeyFileError(
                f"The key file {self._path} cannot be written ({reason}): its folder must exist and be writable."
            ) from None


def _stamp(status: os.stat_result) -> _Stamp:
    return _Stamp(status.st_mtime_ns, status.st_ino, status.st_size)
