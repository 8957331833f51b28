"""Types of `_lines.c`."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from fin_pyfunc.serving.logs.pieces import Around
from fin_pyfunc.serving.record.notes import Note

K = TypeVar("K")

def bodies(notes: Sequence[Note], answers: Sequence[bytes], offset: float, /) -> bytes | None: ...
def chained(sha256: int, seq: int, prev: bytes, blocks: list[bytes], /) -> tuple[bytes, int, bytes]: ...
def pieces(
    requests: list[tuple[float, str, float, K]],
    known: dict[K, Around | None],
    make: Callable[[K], Around | None],
    most: int,
    /,
) -> list[bytes]: ...
