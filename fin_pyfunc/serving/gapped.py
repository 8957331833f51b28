"""JSON objects of which most is always the same: encoded once, with gaps for what differs."""

from __future__ import annotations

from typing import Any

import msgspec

from fin_pyfunc.serving.http import encode

_MARK = b"\0"  # which JSON writes in no text
#: The value of a field that differs from object to object.
GAP: Any = msgspec.Raw(_MARK)


def parts(struct: msgspec.Struct) -> list[bytes]:
    """An object as JSON, cut at its gaps: one part more than there are gaps, to be joined by JSON values."""
    return encode(struct).split(_MARK)
