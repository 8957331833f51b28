"""Real minute bars, as a broker quotes them, as rows for a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

#: Bars that a label looks ahead, and the longest that a feature looks back.
HORIZON, LOOK_BACK = 5, 15


def features(bars: pd.DataFrame) -> pd.DataFrame:
    """What a model sees of each bar; nothing of it lies in the future.

    Parameters
    ----------
    bars : DataFrame of shape (n, 8)
        By time: ``bid_open``, ``bid_high``, ``bid_low``, ``bid_close`` and the same of ``ask``, in quote currency.

    Returns
    -------
    DataFrame of shape (n, 12)
        NaN in the first `LOOK_BACK` rows.
    """
    import numpy as np
    import pandas as pd

    mid = (bars["bid_close"] + bars["ask_close"]) / 2
    step = bars.index.to_series().diff().dt.total_seconds() / 60
    columns = {
        "bidPrice": bars["bid_close"],
        "askPrice": bars["ask_close"],
        "spread": bars["ask_close"] - bars["bid_close"],
        **{f"return_{n}": np.log(mid / mid.shift(n)) for n in (1, 5, 15)},
        "range": bars["ask_high"] - bars["bid_low"],
        "volatility_15": np.log(mid).diff().rolling(LOOK_BACK).std(),
        "momentum_15": mid - mid.rolling(LOOK_BACK).mean(),
        "minutes_since_last": step,
        "hour": bars.index.to_series().dt.hour,
        "is_after_gap": step > 1,
    }
    return pd.DataFrame(columns)


def labels(bars: pd.DataFrame) -> pd.Series[int]:
    """1 where the mid price rises by more than the spread within the horizon, -1 where it falls by more, else 0."""
    mid = (bars["bid_close"] + bars["ask_close"]) / 2
    change = mid.shift(-HORIZON) - mid
    spread = (bars["ask_close"] - bars["bid_close"]).abs()
    return (change > spread).astype(int) - (change < -spread).astype(int)


def read_minutes(path: str | Path) -> pd.DataFrame:
    """Read quoted minutes as `make_bars` gives its own: an identifier, features, and a label.

    Parameters
    ----------
    path : str or Path
        CSV, may be compressed: ``timestamp`` and the columns that `features` takes.

    Returns
    -------
    DataFrame of shape (n, 14)
        ``bar_id`` (int64, minutes since 1970, UTC), the features, and ``label`` (int64): -1, 0 or 1. Oldest first,
        without the rows that have no past or no future.
    """
    import pandas as pd

    bars = pd.read_csv(path, index_col="timestamp", parse_dates=True)
    known = features(bars).assign(label=labels(bars)).iloc[LOOK_BACK:-HORIZON]
    since = pd.to_datetime(known.index, utc=True) - pd.Timestamp(0, tz="UTC")
    known.insert(0, "bar_id", since // pd.Timedelta("1min"))
    return known.reset_index(drop=True)
