"""An observer that fails costs neither a request nor what the others see."""

from __future__ import annotations

import asyncio
import logging

import pytest

from fin_pyfunc.serving.observers import TOGETHER, Answered, Observers


class Failing:
    def answered(self, requests: list[Answered], /) -> None:
        raise ValueError(f"a value: {requests[0][5]['row']}")


class Seeing:
    def __init__(self) -> None:
        self.seen = 0

    def answered(self, requests: list[Answered], /) -> None:
        self.seen += len(requests)


def test_an_observer_that_fails_is_logged_without_values_and_the_others_see_all(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seeing = Seeing()
    observers = Observers([Failing(), seeing])

    async def answer() -> None:
        for _ in range(TOGETHER):
            observers.add((0.0, 0.0, 200, "POST", "/predict", {"row": "secret"}, None))

    with caplog.at_level(logging.ERROR):
        asyncio.run(answer())
    assert seeing.seen == TOGETHER
    assert "Failing" in caplog.text
    assert "secret" not in caplog.text
