"""Thrift's compact protocol, as far as Parquet's headers need it, and stricter.

pyarrow's own view of a Parquet footer ends the process where the footer is damaged (ParquetFile.metadata.row_group(0)
.column(0) lets a C++ exception go), so what must be known beforehand is read here. What is read is what Thrift reads:
fields that come twice or out of order, and numbers in more bytes than they have, which Thrift has its own ways with,
are refused.

Source: the "Thrift Compact protocol encoding" of Apache Thrift's specification.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, STRUCT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 12
_BITS = {I16: 16, I32: 32, I64: 64}
_MAX_DEPTH = 16

#: The fields of a struct by their id and type: one of another type than its definition has is not there for Thrift.
Fields = dict[tuple[int, int], Any]
#: What the lists in a struct hold, by the id of the field: a type, or the shape of structs. Generated code reads a list
#: as its definition has it, whatever type the list itself declares, so one that declares another is refused.
Shape = Mapping[int, Any]


def read_struct(data: bytes, position: int, end: int, shape: Shape) -> tuple[Fields, int]:
    """Read one struct.

    Parameters
    ----------
    data : bytes
    position : int
        Where it begins.
    end : int
        Where it must have ended.
    shape : Shape
        Of a struct in it, by the id of its field too.

    Returns
    -------
    dict, int
        Its fields, and where it ends.

    Raises
    ------
    ValueError
        It is cut off, or no struct.
    """
    reader = _Reader(data, position, min(end, len(data)))
    return reader.struct(0, shape), reader.position


class _Reader:
    """Where it is in some bytes."""

    def __init__(self, data: bytes, position: int, end: int) -> None:
        self._data, self.position, self._end = data, position, end

    def struct(self, depth: int, shape: Shape) -> Fields:
        """The fields up to the mark that ends a struct."""
        if depth > _MAX_DEPTH:
            raise ValueError("nested too deeply")
        fields: Fields = {}
        last = 0
        while head := self._byte():
            field = last + (head >> 4) if head >> 4 else self._integer(16)
            if not last < field < 1 << 15:
                raise ValueError("fields out of order")
            last, kind = field, head & 15
            fields[field, kind] = kind == TRUE if kind <= FALSE else self._value(kind, depth, shape.get(field))
        return fields

    def _value(self, kind: int, depth: int, shape: Any) -> Any:
        if kind in _BITS:
            return self._integer(_BITS[kind])
        if kind == BINARY:
            return self._octets(self._varint(31))
        if kind == STRUCT:
            return self.struct(depth + 1, shape if isinstance(shape, Mapping) else {})
        if kind == LIST and depth <= _MAX_DEPTH:  # a list in a list
            head = self._byte()
            size = head >> 4 if head >> 4 < 15 else self._varint(31)
            # an empty list may declare no type at all (fastparquet)
            if shape is not None and size and head & 15 != (STRUCT if isinstance(shape, Mapping) else shape):
                raise ValueError("a list of another type than its definition")
            return [self._value(head & 15, depth + 1, shape) for _ in range(size)]
        if kind in (TRUE, FALSE, BYTE):  # a boolean in a list
            return self._byte()
        if kind == DOUBLE:
            return self._octets(8)
        raise ValueError("a set, a map, or no type at all, which Parquet does not have")

    def _byte(self) -> int:
        position = self.position
        if position >= self._end:
            raise ValueError("cut off")
        self.position = position + 1
        return self._data[position]

    def _octets(self, length: int) -> bytes:
        start, self.position = self.position, self.position + length
        if self.position > self._end:
            raise ValueError("cut off")
        return self._data[start : self.position]

    def _varint(self, bits: int) -> int:
        value = shift = 0
        while True:
            octet = self._byte()
            value |= (octet & 127) << shift
            if octet < 128:
                break
            shift += 7
            if shift >= bits:
                break
        if octet > 127 or value >> bits:
            raise ValueError("a number of too many bits")
        return value

    def _integer(self, bits: int) -> int:
        value = self._varint(bits)
        return (value >> 1) ^ -(value & 1)
