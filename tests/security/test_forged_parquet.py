"""A damaged Parquet body for MLflow's route: refused before pyarrow, which some of them end, reads it."""

from __future__ import annotations

import io
import random

import numpy as np
import pandas as pd
import pytest

from fin_pyfunc.serving.errors import RequestError
from fin_pyfunc.serving.mlflow_bodies import plain_parquet
from fin_pyfunc.serving.settings import Limits


def parquet(frame: pd.DataFrame) -> bytes:
    written = io.BytesIO()
    frame.to_parquet(written)
    return written.getvalue()


def test_a_damaged_parquet_body_is_refused_and_a_good_one_is_the_same() -> None:
    frame = pd.DataFrame(
        {
            "number": [1.5, 2.5, 3.5], "whole": np.array([1, 2, 3], "int32"), "text": ["a", "b", "a"],
            "kind": pd.Categorical(["x", "y", "x"]), "gap": pd.array([1, None, 3], "Int64"),
            "time": pd.date_range("2026-01-01", periods=3), "open": [True, False, True],
        },
        index=[5, 6, 7],
    )  # fmt: skip
    body = parquet(frame)
    again = plain_parquet(body, 100, Limits())
    pd.testing.assert_frame_equal(pd.read_parquet(io.BytesIO(again)), pd.read_parquet(io.BytesIO(body)))
    assert len(pd.read_parquet(io.BytesIO(plain_parquet(parquet(frame.head(0)), 100, Limits())))) == 0
    refused, chance = 0, random.Random(1)
    for _ in range(300):
        damaged = bytearray(body)
        for _ in range(chance.randrange(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        try:
            plain_parquet(bytes(damaged), 100, Limits())
        except RequestError:
            refused += 1
    assert refused > 100
    with pytest.raises(RequestError) as too_large:
        plain_parquet(parquet(pd.DataFrame({"a": np.zeros(100_000)})), 100, Limits(max_body_bytes=1000))
    assert too_large.value.status == 413
