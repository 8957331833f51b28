"""What every benchmark is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from benchmarks.models import Models

T = TypeVar("T")


@dataclass
class Bench:
    """The models, and how long to measure.

    Parameters
    ----------
    models : Models
    rounds : int
    seconds : float
        Length of one measurement.
    extras : tuple of str, default ()
        Servers with environments of their own: "litserve", "bentoml", "mlserver".
    latencies : dict, default {}
        Filled by the benchmark of single rows, for the plot: connections, contender, percentile to ms.
    left_out : dict of str to str, default {}
        Filled with what could not be measured, and why.
    """

    models: Models
    rounds: int
    seconds: float
    extras: tuple[str, ...] = ()
    latencies: dict[int, dict[str, dict[float, float]]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def turn(items: Sequence[T], i: int) -> list[T]:
    """The items in the order of round `i`: forwards, then backwards, so that none always goes first."""
    return list(items) if i % 2 == 0 else list(items[::-1])
