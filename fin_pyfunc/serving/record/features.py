"""The features of a record: as they were sent, or a keyed digest of each row, by which it is known again."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from fin_pyfunc.model.errors import FinPyfuncError
from fin_pyfunc.model.feature import NUMERIC, Feature
from fin_pyfunc.model.features import FeatureSpec, Table
from fin_pyfunc.serving.json_values import json_values

#: A key shorter than this could be guessed, and with it the features.
MIN_KEY_BYTES = 32
_encode = msgspec.json.Encoder().encode
_rows_of = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
#: Line breaks, which JSON has between tokens only.
_BREAKS = bytes.maketrans(b"\r\n", b"  ")


class DigestKeyError(FinPyfuncError):
    """The key of the digests cannot be read, or is not one."""


class Digests:
    """HMAC-SHA256 of rows: nobody without the key can tell features from it, nor try some out.

    Parameters
    ----------
    key : bytes
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        #: tells keys apart, and nothing of them
        self.key_id = hmac.digest(key, b"fin_pyfunc record key", "sha256").hex()[:16]

    @classmethod
    def read(cls, path: Path) -> Digests:
        """Take the key from a file: all its bytes, but for blanks and line breaks at its end.

        Raises
        ------
        DigestKeyError
        """
        try:
            key = path.read_bytes().rstrip()
        except OSError as e:
            raise DigestKeyError(
                f"The key file {path} of the record cannot be read ({(e.strerror or str(e)).lower()}): make one with "
                "'openssl rand -hex 32'."
            ) from None
        if len(key) < MIN_KEY_BYTES:
            raise DigestKeyError(
                f"The key file {path} of the record holds fewer than {MIN_KEY_BYTES} bytes: make one with "
                "'openssl rand -hex 32'."
            )
        return cls(key)

    def of(self, table: Table, spec: FeatureSpec | None) -> list[str]:
        """One digest a row, in hexadecimal, of `canonical`."""
        return [hmac.digest(self._key, row, hashlib.sha256).hex() for row in canonical(table, spec)]


def canonical(table: Table, spec: FeatureSpec | None) -> list[bytes]:
    """What a row's digest is made of: the JSON list of the values as scored, in the model's order, without blanks.

    Of a model that says nothing of its features: the JSON object with its keys sorted.
    """
    if isinstance(table, np.ndarray) and spec is not None and spec.is_coded:
        columns = [_values(table[:, i], feature) for i, feature in enumerate(spec.features)]
        return [_encode(row) for row in zip(*columns, strict=True)]
    if isinstance(table, np.ndarray):
        return [_encode(row) for row in table.tolist()]  # NaN is null
    names = list(table.columns) if spec is not None else sorted(table.columns, key=str)
    rows = zip(*(json_values(table[name]) for name in names), strict=True)
    if spec is not None:
        return [_encode(row) for row in rows]
    return [_encode({str(name): value for name, value in zip(names, row, strict=True)}) for row in rows]


def as_sent(sent: msgspec.Raw | bytes) -> bytes:
    """JSON that a client sent, on one line, and in UTF-8."""
    raw = bytes(sent)
    if b"\n" in raw or b"\r" in raw:
        raw = raw.translate(_BREAKS)
    return raw if raw.isascii() else raw.decode(errors="replace").encode()


def as_rows(table: Table, spec: FeatureSpec | None, identifiers: Mapping[str, Sequence[Any]] | None) -> bytes:
    """Rows that came as a table, as a client would have sent them: a JSON list of objects."""
    columns: dict[str, Sequence[Any]] = dict(identifiers or {})
    table = table if spec is None else spec.decode(table)
    if isinstance(table, pd.DataFrame):
        columns |= {str(name): json_values(table[name]) for name in table.columns}
    else:
        names = spec.names if spec is not None else [str(i) for i in range(table.shape[1])]
        kinds = {} if spec is None else {feature.name: feature.kind for feature in spec.features}
        for i, name in enumerate(names):
            held = table[:, i]
            columns[name] = json_values(held == 1 if kinds.get(name) == "boolean" and _is_whole(held) else held)
    names = list(columns)
    return _encode([dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)])


def identifiers_of(sent: msgspec.Raw | bytes, names: Sequence[str], is_one: bool) -> bytes:
    """The identifiers of rows that a client sent, as a JSON list of objects."""
    raw = as_sent(sent)
    rows = _rows_of(b"[%b]" % raw if is_one else raw)
    return _encode([{name: row[name] for name in names if name in row} for row in rows])


def _values(held: np.ndarray[Any, Any], feature: Feature) -> Sequence[Any]:
    """A column of a matrix with codes, as `json_values` gives that of the DataFrame that it stands for."""
    if feature.dictionary is not None:
        return json_values(feature.dictionary.values(held))
    if isinstance(feature.pandas_dtype, np.dtype) and feature.kind in NUMERIC:
        numbers: list[Any] = held.astype(feature.pandas_dtype).tolist()  # NaN is null
        return numbers
    return json_values(feature.restore(held))


def _is_whole(column: np.ndarray[Any, Any]) -> bool:
    return bool(((column == 0) | (column == 1)).all())
