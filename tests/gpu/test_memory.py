"""A worker holds one copy of a model's trees, sends a device no more rows than fit, and lets go of what it evicts."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fin_pyfunc.model.backends import nvforest as own
from fin_pyfunc.model.classifier import Classifier
from fin_pyfunc.model.errors import DeviceError
from fin_pyfunc.serving.cache import ModelCache
from fin_pyfunc.serving.loader import load
from fin_pyfunc.serving.resolver import Resolver
from tests.models import small_forest


def opened(saved: Path, backend: str) -> Classifier:
    model = Classifier()
    model.open(saved / "artifacts" / "fin_pyfunc", backend)
    return model


def rows(n_rows: int) -> np.ndarray[Any, Any]:
    known = small_forest().train.to_numpy()
    return np.resize(known, (n_rows, known.shape[1]))


def test_however_often_a_model_is_opened_there_is_one_copy_which_goes_with_the_last(
    saved: Path, nvforest: Path
) -> None:
    gc.collect()
    before = len(own._FORESTS)
    one, other = opened(saved, "nvforest"), opened(saved, "nvforest")
    assert len(own._FORESTS) == before + 1
    del one
    assert len(own._FORESTS) == before + 1
    del other  # no cycle keeps it until some collection
    assert len(own._FORESTS) == before


def test_what_the_cache_evicts_leaves_the_device_at_once(saved: Path, standin: Path) -> None:
    import cupy  # type: ignore[import-not-found, unused-ignore] # the stand-in

    async def evict() -> tuple[int, int]:
        resolver = Resolver(None)
        cache = ModelCache(resolver, lambda r: load(resolver, r, "gpu"), max_models=0, refresh_seconds=60)
        loaded = await cache.get(str(saved), is_default=True)
        held = len(own._FORESTS)
        assert loaded.model.dispatch.backends[0].device == "gpu"
        await asyncio.sleep(0)
        gc.collect()  # asyncio's futures, which are garbage soon after a model was loaded, still hold it
        del loaded
        cache.unpin(str(saved))
        cache.close()
        return held, len(own._FORESTS)

    freed = cupy._Pool.n_freed
    held, after = asyncio.run(evict())
    assert (held, after) == (1, 0)
    assert cupy._Pool.n_freed > freed


def test_a_large_batch_goes_to_the_device_in_parts_that_fit(saved: Path, standin: Path) -> None:
    import nvforest  # type: ignore[import-not-found, unused-ignore] # the stand-in

    model = opened(saved, "gpu")
    table = rows(own.GPU_ROWS + 1000)
    nvforest.calls.clear()
    scores, name = model.dispatch.score(table)
    assert name == "nvforest-gpu"
    assert nvforest.calls == [own.GPU_ROWS, 1000]
    np.testing.assert_array_equal(scores.index, np.resize(scores.index[: len(small_forest().train)], len(table)))


def test_wide_rows_go_in_smaller_parts(saved: Path, standin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nvforest  # type: ignore[import-not-found, unused-ignore] # the stand-in

    monkeypatch.setattr(own, "GPU_BYTES", 2 * 8 * (5 + 3) * 5000)  # five features, three classes, as sent and compared
    nvforest.calls.clear()
    opened(saved, "gpu").dispatch.score(rows(12_000))
    assert nvforest.calls == [5000, 5000, 2000]


def test_memory_that_others_take_is_met_with_smaller_parts(
    saved: Path, standin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nvforest  # type: ignore[import-not-found, unused-ignore] # the stand-in

    model, table = opened(saved, "gpu"), rows(40_000)
    expected = model.dispatch.score(table)[0]
    monkeypatch.setenv("STANDIN_ROWS", "10000")
    nvforest.calls.clear()
    got = model.dispatch.score(table)[0]
    assert max(nvforest.calls[1:]) <= 10_000
    np.testing.assert_array_equal(got.probabilities, expected.probabilities)
    monkeypatch.setenv("STANDIN_ROWS", "1000")  # fewer than are worth another try
    with pytest.raises(DeviceError, match="the GPU failed while it scored"):
        model.dispatch.score(table)
