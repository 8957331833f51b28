"""One line of the results: what was measured, once a round, and what it must reach."""

from __future__ import annotations

import math
import statistics
from typing import Any, NamedTuple


class Row(NamedTuple):
    """A figure or a ratio.

    Parameters
    ----------
    point : int
        Of the list of targets; 0 for one that is on no list.
    what : str
    unit : str
        "×" for a ratio.
    values : list of float
        One a round; empty where it could not be measured.
    at_least, at_most : float or None, default None
        What the median must reach; both None for a figure without a target.
    note : str, default ""
        What a reader has to know of it, such as why there is none.
    """

    point: int
    what: str
    unit: str
    values: list[float]
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""

    @property
    def has_target(self) -> bool:
        """Whether anything is asked of it."""
        return self.at_least is not None or self.at_most is not None

    @property
    def median(self) -> float:
        """NaN where it could not be measured."""
        return statistics.median(self.values) if self.values else math.nan

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the target; None without a target."""
        if not self.has_target:
            return None
        least = -math.inf if self.at_least is None else self.at_least
        most = math.inf if self.at_most is None else self.at_most
        return least <= self.median <= most

    @property
    def target(self) -> str:
        """The target in words."""
        if self.at_least is not None:
            return f"at least {number(self.at_least)} {self.unit}".rstrip()
        return "" if self.at_most is None else f"at most {number(self.at_most)} {self.unit}".rstrip()

    def measured(self) -> str:
        """The median, and between which values the rounds lay."""
        if not self.values:
            return "not measured"
        spread = f" ({number(min(self.values))} to {number(max(self.values))})" if len(self.values) > 1 else ""
        return f"{number(self.median)} {self.unit}".rstrip() + spread

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**self._asdict(), "median": self.median if self.values else None, "met": self.met}


def number(value: float) -> str:
    """Three significant digits, without an exponent, thousands apart."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    rounded = f"{round(value, digits):,.{digits}f}" if abs(value) < 1000 else f"{float(f'{value:.3g}'):,.0f}"
    return rounded.rstrip("0").rstrip(".") if "." in rounded else rounded


def ratios(above: list[float], below: list[float]) -> list[float]:
    """Round by round: what was measured side by side is compared side by side."""
    return [a / b for a, b in zip(above, below, strict=True)]
