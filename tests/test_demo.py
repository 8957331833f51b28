"""The demo's bars make sense, carry a signal, and the forest grown in steps is an ordinary forest."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier

from fin_pyfunc.demo import bars as demo

COLUMNS = ["bar_id", *demo.FEATURES, "label"]
SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def bars() -> pd.DataFrame:
    return demo.make_bars()


@pytest.fixture(scope="module")
def forest(bars: pd.DataFrame) -> RandomForestClassifier:
    return demo.train(demo.holdout(bars)[0])


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 400), seed=SEEDS)
def test_quotes_are_on_the_price_grid_and_never_cross(n: int, seed: int) -> None:
    bars = demo.make_bars(n, seed)
    assert list(bars.columns) == COLUMNS
    assert len(bars) == n
    assert not bars.isna().any(axis=None)
    assert list(bars["bar_id"]) == list(range(12345, 12345 + n))
    assert (bars["askPrice"] > bars["bidPrice"]).all()
    for column in ("bidPrice", "askPrice", "spread"):
        assert (bars[column] == bars[column].round(5)).all()
    assert (bars["spread"] == (bars["askPrice"] - bars["bidPrice"]).round(5)).all()
    assert bars["bidPrice"].between(1.0, 1.2).all()
    assert bars["order_flow_imbalance"].between(-1, 1).all()
    assert set(bars["label"]) <= {-1, 0, 1}
    assert bars["label"].dtype == bars["bar_id"].dtype == np.int64


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_the_same_seed_gives_the_same_bars_and_another_does_not(seed: int) -> None:
    pd.testing.assert_frame_equal(demo.make_bars(50, seed), demo.make_bars(50, seed))
    assert not demo.make_bars(50, seed).equals(demo.make_bars(50, seed + 1))


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_each_class_is_at_least_15_percent_whatever_the_seed(seed: int) -> None:
    shares = demo.make_bars(seed=seed)["label"].value_counts(normalize=True)
    assert set(shares.index) == {-1, 0, 1}
    assert shares.min() >= 0.15


def test_features_follow_from_the_quotes_as_documented(bars: pd.DataFrame) -> None:
    log_mid = np.log((bars["bidPrice"] + bars["askPrice"]) / 2)
    expected = pd.DataFrame(
        {
            "return_1": log_mid.diff(),
            "return_5": log_mid.diff(5),
            "momentum_20": log_mid.diff(20),
            "volatility_20": log_mid.diff().rolling(20).std(),
        }
    ).iloc[20:]
    pd.testing.assert_frame_equal(bars.loc[20:, list(expected.columns)], expected, rtol=1e-9, atol=1e-12)


def test_the_label_is_the_sign_of_the_move_ahead_where_it_beats_the_spread(bars: pd.DataFrame) -> None:
    log_mid = np.log((bars["bidPrice"] + bars["askPrice"]) / 2)
    move = (log_mid.shift(-5) - log_mid).iloc[:-5]
    label = bars["label"].iloc[:-5]
    moved = label != 0
    assert (np.sign(move[moved]) == label[moved]).all()
    threshold = move[~moved].abs().max()
    assert move[moved].abs().min() > threshold
    assert threshold == pytest.approx((bars["spread"] / bars["askPrice"]).mean(), rel=0.2)


def test_imbalance_persists_and_leads_the_next_return(bars: pd.DataFrame) -> None:
    imbalance, ahead = bars["order_flow_imbalance"], bars["return_1"].shift(-1)
    assert imbalance.autocorr(1) > 0.8
    assert imbalance.corr(ahead) > 0.3


def test_no_bars_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one bar"):
        demo.make_bars(0)


def test_holdout_is_the_newest_quarter_and_no_training_label_looks_into_it(bars: pd.DataFrame) -> None:
    train, test = demo.holdout(bars)
    assert len(test) == len(bars) // 4
    assert test["bar_id"].iloc[-1] == bars["bar_id"].iloc[-1]
    assert test["bar_id"].iloc[0] - train["bar_id"].iloc[-1] == demo.HORIZON + 1
    assert train["bar_id"].is_monotonic_increasing


def test_the_forest_beats_the_base_rate_and_is_not_an_oracle(
    bars: pd.DataFrame, forest: RandomForestClassifier
) -> None:
    test = demo.holdout(bars)[1]
    accuracy = forest.score(test[list(demo.FEATURES)], test["label"])
    base_rate = test["label"].value_counts(normalize=True).max()
    assert base_rate + 0.15 < accuracy < 0.85


def test_every_confidence_level_occurs(bars: pd.DataFrame, forest: RandomForestClassifier) -> None:
    test = demo.holdout(bars)[1]
    assert len(forest.estimators_) == 200
    best = forest.predict_proba(test[list(demo.FEATURES)]).max(axis=1)
    for level in (best >= 0.8, (best >= 0.6) & (best < 0.8), best < 0.6):
        assert level.mean() > 0.05


@pytest.mark.parametrize("n_estimators", [3, 10, 25])
def test_a_forest_grown_in_steps_is_the_forest_of_one_fit(bars: pd.DataFrame, n_estimators: int) -> None:
    grown: list[int] = []
    stepped = demo.train(bars, n_estimators=n_estimators, seed=3, progress=grown.append)
    whole = RandomForestClassifier(**stepped.get_params()).fit(bars[list(demo.FEATURES)], bars["label"])
    assert sum(grown) == n_estimators
    assert max(grown) <= 10
    assert stepped.warm_start is False
    assert stepped.n_estimators == len(stepped.estimators_) == n_estimators
    for one, other in zip(stepped.estimators_, whole.estimators_, strict=True):
        assert one.tree_.__getstate__()["nodes"].tobytes() == other.tree_.__getstate__()["nodes"].tobytes()
        np.testing.assert_array_equal(one.tree_.value, other.tree_.value)
    X = bars[list(demo.FEATURES)]
    np.testing.assert_array_equal(stepped.predict_proba(X), whole.predict_proba(X))
