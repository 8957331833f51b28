"""Times as text: what logs and records say is the time it was, to the microsecond."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from fin_pyfunc.serving.timestamps import timestamp

TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))


@given(TIMES)
def test_a_time_is_told_to_the_microsecond(time: datetime) -> None:
    told = timestamp(time.timestamp())
    assert len(told) == len("2026-11-25T01:15:37.640755Z")
    assert abs(datetime.fromisoformat(told) - time) <= timedelta(microseconds=1)


@given(TIMES, st.floats(0, 3600))
def test_later_times_are_later_texts(time: datetime, seconds: float) -> None:
    assert timestamp(time.timestamp()) <= timestamp(time.timestamp() + seconds)
