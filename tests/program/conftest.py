"""Compiling in tests measures each form as briefly as it can: once at each row count."""

from __future__ import annotations

import pytest

from fin_pyfunc.compiling import timing


@pytest.fixture(autouse=True)
def brief_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_MAX_RUNS", 1)
