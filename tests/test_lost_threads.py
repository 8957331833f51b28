"""Models that do not answer: their threads are replaced, and then their worker."""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path

import cloudpickle
import psutil
import pytest

import fin_pyfunc
from tests import shelf
from tests.models import bars
from tests.servers import serving
from tests.test_api import row as bar


@pytest.fixture
def row() -> dict[str, float]:
    return bar()


@pytest.mark.long
def test_a_thread_that_never_comes_back_is_replaced_and_then_its_worker_is(
    tmp_path: Path, row: dict[str, float]
) -> None:

    cloudpickle.register_pickle_by_value(sys.modules[shelf.__name__])
    rows = bars().assign(spread=0.0)
    fin_pyfunc.save_model(shelf.Sleeps(), rows, tmp_path / "model", serialization="cloudpickle")
    env = {"FIN_PYFUNC__LIMITS__REQUEST_SECONDS": "1", "FIN_PYFUNC__LIMITS__SCORE_THREADS": "1"}
    env |= {"FIN_PYFUNC__MODELS__ISOLATION": "none"}  # a model's own process would be ended, and no thread be lost
    quick, stuck = row | {"spread": 0.0}, row | {"spread": 10.0}
    with serving("-m", str(tmp_path / "model"), folder=tmp_path, env=env) as server:
        (first,) = psutil.Process(server.process.pid).children()
        in_mlflows_way = partial(server._post, "/invocations")
        asks = (
            server.predict,
            lambda r: server.predict_batch([r]),
            lambda r: in_mlflows_way({"dataframe_records": [r]}),
        )
        assert in_mlflows_way({"dataframe_records": [quick]}).status_code in (200, 504)  # MLflow's import takes seconds
        for ask in asks:
            answered = ask(stuck)
            assert answered.status_code in (500, 504)
            assert "Prediction failed" in answered.text or "request_seconds" in answered.text
            server.wait_for_log("were given up", times=1)
            deadline = time.monotonic() + 30
            while ask(quick).status_code != 200:  # the place of the lost thread is free again
                assert time.monotonic() < deadline
        assert first.is_running()
        for _ in range(4):
            server.predict_batch([stuck])
        server.wait_for_log("this worker finishes what it has, and is replaced")
        deadline = time.monotonic() + 60
        while psutil.Process(server.process.pid).children() in ([first], []):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        server.wait_for("/health/ready")
        while server.predict(quick).status_code != 200:  # a second is little for a first answer on a busy machine
            assert time.monotonic() < deadline + 60
