"""Types of `_lines.c`."""

from collections.abc import Sequence

from fin_pyfunc.serving.record.notes import Note

def bodies(notes: Sequence[Note], answers: Sequence[bytes], offset: float, /) -> bytes | None: ...
def chained(sha256: int, seq: int, prev: bytes, blocks: list[bytes], /) -> tuple[bytes, int, bytes]: ...
