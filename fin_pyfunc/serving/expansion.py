"""How much memory a compressed table takes, read off its own headers before any of it is unpacked.

Neither Arrow nor Parquet bounds what a body expands to (32 MiB of zstd can hold a tebibyte of zeros), and pyarrow has
no limit to set. Both write the unpacked size of every block before it, and pyarrow holds a block to that size.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fin_pyfunc.serving.thrift import BINARY, I32, I64, LIST, STRUCT, Shape, read_struct

#: Bytes of a Parquet file's footer: some ten thousand columns times row groups, and a second or two to read.
MAX_FOOTER = 4 << 20
#: Pages of a Parquet file that are looked at, at about 20 µs each.
MAX_PAGES = 100_000
#: `MessageHeader` and `MetadataVersion` of Arrow's Schema.fbs and Message.fbs.
_DICTIONARY_BATCH, _RECORD_BATCH, _V5 = 2, 3, 4
#: Fields of parquet.thrift: `PageHeader`,
_UNCOMPRESSED_SIZE, _COMPRESSED_SIZE = (2, I32), (3, I32)
#: `FileMetaData`,
_ROWS, _ROW_GROUPS = (3, I64), (4, LIST)
#: `RowGroup` and `ColumnChunk`,
_COLUMNS, _GROUP_ROWS, _METADATA = (1, LIST), (3, I64), (3, STRUCT)
#: and `ColumnMetaData`.
_VALUES, _COMPRESSED, _DATA_PAGE, _DICTIONARY_PAGE = (5, I64), (7, I64), (9, I64), (11, I64)
#: Their lists, down to `SizeStatistics` and `GeospatialStatistics`.
_COLUMN: Shape = {2: I32, 3: BINARY, 8: {}, 13: {}, 16: {2: I64, 3: I64}, 17: {2: I32}}
_FILE: Shape = {2: {}, 4: {1: {3: _COLUMN}, 4: {}}, 5: {}, 7: {}}


class TooLargeError(Exception):
    """The table would take more memory than it may."""


class NotParquetError(Exception):
    """The body does not begin as Parquet does."""


def check_stream(body: bytes, limit: int) -> None:
    """Refuse an Arrow IPC stream whose compressed buffers unpack to more than `limit` bytes in all.

    Uncompressed ones are slices of the body itself.

    Raises
    ------
    TooLargeError
    ValueError
        The stream is damaged, or of a version before Arrow 1.0, which hid compression elsewhere.
    """
    import pyarrow as pa

    total = 0
    for message in pa.ipc.MessageReader.open_stream(pa.BufferReader(body)):
        total += _unpacked(memoryview(message.metadata), message.body)
        if total > limit:
            raise TooLargeError


def check_footer(body: bytes) -> None:
    """Refuse what is no Parquet file, and one with so large a footer that to read it takes seconds.

    Raises
    ------
    NotParquetError
    TooLargeError
    """
    if not body.startswith((b"PAR1", b"PARE")):  # the second is encrypted
        raise NotParquetError
    if body.endswith(b"PAR1") and int.from_bytes(body[-8:-4], "little") > MAX_FOOTER:
        raise TooLargeError


def check_pages(body: bytes, columns: Sequence[int], n_columns: int, limit: int) -> None:
    """Refuse a Parquet file whose pages unpack to more than `limit` bytes in all, or whose parts do not fit together.

    Parameters
    ----------
    body : bytes
    columns : sequence of int
        Which are going to be read, none of them nested, by their position.
    n_columns : int
        How many there are.
    limit : int

    Raises
    ------
    TooLargeError
    ValueError
        It is damaged.
    """
    total = count = 0
    for start, end in _chunks(body, columns, n_columns):
        position = start
        while position < end:
            header, position = read_struct(body, position, end, {})
            unpacked, packed = header.get(_UNCOMPRESSED_SIZE, -1), header.get(_COMPRESSED_SIZE, -1)
            if min(unpacked, packed) < 0:
                raise ValueError("a page without a size")
            total, count, position = total + unpacked, count + 1, position + packed
            if total > limit or count > MAX_PAGES:
                raise TooLargeError
        if position != end:
            raise ValueError("a page does not end with its column")


def _chunks(body: bytes, columns: Sequence[int], n_columns: int) -> Iterator[tuple[int, int]]:
    """Where the file has its parts of these columns."""
    check_footer(body)
    footer = int.from_bytes(body[-8:-4], "little")
    if len(body) < 12 + footer:
        raise ValueError("cut off")
    last = len(body) - 8 - footer
    metadata, _ = read_struct(body, last, len(body) - 8, _FILE)
    n_rows = 0
    for group in metadata[_ROW_GROUPS]:
        n_rows += group[_GROUP_ROWS]
        if len(group[_COLUMNS]) != n_columns:
            raise ValueError("a row group with other columns than the file")
        for i in columns:
            column = group[_COLUMNS][i][_METADATA]
            if column[_VALUES] != group[_GROUP_ROWS]:
                raise ValueError("a column with other rows than its row group")
            start = column[_DATA_PAGE]
            if 0 < column.get(_DICTIONARY_PAGE, 0) < start:
                start = column[_DICTIONARY_PAGE]
            end = start + column[_COMPRESSED]
            if not 0 < start <= end <= last:
                raise ValueError("a column outside the file")
            yield start, end
    if n_rows != metadata[_ROWS]:
        raise ValueError("other rows than the file says")


def _unpacked(metadata: memoryview, body: Any) -> int:
    """Bytes that the compressed buffers of one message unpack to; pyarrow has verified the flatbuffer's offsets."""
    (root,) = struct.unpack_from("<I", metadata)
    kind = _at(metadata, root, 1)
    header = _table(metadata, root, 2)
    if kind is None or header is None or metadata[kind] not in (_DICTIONARY_BATCH, _RECORD_BATCH):
        return 0
    version = _at(metadata, root, 0)
    if version is None or struct.unpack_from("<h", metadata, version)[0] < _V5:
        raise ValueError("written before Arrow 1.0")
    batch = header if metadata[kind] == _RECORD_BATCH else _table(metadata, header, 1)
    if batch is None or _at(metadata, batch, 3) is None:
        return 0  # no compression
    vector = _table(metadata, batch, 2)
    if vector is None or body is None:
        return 0
    (n,) = struct.unpack_from("<I", metadata, vector)
    spans = np.frombuffer(metadata, "<i8", 2 * n, vector + 4).reshape(n, 2)  # offset and length of each buffer
    offsets, lengths = spans[spans[:, 1] != 0].T
    if ((lengths < 8) | (offsets < 0) | (offsets > body.size - 8)).any():
        raise ValueError("a buffer lies outside its message")
    octets = np.frombuffer(body, np.uint8) if body.size else np.empty(0, np.uint8)
    prefixes = octets[offsets[:, None] + np.arange(8)].view("<i8")[:, 0]  # -1: this one is not compressed
    if (prefixes < -1).any():
        raise ValueError("a buffer of negative size")
    return sum(prefixes[prefixes > 0].tolist())


def _at(buffer: memoryview, table: int, slot: int) -> int | None:
    """Where a field of a flatbuffer's table is, if it is there."""
    vtable = table - int(struct.unpack_from("<i", buffer, table)[0])
    entry = 4 + 2 * slot
    if entry >= struct.unpack_from("<H", buffer, vtable)[0]:
        return None
    (offset,) = struct.unpack_from("<H", buffer, vtable + entry)
    return table + int(offset) if offset else None


def _table(buffer: memoryview, table: int, slot: int) -> int | None:
    """Where the table or vector that a field refers to is."""
    field = _at(buffer, table, slot)
    return None if field is None else field + int(struct.unpack_from("<I", buffer, field)[0])
