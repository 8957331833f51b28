"""UBJSON as XGBoost writes it, and nothing of the format beyond that: every length is checked before it is taken."""

from __future__ import annotations

from typing import Any

import numpy as np

from fin_pyfunc.model.soundness.trees import Array, forged

BAD = "an XGBoost model that is cut off or damaged"
#: Objects and arrays within one another (XGBoost's own reach 8), and values of an array that is not of one type.
_MAX_DEPTH, _MAX_ITEMS = 16, 1 << 20
_NUMBERS = {b"i": ">i1", b"U": ">u1", b"I": ">i2", b"l": ">i4", b"L": ">i8", b"d": ">f4", b"D": ">f8"}
_CONSTANTS = {b"T": True, b"F": False, b"N": None, b"Z": None}


def read_ubjson(content: bytes) -> Any:
    """Read a whole document.

    Parameters
    ----------
    content : bytes

    Returns
    -------
    object
        Dicts, lists, texts and numbers; an array of one type is an `ndarray` that views `content`.

    Raises
    ------
    ArtifactError
        A length that exceeds what is left, a mark that XGBoost does not write, a name that is there twice, more than
        16 levels, or bytes after the end.
    """
    reader = _Reader(content)
    value = reader.value(0)
    if reader.position != len(content):
        raise forged(BAD)
    return value


class _Reader:
    def __init__(self, content: bytes) -> None:
        self._content, self.position = content, 0

    def value(self, depth: int) -> Any:
        mark = self._take(1)
        if mark in _NUMBERS:
            return self._numbers(mark, 1)[0].item()
        if mark in _CONSTANTS:
            return _CONSTANTS[mark]
        if mark == b"S":
            return self._text()
        if depth == _MAX_DEPTH or mark not in (b"{", b"["):
            raise forged(BAD)
        return self._object(depth + 1) if mark == b"{" else self._array(depth + 1)

    def _object(self, depth: int) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        while self._content[self.position : self.position + 1] != b"}":
            name = self._text()
            if name in fields:
                raise forged("a field that is there twice")
            fields[name] = self.value(depth)
        self.position += 1
        return fields

    def _array(self, depth: int) -> Any:
        mark = self._take(1)
        if mark == b"$":
            kind = self._take(1)
            if kind not in _NUMBERS or self._take(1) != b"#":
                raise forged(BAD)
            return self._numbers(kind, self._length())
        if mark != b"#" or (count := self._length()) > _MAX_ITEMS:
            raise forged(BAD)
        return [self.value(depth) for _ in range(count)]

    def _text(self) -> str:
        try:
            return self._take(self._length()).decode()
        except UnicodeDecodeError as e:
            raise forged(BAD) from e

    def _length(self) -> int:
        if self._take(1) != b"L":
            raise forged(BAD)
        return int(self._numbers(b"L", 1)[0])

    def _numbers(self, mark: bytes, count: int) -> Array:
        dtype = np.dtype(_NUMBERS[mark])
        return np.frombuffer(self._take(count * dtype.itemsize), dtype)

    def _take(self, size: int) -> bytes:
        start = self.position
        if not 0 <= size <= len(self._content) - start:
            raise forged(BAD)
        self.position += size
        return self._content[start : self.position]
