"""A misspelt feature is named beside the one that it probably means: in every form of a request, and at little cost."""

from __future__ import annotations

import time
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from fin_pyfunc.model.errors import FeatureError
from fin_pyfunc.model.features import infer
from fin_pyfunc.model.near_names import MAX_NAMES, near_names
from fin_pyfunc.serving.errors import answer
from fin_pyfunc.serving.tables import read_table
from tests.models import bars
from tests.tables import LIMITS, WRITERS

NAMES = ["bidPrice", "askPrice", "spread", "return_1", "order_flow_imbalance", "volatility_20", "ts", "Größe"]


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("bidprice", "bidPrice"),
        ("bid_price", "bidPrice"),
        ("BID PRICE", "bidPrice"),
        ("bidPrise", "bidPrice"),
        ("bidPrce", "bidPrice"),
        ("bidPriice", "bidPrice"),
        ("bidPirce", "bidPrice"),
        ("orderFlowImbalance", "order_flow_imbalance"),
        ("order-flow-imbalence", "order_flow_imbalance"),
        ("return1", "return_1"),
        ("volatility20", "volatility_20"),
        ("TS", "ts"),
        ("grösse", "Größe"),
        ("return_5", None),  # another feature of this family
        ("volatility_50", None),
        ("tz", None),  # too short to say
        ("price", None),
        ("midPrice2", None),
        ("", None),
        ("___", None),
        ("bidPrice" * 20, None),
    ],
)
def test_a_name_is_near_to_one_that_differs_in_case_separators_or_a_letter(sent: str, meant: str | None) -> None:
    assert near_names(NAMES, [sent]) == ({} if meant is None else {sent: meant})


def test_each_name_is_matched_once_and_what_is_no_text_is_skipped() -> None:
    assert near_names(["bidPrice"], [1, None, ("bidPrise",), "bidPrise", "bid_price"]) == {"bidPrise": "bidPrice"}


@pytest.mark.parametrize("n_letters", [8, 60, 10_000])
def test_thousands_of_keys_cost_milliseconds(n_letters: int) -> None:
    missing = [f"{'a' * n_letters}{chr(97 + i % 26)}" for i in range(5000)]
    sent = [f"{'a' * n_letters}{chr(97 + i % 26)}b" for i in range(5000)]
    began = time.process_time()
    assert len(near_names(missing, sent)) <= MAX_NAMES
    assert time.process_time() - began < 0.2  # 10 ms here


ROWS: dict[str, dict[str, Any]] = {
    "one misspelt": {("bidprice" if name == "bidPrice" else name): value for name, value in bars().iloc[0].items()},
    "nothing else sent": {"bidprice": 1.1},
}


@pytest.mark.parametrize("extra", ["ignore", "forbid"])
@pytest.mark.parametrize("row", ROWS.values(), ids=list(ROWS))
@pytest.mark.parametrize("sent_as", ["rows", "frame", *WRITERS])
def test_the_sentence_asks_whether_the_near_name_was_meant(sent_as: str, row: dict[str, Any], extra: Any) -> None:
    spec = infer(bars(), extra=extra)
    frame = pd.DataFrame([row])
    if sent_as in WRITERS:
        frame = read_table(sent_as, WRITERS[sent_as](pa.Table.from_pylist([row])), spec, LIMITS)
    with pytest.raises(FeatureError) as refused:
        spec.table([row]) if sent_as == "rows" else spec.check(frame)
    said = answer(refused.value, "id")
    assert said.body.detail.startswith("Refused: 'bidprice' is not a feature of the model (did you mean 'bidPrice'?)")
    assert said.body.detail.endswith("GET /models/info?model_uri=… shows what the model takes.")
    assert "'bidPrice' is missing" not in said.body.detail
    assert "1.1" not in said.body.detail
    problem = next(p for p in said.body.errors if p.feature == "bidPrice")  # type: ignore[union-attr]
    assert (problem.problem, problem.sent) == ("missing", "bidprice")


def test_a_later_row_of_a_batch_is_told_too_and_no_key_that_is_not_near_is_repeated() -> None:
    good = dict(bars().iloc[0])
    bad = {("ask_price" if name == "askPrice" else name): value for name, value in good.items()} | {"SECRET": 1.0}
    with pytest.raises(FeatureError, match="row 2: 'ask_price' is not a feature") as refused:
        infer(bars()).table([good, good, bad])
    assert "SECRET" not in str(refused.value)
    assert str(refused.value).endswith("'fin-pyfunc inspect' shows what the model takes.")
