"""Real GBP/USD minutes, where they lie beside the repository: bars, features and labels, in order of time."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from fin_pyfunc.demo.minutes import HORIZON, LOOK_BACK, features, labels

FILE = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "gbpusd_m1_2012-02.csv.gz"
#: Bars left out between training and held-out rows, so that no label of the one looks into the other.
GAP = HORIZON + LOOK_BACK


class Market(NamedTuple):
    """Features and labels (-1, 0, 1) of the earlier and of the later bars."""

    train: pd.DataFrame
    train_labels: pd.Series[int]
    later: pd.DataFrame
    later_labels: pd.Series[int]


@cache
def minutes() -> pd.DataFrame:
    """Bid and ask bars as quoted, by time; skips the test that asks where they are not there."""
    if not FILE.is_file():
        pytest.skip("the real market data is not beside this checkout (shared/data)")
    return pd.read_csv(FILE, index_col="timestamp", parse_dates=True)


@cache
def market() -> Market:
    """The first 70 % of the month to train on, and the bars after it."""
    bars = minutes()
    X, y = features(bars).iloc[LOOK_BACK:-HORIZON], labels(bars).iloc[LOOK_BACK:-HORIZON]
    split = int(len(X) * 0.7)
    return Market(X.iloc[:split], y.iloc[:split], X.iloc[split + GAP :], y.iloc[split + GAP :])


def held_out(n: int = 1000) -> pd.DataFrame:
    """Rows after training, evenly over the time, with those among them that look odd: no spread, or after a gap."""
    later = market().later
    odd = later[(later["spread"] <= 0) | (later["minutes_since_last"] > 1)].head(n // 4)
    others = later.drop(odd.index)
    even = others.iloc[np.linspace(0, len(others) - 1, n - len(odd)).astype(int)]
    return pd.concat([odd, even]).sort_index()
