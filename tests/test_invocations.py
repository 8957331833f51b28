"""`/invocations` answers well-formed bodies byte for byte as MLflow does, and refuses what pandas would repair."""

from __future__ import annotations

import csv
import io
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import mlflow
import numpy as np
import pandas as pd
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import Array
from sklearn.linear_model import LogisticRegression

import fin_pyfunc
from tests.models import bars, labels
from tests.operations.exposition import scrape, total, wait_for
from tests.scoring_pair import CSV, JSON, PARQUET, Pair, pair

BLANK = " \t"


class Mirror(mlflow.pyfunc.PythonModel):  # type: ignore[misc] # mlflow ships no types
    """Answers with what it was given: one text a row, with index, names, values and their types."""

    def predict(self, context: Any, model_input: Any, params: Any = None) -> list[str]:
        time.sleep((params or {}).get("k", 0) / 1000)
        if not isinstance(model_input, pd.DataFrame):
            return [f"{type(model_input)} {model_input!r} {params}"]
        return [
            f"{index!r} {[(name, type(value).__name__, repr(value)) for name, value in row.items()]} {params}"
            for index, row in model_input.iterrows()
        ]


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A model without a signature."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    folder = tmp_path_factory.mktemp("mirror")
    mlflow.pyfunc.save_model(folder / "model", python_model=Mirror())
    yield from pair(folder)


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A model with a signature, and with inference parameters."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    folder = tmp_path_factory.mktemp("signed")
    columns = Schema(
        [ColSpec(DataType.double, "x"), ColSpec(DataType.string, "s", required=False), ColSpec(DataType.long, "n")]
    )
    params = ParamSchema([ParamSpec("k", DataType.long, 1)])
    signature = mlflow.models.ModelSignature(inputs=columns, params=params)
    mlflow.pyfunc.save_model(folder / "model", python_model=Mirror(), signature=signature)
    yield from pair(folder)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("own")
    rows = bars().assign(bar_id=range(len(bars())))
    estimator = LogisticRegression().fit(bars(), labels(-1, 0, 1))
    fin_pyfunc.save_model(estimator, rows, folder / "model", identifiers=["bar_id"])
    yield from pair(folder)


def refused(answered: requests.Response, status: int = 422) -> str:
    assert answered.status_code == status, answered.text
    detail: str = answered.json()["detail"]
    assert "Traceback" not in detail
    return detail


# --- CSV --------------------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    ["", "1", "-2.5", "1e3", "007", "nan", "NA", "null", "inf", "-Infinity", "1,5", "1.000,5", "1 000", "#note",
     "true", 'say "hi"', '"', "two\nlines", "two\r\nlines", "cr\rhere", " padded ", "\t", "é", "\U0001f4c8",
     "2026-01-01", ";", "'", "\\", "\\N", "None", "9" * 40, "0x10", "1_000", "=1+1", "\ufeff"]
)  # fmt: skip
CELLS = WORDS | st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=8)
NAMES = st.sampled_from(["x", "n", "s", "a b", 'q"q', "new\nline", "c,d", "é", " x", "Unnamed: 7", "1", "x.1", ""])


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[str]]]:
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    width = len(names)
    return names, draw(st.lists(st.lists(CELLS, min_size=width, max_size=width), max_size=6))


def written(rows: list[list[str]], terminator: str, quoting: Any) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=terminator, quoting=quoting).writerows(rows)
    return text.getvalue()


#: csv of Python 3.11 leaves a carriage return without quotes where lines end in a line feed.
STYLES = st.sampled_from([("\r\n", csv.QUOTE_MINIMAL), ("\r\n", csv.QUOTE_ALL), ("\n", csv.QUOTE_ALL)])


@settings(max_examples=150)
@given(table=tables(), style=STYLES, mark=st.sampled_from(["", "\ufeff"]), end=st.booleans())
def test_a_csv_body_as_python_writes_it_is_answered_as_mlflow_answers_it(
    mirror: Pair, table: tuple[list[str], list[list[str]]], style: tuple[str, Any], mark: str, end: bool
) -> None:
    names, rows = table
    text = mark + written([names, *rows], *style)
    body = (text if end else text.removesuffix(style[0])).encode()
    if len(names) == 1 and any(not row[0].strip(BLANK) for row in [names, *rows]):
        answered = mirror.ask(body, CSV)  # a blank line, which pandas leaves out
        assert answered.status_code == 422 or answered.content == mirror.ask_mlflow(body, CSV).content
        return
    if "\r" in text.replace("\r\n", ""):  # a lone carriage return in a cell: some of these pandas misreads
        assert mirror.ask(body, CSV).content == mirror.ask_mlflow(body, CSV).content or any(
            each in text for each in ("\r ", "\r\t", "\r\r,", "\n\r,")
        )
        return
    answered = mirror.require_same(body, CSV)
    if rows:
        assert len(answered.json()["predictions"]) == len(rows)


@settings(max_examples=400)
@given(text=st.lists(st.sampled_from([*'ab12,,,";', "\n", "\n", "\r\n", "\r", " ", "\t", "'", "\\"]), max_size=24))
def test_whatever_csv_is_answered_has_the_columns_and_rows_that_it_says(mirror: Pair, text: list[str]) -> None:
    body = "a,b\n" + "".join(text)
    for sent in (body, "".join(text), body.replace("\n", "\r")):
        answered = mirror.ask(sent.encode(), CSV)
        if answered.status_code != 200:
            refused(answered)
            continue
        rows = [row for row in csv.reader(io.StringIO(sent, newline="")) if row]
        given = pd.read_csv(io.StringIO(sent), dtype=str, keep_default_na=False)
        assert given.to_numpy().tolist() == rows[1:], sent
        assert list(given.columns) == [name or f"Unnamed: {i}" for i, name in enumerate(rows[0])]
        assert answered.content == mirror.ask_mlflow(sent.encode(), CSV).content


MALFORMED = {
    "9 cells under 8 names": "a,b,c,d,e,f,g,h\n" + "1,2,3,4,5,6,7,8,9\n" * 3,
    "7 cells under 8 names": "a,b,c,d,e,f,g,h\n" + "1,2,3,4,5,6,7\n" * 3,
    "more cells in the first row only": "a,b\n1,2,3\n4,5\n",
    "fewer cells in the last row": "a,b\n1,2\n3\n",
    "a delimiter at the end of each row": "a,b\n1,2,\n3,4,\n",
    "a column twice": "a,b,a\n1,2,3\n",
    "a column twice, quoted": 'a,b,"a"\n1,2,3\n',
    "a name that pandas gives": ",Unnamed: 0\n1,2\n",
    "decimal commas": "a;b\n1,5;2,5\n",
    "a thousands comma": "a,b\n1,000,2\n",
    "a quote that never ends": 'a,b\n"1,2\n3,4\n',
    "a blank line among rows": "a,b\n1,2\n  \n3,4\n",
    "a blank row of one column": "a\n1\n \n3\n",
    "a row of one cell in front of the header": "report\na,b\n1,2\n",
    "a lone carriage return before a blank": "a,b\r1,2\r 3,4\r",
    "an empty line that a carriage return ends": "a,b\n1,2\n\r,4\n",
    "a NUL": "a,b\n1,\0\n",
    "nothing": "",
    "only blank lines": "\n\n",
}


@pytest.mark.parametrize("wrong", MALFORMED)
def test_a_malformed_csv_body_is_422(mirror: Pair, wrong: str) -> None:
    refused(mirror.ask(MALFORMED[wrong].encode(), CSV))


@pytest.mark.parametrize("body", [b"a,b\n\xff,1\n", b"a,b\n1,\xc3", "ä,b\n1,2\n".encode("latin-1")])
def test_csv_that_is_not_utf_8_is_422(mirror: Pair, body: bytes) -> None:
    refused(mirror.ask(body, CSV))


OTHERS = {
    "an index column as to_csv writes it": ",a,b\n0,1,2\n1,3,4\n",
    "two columns without a name": ",a,\n0,1,2\n",
    "spaces after commas": "a, b\n1, 2\n",
    "quoted numbers": '"a","b"\n"1","2"\n',
    "quotes within cells": 'a,b\nx"y,z""\n',
    "text after a quoted cell": 'a,b\n"x"y,2\n',
    "old Mac line ends": "a,b\r1,2\r3,4\r",
    "mixed line ends": "a,b\r\n1,2\n3,4\r5,6",
    "empty lines": "\n\na,b\n\n1,2\n\n",
    "comment signs": "a,#b\n#1,2\n",
    "semicolons": "a;b\n1;2\n",
    "a header only": "a,b\n",
    "one column": "a\n1\n2\n",
    "words for no number": "a,b\ninf,-inf\nnan,NaN\n",
    "a delimiter at the end of every line": "a,b,\n1,2,\n",
    "a header over two lines": '"a\nb",c\n1,2\n',
    "a long cell": "a,b\n" + "x" * 500_000 + ",1\n",
    "whole and missing": "a,b\n1,\n2,3\n",
    "more than 64 bits": "a,b\n99999999999999999999999,1\n",
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
def test_other_peoples_csv_is_answered_as_mlflow_answers_it(mirror: Pair, kind: str) -> None:
    for mark in ("", "\ufeff"):
        assert mirror.require_same((mark + OTHERS[kind]).encode(), CSV).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        "x,s,n\n1,a,2\n",
        "n,x\n2,1.5\n",
        "x,s,n,extra\n1,,3,4\n",
        "x,n\n1,\n",
        "x,n\nword,1\n",
        "x,s,n\n1,2,3\n",
        "n,x\n",
    ],
)
def test_csv_is_typed_by_the_signature_as_mlflow_does(signed: Pair, body: str) -> None:
    signed.require_same(body.encode(), CSV)


def test_a_shifted_or_doubled_column_reaches_no_model_of_ours(own: Pair) -> None:
    frame = bars().head(300)
    good = frame.to_csv(index=False)
    same = own.require_same(good.encode(), CSV)
    assert len(same.json()["predictions"]) == len(frame)
    head, _, rest = good.partition("\n")
    assert "cells" in refused(own.ask(f"{head}\n{rest.replace(chr(10), ',0' + chr(10))}".encode(), CSV))
    assert "more than once" in refused(
        own.ask(f"{head},bidPrice\n{rest.replace(chr(10), ',0' + chr(10))}".encode(), CSV)
    )
    own.require_same(frame.to_csv().encode(), CSV)  # with its index in front, which no feature is


# --- JSON -------------------------------------------------------------------------------------------------------------

VALUES = st.sampled_from(
    [1, -2.5, 1e300, 0, None, True, "x", "é", "", float("nan"), float("inf"), 2**70, [1, 2], {"k": 1}]
)


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from(["x", "s", "n", "é", ""]), min_size=1, max_size=4, unique=True))
    rows = draw(st.lists(st.lists(VALUES, min_size=len(names), max_size=len(names)), min_size=1, max_size=4))
    records = [dict(zip(names, row, strict=True)) for row in rows]
    columns = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    body: dict[str, Any] = draw(
        st.sampled_from(
            [
                {"dataframe_split": {"columns": names, "data": rows}},
                {"dataframe_split": {"columns": names, "data": rows, "index": list(range(len(rows)))}},
                {"dataframe_split": {"data": rows}},
                {"dataframe_split": {"data": columns}},
                {"dataframe_split": {"columns": names[:1], "data": columns[names[0]]}},
                {"dataframe_records": records},
                {"dataframe_records": [dict(list(record.items())[: i + 1]) for i, record in enumerate(records)]},
                {"dataframe_records": rows},
                {"instances": records}, {"instances": rows}, {"instances": columns}, {"instances": rows[0]},
                {"inputs": columns}, {"inputs": rows}, {"inputs": records}, {"inputs": records[0]},
                {"inputs": rows[0][0]}, {"inputs": "text"}, {"instances": []}, {"dataframe_records": []},
                {"instances": [[[1, 2], [3, 4]]]}, {"messages": records}, {"inputs": {"x": [1.0], "n": [2]}},
                {"dataframe_split": {"columns": ["x", "n"], "data": [[1.5, 2]]}},
                {"instances": [{"x": 1, "n": 2}]}, {"dataframe_split": {"columns": [], "data": []}},
            ]
        )
    )  # fmt: skip
    params = draw(st.sampled_from([{}, {"params": {"k": 3}}, {"params": None}, {"other": 1}, {"params": {"k": "x"}}]))
    return body | params


@settings(max_examples=150)
@given(body=bodies(), mark=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]), ascii_only=st.booleans())
def test_a_json_body_is_answered_as_mlflow_answers_it(
    mirror: Pair, signed: Pair, body: dict[str, Any], mark: str, ascii_only: bool
) -> None:
    for one in (mirror, signed):
        one.require_same(json.dumps(body, ensure_ascii=ascii_only).encode(mark), JSON)


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["x", "n"], "data": [[1, 2], [3]]}},
        {"dataframe_split": {"columns": ["x", "n"], "data": [[1, 2, 3]]}},
        {"dataframe_split": {"columns": ["x", "x"], "data": [[1, 2]]}},
        {"dataframe_split": {"data": [[1, 2], [3]]}},
        {"dataframe_records": [[1, 2], [3]]},
        [{"x": 1}],
        "text",
        {},
        {"x": 1},
        {"dataframe_records": [], "inputs": []},
    ],
)
def test_a_malformed_json_table_is_422(mirror: Pair, body: Any) -> None:
    refused(mirror.ask(json.dumps(body).encode(), JSON))


def test_the_parameters_of_a_content_type_are_those_that_mlflow_takes(own: Pair) -> None:
    body = json.dumps({"dataframe_split": bars().head(2).to_dict("split", index=False)}).encode()
    for content_type in (JSON, "application/json; charset=utf-8", "application/json;charset=UTF-8"):
        assert own.require_same(body, content_type).status_code == 200
    for content_type in ("application/json; charset=latin-1", "application/json; format=pandas-split"):
        assert "UTF-8" in refused(own.require_same(body, content_type), 415).upper()


def test_parquet_is_answered_as_mlflow_answers_it(mirror: Pair, own: Pair) -> None:
    frame = bars().head(4).assign(word=["a", None, "é", ""], whole=[1, 2, 3, 4]).set_index("whole")
    for each in (frame, frame.reset_index(), frame.head(0)):
        for one in (mirror, own):
            one.require_same(each.to_parquet(), PARQUET)


# --- what every answer has --------------------------------------------------------------------------------------------


def test_every_answer_says_where_it_came_from(own: Pair, mirror: Pair) -> None:
    body = json.dumps({"dataframe_split": bars().head(2).to_dict("split", index=False)}).encode()
    answered = own.ask(body, JSON)
    row = {name: float(value) for name, value in bars().iloc[0].items()}
    beside = own.server.predict(row)
    for name in ("X-Model-URI", "X-Model-ID", "X-Model-Backend", "X-Request-ID"):
        assert answered.headers[name]
    assert answered.headers["X-Model-ID"] == beside.headers["X-Model-ID"]
    assert mirror.ask(body, JSON).headers["X-Model-Backend"] == "pyfunc"


def test_each_step_is_timed_as_what_it_is(signed: Pair) -> None:
    body = json.dumps({"dataframe_records": [{"x": 1.0, "n": 2}], "params": {"k": 400}}).encode()

    def seconds(found: Any, step: str) -> float:
        return total(found, f"fin_pyfunc_{step}_seconds_sum", route="/invocations")

    before = scrape(signed.server.url)
    assert signed.ask(body, JSON).status_code == 200
    wait_for(signed.server.url, lambda found: seconds(found, "score") - seconds(before, "score") > 0.39)
    after = scrape(signed.server.url)
    assert seconds(after, "decode") - seconds(before, "decode") < 0.3
    assert seconds(after, "request") - seconds(before, "request") > 0.39


def test_what_a_model_without_a_table_is_given_is_answered_as_mlflow_answers_it(mirror: Pair) -> None:
    for body in (
        {"messages": [{"role": "user"}], "prompt": "x"},
        {"inputs": 3},
        {"inputs": "three"},
        {"input": [[1], 2]},
    ):
        assert mirror.require_same(json.dumps(body).encode(), JSON).status_code == 200


def test_a_long_row_is_taken_where_the_signature_says_so(tmp_path: Path) -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    bodies = {
        "tensor": (Schema([TensorSpec(np.dtype("float64"), (-1, 5000))]), {"instances": [[0.5] * 5000] * 2}),
        "array": (Schema([ColSpec(Array(DataType.double), "v")]), {"dataframe_records": [{"v": [0.5] * 5000}] * 2}),
    }
    for name, (inputs, body) in bodies.items():
        (tmp_path / name).mkdir()
        signature = mlflow.models.ModelSignature(inputs=inputs)
        mlflow.pyfunc.save_model(tmp_path / name / "model", python_model=Mirror(), signature=signature)
        for one in pair(tmp_path / name):
            assert one.require_same(json.dumps(body).encode(), JSON).status_code == 200
