"""Plain text for a terminal: aligned tables, and values short enough to read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

#: Most pairs of a mapping that one cell of a table shows.
MAX_PAIRS = 4


def table(rows: Iterable[Sequence[Any]], indent: str = "") -> str:
    """Rows in aligned columns, two blanks apart."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(indent + line.rstrip() for line in lines)


def pairs(values: Mapping[str, Any]) -> str:
    """The first few of a mapping as name=value."""
    shown = [f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in values.items()]
    more = [f"(+{len(shown) - MAX_PAIRS})"] if len(shown) > MAX_PAIRS else []
    return " ".join([*shown[:MAX_PAIRS], *more]) or "-"
