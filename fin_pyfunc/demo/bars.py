"""A demo model on generated FX bars: seeded, with a signal that a classifier can find."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from sklearn.ensemble import RandomForestClassifier

#: What the model is trained on, in the order of the columns.
FEATURES = (
    "bidPrice",
    "askPrice",
    "spread",
    "return_1",
    "return_5",
    "order_flow_imbalance",
    "volatility_20",
    "momentum_20",
)
IDENTIFIER = "bar_id"
LABEL = "label"
FIRST_BAR_ID = 12345

#: Bars that a label looks ahead.
HORIZON = 5
#: Bars that a rolling feature looks back.
WINDOW = 20
#: Smallest price step of EURUSD here.
TICK = 1e-5
START_PRICE = 1.10

IMBALANCE_PERSISTENCE = 0.9
#: Drift of one bar at an imbalance of 1, and the noise of one bar, both as log returns.
IMPACT = 6e-5
NOISE = 5e-5
#: Pull of the log price to its start, a bar; keeps a long series near 1.10.
REVERSION = 1e-3

TREES_A_STEP = 10


def make_bars(n: int = 6000, seed: int = 7) -> pd.DataFrame:
    """Generate bars of EURUSD.

    Order flow imbalance is a squashed AR(1) process and moves the mid price of the next bar, linearly, as Cont, Kukanov
    and Stoikov (2014) found for the best quotes; the rest of a return is noise whose size clusters in time. A bar
    knows its own imbalance but not the noise to come, so a classifier can do better than the base rate, but not well.

    Parameters
    ----------
    n : int, default 6000
        Number of bars.
    seed : int, default 7
        Seed of the generator; the same seed gives the same bars.

    Returns
    -------
    pandas.DataFrame of shape (n, 10)
        One row a bar, oldest first, without missing values:

        - ``bar_id`` (int64): 12345 and up.
        - ``bidPrice``, ``askPrice`` (float64): best quotes, USD for 1 EUR, in steps of 1e-5; ask above bid.
        - ``spread`` (float64): ask minus bid, in USD.
        - ``return_1``, ``return_5`` (float64): log return of the mid price over 1 and 5 bars.
        - ``order_flow_imbalance`` (float64): net signed volume at the best quotes over the total, in [-1, 1]
          (Cont, Kukanov and Stoikov, 2014, scaled by volume).
        - ``volatility_20`` (float64): standard deviation of `return_1` over 20 bars.
        - ``momentum_20`` (float64): log return of the mid price over 20 bars.
        - ``label`` (int64): -1, 0 or 1; the sign of the log return over the next 5 bars where it is larger than the
          mean relative spread, else 0 (fixed-time-horizon labelling, López de Prado, 2018, section 3.2).

    Raises
    ------
    ValueError
        If `n` is below 1.

    References
    ----------
    Cont, R., Kukanov, A. and Stoikov, S. (2014). The price impact of order book events. Journal of Financial
    Econometrics 12(1), 47-88.

    López de Prado, M. (2018). Advances in Financial Machine Learning. Wiley.
    """
    import numpy as np
    import pandas as pd

    if n < 1:
        raise ValueError("The number of bars is below 1; ask for at least one bar.")
    rng = np.random.default_rng(seed)
    total = WINDOW + n + HORIZON
    latent = _ar1(rng.standard_normal(total), IMBALANCE_PERSISTENCE)
    imbalance = np.round(np.tanh(latent), 4)
    turbulence = np.exp(0.35 * _ar1(rng.standard_normal(total), 0.98))
    shocks = IMPACT * np.concatenate([[0.0], imbalance[:-1]]) + NOISE * turbulence * rng.standard_normal(total)
    mid = START_PRICE * np.exp(_decaying_sum(shocks, 1.0 - REVERSION))
    ticks = 2 + rng.poisson(5 * turbulence)
    bid_ticks = np.round(mid / TICK - ticks / 2).astype(np.int64)
    bid, ask = np.round(bid_ticks * TICK, 5), np.round((bid_ticks + ticks) * TICK, 5)

    log_mid = np.log((bid + ask) / 2)
    returns = np.diff(log_mid, prepend=log_mid[0])
    now = slice(WINDOW, WINDOW + n)
    at = np.arange(WINDOW, WINDOW + n)
    spread = np.round(ask - bid, 5)
    move = log_mid[at + HORIZON] - log_mid[at]
    # known in advance: of the generator, not of the sample
    threshold = (2 + 5 * np.exp(0.35**2 / 2)) * TICK / START_PRICE
    return pd.DataFrame(
        {
            IDENTIFIER: np.arange(FIRST_BAR_ID, FIRST_BAR_ID + n, dtype=np.int64),
            "bidPrice": bid[now],
            "askPrice": ask[now],
            "spread": spread[now],
            "return_1": returns[now],
            "return_5": log_mid[at] - log_mid[at - 5],
            "order_flow_imbalance": imbalance[now],
            "volatility_20": np.lib.stride_tricks.sliding_window_view(returns, WINDOW)[1 : n + 1].std(axis=1, ddof=1),
            "momentum_20": log_mid[at] - log_mid[at - WINDOW],
            LABEL: np.where(np.abs(move) > threshold, np.sign(move), 0).astype(np.int64),
        }
    )


def holdout(bars: pd.DataFrame, share: float = 0.25) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split bars by time: the last `share` of them are held out.

    Parameters
    ----------
    bars : pandas.DataFrame of shape (n, 10)
        Bars, oldest first.
    share : float, default 0.25
        Part that is held out, above 0 and below 1.

    Returns
    -------
    train, test : pandas.DataFrame
        The older and the newer bars. The 5 bars between them are in neither: their labels look into the newer ones.
    """
    cut = len(bars) - round(len(bars) * share)
    return bars.iloc[: max(cut - HORIZON, 0)], bars.iloc[cut:]


def train(
    bars: pd.DataFrame,
    n_estimators: int = 200,
    seed: int = 7,
    progress: Callable[[int], None] | None = None,
) -> RandomForestClassifier:
    """Fit a random forest to bars.

    Parameters
    ----------
    bars : pandas.DataFrame
        Bars as of `make_bars`.
    n_estimators : int, default 200
        Number of trees.
    seed : int, default 7
        ``random_state`` of the forest.
    progress : callable, optional
        Called with the number of trees just grown, after every 10 trees and at the end.

    Returns
    -------
    sklearn.ensemble.RandomForestClassifier
        Fitted on `FEATURES`, in their order; the same trees as one fit with the same `seed` grows.
    """
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(
        n_estimators=0, max_depth=8, min_samples_leaf=10, random_state=seed, warm_start=True, n_jobs=-1
    )
    X, y = bars[list(FEATURES)], bars[LABEL]
    for start in range(0, n_estimators, TREES_A_STEP):
        step = min(TREES_A_STEP, n_estimators - start)
        forest.set_params(n_estimators=start + step).fit(X, y)
        if progress is not None:
            progress(step)
    # what is logged is an ordinary forest, and one row is scored faster by one thread
    return forest.set_params(warm_start=False, n_jobs=1)


def _ar1(shocks: np.ndarray, persistence: float) -> np.ndarray:
    """Stationary AR(1) series of unit variance from unit shocks."""
    import numpy as np

    scaled = shocks * np.sqrt(1 - persistence**2)
    scaled[0] = shocks[0]
    return _decaying_sum(scaled, persistence)


def _decaying_sum(shocks: np.ndarray, persistence: float) -> np.ndarray:
    """``y[t] = persistence * y[t - 1] + shocks[t]``."""
    from scipy.signal import lfilter

    summed: np.ndarray = lfilter([1.0], [1.0, -persistence], shocks)
    return summed
