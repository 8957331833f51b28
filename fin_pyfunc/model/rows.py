"""Rows of numbers and of what has codes, read in one pass: from JSON, or from dicts, to the matrix that is scored.

What this reads, `FeatureSpec.table` reads alike; what it does not, such as a text without a code, it leaves to that,
which names every problem.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from fin_pyfunc.model.feature import NUMERIC, Feature

#: JSON escapes these, and msgspec does not compare escaped names.
_ESCAPED = re.compile(r'["\\\x00-\x1f]')
#: Fewer rows than this become a matrix all at once; of more, a column or all values at a time are quicker.
_FEW = 10
Matrix = np.ndarray[Any, np.dtype[np.float64]]


class RowReader:
    """Reads rows whose features a matrix holds.

    Parameters
    ----------
    features : sequence of Feature
        In training order, each of a kind in `NUMERIC` or with codes.
    identifiers : sequence of str
    forbid : bool
        Whether a name that is neither a feature nor an identifier is refused.
    """

    def __init__(self, features: Sequence[Feature], identifiers: Sequence[str], forbid: bool) -> None:
        fields: list[Any] = []
        for i, feature in enumerate(features):
            of: Any = _type_of(feature)
            if feature.nullable:
                of = of | None
            fields.append((f"f{i}", of, None) if feature.optional else (f"f{i}", of))
        rename = {f"f{i}": feature.name for i, feature in enumerate(features)}
        known = set(rename.values())
        if forbid:  # else they are skipped as any further name is
            others = [name for name in dict.fromkeys(identifiers) if name not in known]
            fields += [(f"id{i}", Any, None) for i in range(len(others))]
            rename |= {f"id{i}": name for i, name in enumerate(others)}
        self._row = msgspec.defstruct(
            "Row", fields, rename=rename, kw_only=True, gc=False, frozen=True, forbid_unknown_fields=forbid
        )
        self._one, self._many = msgspec.json.Decoder(self._row), msgspec.json.Decoder(list[self._row])  # type: ignore[name-defined]
        must = [feature.name for feature in features if not feature.optional]
        #: colons of an object that has every feature it must have, once, and nothing else; -1 where names hold colons
        self.colons = -1 if any(":" in name for name in must) else len(must)
        self._width = len(features)
        self._has_more = len(fields) > len(features)
        self._has_nulls = any(feature.nullable for feature in features)
        #: of each feature that has them: where it is, and codes by value
        self._codes = [(i, _codes_of(f)) for i, f in enumerate(features) if f.dictionary is not None]
        #: of each number that an encoder is particular about: where it is, and what it may be
        self._known = [(i, np.array(f.known, dtype=np.float64)) for i, f in enumerate(features)
                       if f.known is not None and f.dictionary is None]  # fmt: skip
        self._integers = np.flatnonzero([feature.kind == "integer" for feature in features])

    def one(self, encoded: bytes | msgspec.Raw) -> Matrix | None:
        """One row from a JSON object, of shape (1, n_features); None where it has to be read value by value."""
        try:
            row: Any = msgspec.structs.astuple(self._one.decode(encoded))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        if self._has_more:
            row = row[: self._width]
        if self._codes and (row := self._coded(row)) is None:
            return None
        return self._checked(np.array((row,), dtype=np.float64))

    def many(self, encoded: bytes | msgspec.Raw) -> Matrix | None:
        """Rows from a JSON list of objects, of shape (n_rows, n_features); None as for `one`."""
        try:
            rows = self._many.decode(encoded)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        return self._matrix(rows)

    def convert(self, rows: Sequence[Any]) -> Matrix | None:
        """Rows from dicts, of shape (n_rows, n_features); None as for `one`."""
        try:
            converted = [msgspec.convert(row, self._row) for row in rows]
        except (msgspec.MsgspecError, RecursionError):
            return None
        matrix = self._matrix(converted)
        if matrix is None or np.isfinite(matrix).all():
            return matrix
        nulls = sum(msgspec.structs.astuple(row)[: self._width].count(None) for row in converted)
        return matrix if np.isnan(matrix).sum() == nulls else None  # JSON has neither NaN nor infinity, a dict may

    def _matrix(self, rows: Sequence[Any]) -> Matrix | None:
        values: Iterable[tuple[Any, ...]] = map(msgspec.structs.astuple, rows)
        if self._has_more:
            values = (row[: self._width] for row in values)
        if self._codes and len(rows) < _FEW:
            coded = [self._coded(row) for row in values]
            if None in coded:
                return None
            matrix = np.array(coded, dtype=np.float64).reshape(len(rows), self._width)
        elif self._codes:
            columns: list[Any] = list(zip(*values, strict=True))
            try:
                for i, codes in self._codes:
                    columns[i] = [codes[value] for value in columns[i]]
            except KeyError:
                return None
            matrix = np.empty((len(rows), self._width))
            for i, column in enumerate(columns):
                matrix[:, i] = column
        elif self._has_nulls or len(rows) < _FEW:  # NumPy reads None as NaN; and fromiter pays from some rows on
            matrix = np.array(list(values), dtype=np.float64).reshape(len(rows), self._width)
        else:
            flat = np.fromiter(chain.from_iterable(values), np.float64, len(rows) * self._width)
            matrix = flat.reshape(len(rows), self._width)
        return self._checked(matrix)

    def _coded(self, row: Sequence[Any]) -> list[Any] | None:
        """One row's values with codes in place of text; None where a text has none."""
        coded = [*row]
        for i, codes in self._codes:
            if (code := codes.get(coded[i])) is None:
                return None
            coded[i] = code
        return coded

    def _checked(self, matrix: Matrix) -> Matrix | None:
        """The matrix, if its numbers are among those that an encoder knows, and its integers whole."""
        for i, known in self._known:
            if not (np.isin(matrix[:, i], known) | np.isnan(matrix[:, i])).all():
                return None
        return matrix if not self._integers.size or self._are_whole(matrix) else None

    def _are_whole(self, matrix: Matrix) -> bool:
        """Whether the integers among the features are: 3.0 is, 3.5 is not, and null is left alone."""
        whole = matrix[:, self._integers]
        return bool(((whole == np.floor(whole)) | np.isnan(whole)).all())


def reads(features: Sequence[Feature], identifiers: Sequence[str]) -> bool:
    """Whether a `RowReader` can read rows of these features."""
    names = [*(feature.name for feature in features), *identifiers]
    if any(_ESCAPED.search(name) for name in names):
        return False
    return bool(features) and all(feature.kind in NUMERIC or feature.codes is not None for feature in features)


def _type_of(feature: Feature) -> Any:
    """What JSON may have for a feature: msgspec takes neither true for a number nor text for one."""
    if feature.kind == "boolean":
        return bool
    if feature.dictionary is None:
        return Annotated[float, _within(feature)]
    types = {bool: bool, str: str, float: int | float}  # an integer beyond 2**53 is itself and no other
    of, *others = (types[kind] for kind in sorted(feature.dictionary.kinds, key=str))
    for other in others:
        of = of | other
    return of


def _codes_of(feature: Feature) -> dict[Any, float]:
    """Codes by value, null among them where the feature may be null or be left out."""
    assert feature.dictionary is not None  # noqa: S101 - for the type checker
    return feature.dictionary.taken | ({None: np.nan} if feature.nullable or feature.optional else {})


def _within(feature: Feature) -> Meta:
    least, greatest = feature.limits
    return Meta(ge=least, le=greatest)
