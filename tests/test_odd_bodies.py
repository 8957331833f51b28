"""Bodies that other writers make: compressed in parts, with semicolons, no Parquet at all, or with one odd number."""

from __future__ import annotations

import gzip
import zlib

import pytest

from fin_pyfunc.model.backends.native import NativeBackend
from fin_pyfunc.model.classifier import Classifier
from fin_pyfunc.model.dispatch import Dispatch
from fin_pyfunc.model.errors import FeatureError
from fin_pyfunc.model.features import infer
from fin_pyfunc.serving.content_encoding import MAX_MEMBERS, Inflater
from fin_pyfunc.serving.content_types import CSV, PARQUET, refuse_model_in_query
from fin_pyfunc.serving.decode import open_batch_envelope, open_envelope, read_row, read_rows
from fin_pyfunc.serving.errors import RequestError
from fin_pyfunc.serving.settings import Limits
from fin_pyfunc.serving.tables import read_table
from tests.models import bars, logistic


def inflated(coding: bytes, *chunks: bytes) -> bytes:
    inflater = Inflater(coding)
    whole = b"".join(piece for chunk in chunks for piece in inflater.inflate(chunk))
    inflater.require_end()
    return whole


@pytest.mark.parametrize("size", [1, 3, 7, 10_000])
def test_members_of_gzip_are_read_one_after_the_other_however_they_arrive(size: int) -> None:
    sent = gzip.compress(b"first") + gzip.compress(b"") + gzip.compress(b"x" * 600_000) + gzip.compress(b"last")
    chunks = [sent[i : i + size] for i in range(0, len(sent), size)]
    assert inflated(b"gzip", *chunks) == b"first" + b"x" * 600_000 + b"last"


@pytest.mark.parametrize(
    ("coding", "sent"),
    [
        (b"gzip", gzip.compress(b"a") + b"junk"),
        (b"gzip", gzip.compress(b"a") + gzip.compress(b"b")[:-3]),
        (b"deflate", zlib.compress(b"a") + zlib.compress(b"b")),
        (b"gzip", gzip.compress(b"") * (MAX_MEMBERS + 1)),
    ],
    # gzip writes the time, which would be in names made of the bytes
    ids=["junk", "a member cut off", "deflate in two parts", "too many members"],
)
def test_what_follows_a_compressed_body_and_is_no_member_is_refused(coding: bytes, sent: bytes) -> None:
    with pytest.raises(RequestError, match="one whole") as caught:
        inflated(coding, sent)
    assert caught.value.status == 422


@pytest.mark.parametrize(("separator", "word"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")])
def test_a_csv_with_other_separators_says_so(separator: str, word: str) -> None:
    body = bars().head(2).to_csv(index=False, sep=separator).encode()
    with pytest.raises(RequestError, match=word):
        read_table(CSV, body, infer(bars()), Limits())


def test_a_feature_whose_name_holds_a_semicolon_is_no_other_separator() -> None:
    frame = bars()[["spread"]].rename(columns={"spread": "a;b"})
    assert len(read_table(CSV, frame.head(2).to_csv(index=False).encode(), infer(frame), Limits())) == 2


@pytest.mark.parametrize("body", [b"junk", b"", b'{"a": 1}'])
def test_what_is_no_parquet_is_called_so(body: bytes) -> None:
    with pytest.raises(RequestError, match="not a Parquet file"):
        read_table(PARQUET, body, infer(bars()), Limits())


@pytest.mark.parametrize("query", [b"return_proba=true", b"a=b&return_proba=false"])
def test_a_return_proba_that_would_not_be_read_is_refused(query: bytes) -> None:
    with pytest.raises(RequestError, match="'return_proba' in the query string"):
        refuse_model_in_query({"type": "http", "query_string": query}, "")


def model() -> Classifier:
    spec = infer(bars())
    return Classifier.of(spec, Dispatch([NativeBackend(logistic().estimator, spec)], "auto"))


def test_one_number_that_cannot_be_read_hides_no_other_problem() -> None:
    body = b'{"features": {"bidPrice": 1e400, "askPrice": "x", "spread": null, "return_1": 0}}'
    with pytest.raises(FeatureError) as caught:
        read_row(open_envelope(body), model(), 100)
    found = {problem.feature: problem.problem for problem in caught.value.problems}
    assert found["bidPrice"] == "infinite or too large for float64"
    assert found.keys() == {"bidPrice", "askPrice", "spread", "order_flow_imbalance"}
    assert caught.value.total == 4


def test_problems_of_a_batch_are_in_the_rows_order() -> None:
    body = b'{"features_list": [{"bidPrice": "x"}, {"bidPrice": 1e400}, {"bidPrice": [1]}]}'
    with pytest.raises(FeatureError) as caught:
        read_rows(open_batch_envelope(body), model(), 10, 100)
    assert [p.row for p in caught.value.problems] == sorted(p.row for p in caught.value.problems)
    assert caught.value.rows == (0, 1, 2)
    named = [(p.row, p.problem) for p in caught.value.problems if p.feature == "bidPrice"]
    assert named[1] == (1, "infinite or too large for float64")
