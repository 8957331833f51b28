"""A second model in the shadow: it sees what was answered, nobody gets its answers, and what differs is recorded."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from fin_pyfunc.model.decision import Scores
from fin_pyfunc.serving.motion.shadow.comparison import compare
from fin_pyfunc.serving.motion.shadow.differences import Difference, Differences
from tests.models import bars
from tests.motion.conftest import NAME, Registry, loaded
from tests.servers import Serving, serving
from tests.test_api import row
from tests.test_error_table import refused

#: Rows that are asked about, and what the two versions say of them differs on many.
ROWS = 60


@pytest.fixture(scope="module")
def served(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Version 1, with version 2 in its shadow, seeing everything; reachable from other machines, too."""
    folder = tmp_path_factory.mktemp("shadow")
    env = {
        "MLFLOW_TRACKING_URI": registry.tracking_uri,
        "FIN_PYFUNC__SHADOW__MODEL_URI": f"models:/{NAME}/2",
        "FIN_PYFUNC__SHADOW__SHARE": "1",
        "FIN_PYFUNC__SHADOW__MAX_ROWS": "500",
        "FIN_PYFUNC__SHADOW__DIFFERENCES_FILE": str(folder / "differences.jsonl"),
    }
    with serving("-m", f"models:/{NAME}/1", folder=folder, env=env) as server:
        server.wait_for_log("shadows 1 of the requests")
        yield server


def shadow(server: Serving) -> dict[str, Any]:
    state: dict[str, Any] = server.admin("/admin/models").json()["shadow"]
    return state


def settled(server: Serving, rows: int, before: dict[str, Any]) -> dict[str, Any]:
    """The shadow's counts since before, once it has seen this many rows more."""
    deadline = time.monotonic() + 60
    while True:
        now = shadow(server)
        found = {
            **{word: now[word] - before[word] for word in ("agreed", "failed", "dropped")},
            "differed": sum(now["differed"].values()) - sum(before["differed"].values()),
        }
        if sum(found.values()) >= rows and not now["waiting"]:
            return found
        assert time.monotonic() < deadline, now
        time.sleep(0.05)


def choose(server: Serving, uri: str | None, **more: Any) -> httpx.Response:
    return server.admin("/admin/shadow", {"model_uri": uri, **more})


def differences(server: Serving) -> list[dict[str, Any]]:
    file = server._log_file.parent / "differences.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_every_row_is_compared_and_every_difference_recorded_without_features(
    served: Serving, registry: Registry
) -> None:
    before, known = shadow(served), len(differences(served))
    answers = {}
    with ThreadPoolExecutor(4) as pool:
        for answered in pool.map(lambda i: served.predict(row(i), return_proba=True), range(ROWS)):
            answers[answered.headers["X-Request-ID"]] = answered
    batch = served.predict_batch([row(i) for i in range(ROWS)], return_proba=True)
    table = pa.Table.from_pandas(bars().head(ROWS), preserve_index=False)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    headers = {"Content-Type": "application/vnd.apache.arrow.stream", "Accept": "application/json"}
    requests.post(served.url + "/predict/batch", data=sink.getvalue().to_pybytes(), headers=headers, timeout=60)
    other = [served.predict(row(i), f"models:/{NAME}/2", return_proba=True).json() for i in range(ROWS)]
    differ = sum(a.json()["prediction"] != b["prediction"] for a, b in zip(answers.values(), other, strict=False))
    assert {answered.headers["X-Model-ID"] for answered in answers.values()} == {registry.ids[1]}

    found = settled(served, 3 * ROWS, before)
    assert found["failed"] == found["dropped"] == 0
    assert found["agreed"] + found["differed"] == 3 * ROWS  # and none of what was asked of version 2 by name
    recorded = differences(served)[known:]
    assert len(recorded) == found["differed"] > 0
    assert differ * 3 == found["differed"]
    state = shadow(served)
    assert 0 < state["mean_difference"] <= state["max_difference"] <= 1
    ids = {batch.headers["X-Request-ID"], *answers}
    for each in recorded:
        assert set(each) == set(Difference.__struct_fields__)
        assert (each["model_id"], each["shadow_id"]) == (registry.ids[1], registry.ids[2])
        assert each["prediction"] != each["shadow_prediction"]
    named = [each for each in recorded if each["request_id"] in ids]
    assert len(named) == 2 * differ
    for each in named:
        if each["request_id"] in answers:
            said = answers[each["request_id"]].json()
            assert (each["prediction"], each["probabilities"]) == (said["prediction"], said["probabilities"])
        else:
            assert each["shadow_probabilities"] == pytest.approx(other[each["row"]]["probabilities"], abs=1e-9)


def test_what_does_not_fit_into_the_queue_is_dropped_and_counted(served: Serving) -> None:
    before = shadow(served)
    served.predict_batch([row(0)] * 501)
    assert settled(served, 501, before)["dropped"] == 501


def test_it_is_switched_off_and_on_for_all_workers_while_the_server_runs(served: Serving, registry: Registry) -> None:
    off = choose(served, None)
    assert (off.status_code, off.json()["model_uri"]) == (200, None)
    before = shadow(served)
    for i in range(5):
        assert served.predict(row(i)).status_code == 200
    time.sleep(0.3)
    assert shadow(served)["agreed"] == before["agreed"]
    on = choose(served, f"models:/{NAME}/1", share=1)
    assert on.json()["model_id"] == registry.ids[1]
    assert (on.json()["agreed"], on.json()["differed"], on.json()["max_difference"]) == (0, {}, None)
    before = shadow(served)
    for i in range(5):
        served.predict(row(i))
    assert settled(served, 5, before)["agreed"] == 5

    (worker,) = psutil.Process(served.process.pid).children()
    worker.kill()
    served.wait_for_log("shadows 1 of the requests for", times=3)
    assert shadow(served)["model_uri"] == f"models:/{NAME}/1"
    assert served.predict(row()).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"model_uri": "models:/nobody/1"}, 404, "registered"),
        ({"model_uri": f"models:/{NAME}/3"}, 422, "damaged"),
        ({"model_uri": "./model"}, 422, "form"),
        ({"model_uri": None, "share": 2}, 422, "'share'"),
        ({}, 422, "'model_uri'"),
    ],
)
def test_a_shadow_that_cannot_be_is_refused_and_the_one_there_is_stays(
    served: Serving, body: dict[str, Any], status: int, said: str
) -> None:
    before = shadow(served)
    answered = served.admin("/admin/shadow", body)
    assert said in refused(answered, status)["detail"]
    assert shadow(served)["model_uri"] == before["model_uri"]


def test_a_shadow_that_is_stopped_says_why_it_sees_nothing(served: Serving) -> None:
    assert choose(served, f"models:/{NAME}/2").json()["problem"] is None
    stop = {"name": f"models:/{NAME}/2", "reason": "Wrong week."}
    try:
        assert served.admin("/admin/models/stop", stop).status_code == 200
        assert shadow(served)["problem"] == "it is stopped: Wrong week."
        assert choose(served, f"models:/{NAME}/2").json()["problem"] == "it is stopped: Wrong week."
    finally:
        served.admin("/admin/models/start", {"name": stop["name"]})
    assert shadow(served)["problem"] is None


def test_a_shadow_of_other_features_reads_the_rows_for_itself(served: Serving, registry: Registry) -> None:
    assert choose(served, registry.narrow).status_code == 200
    before = shadow(served)
    for i in range(5):
        assert served.predict(row(i)).status_code == 200
    assert served.predict_batch([row(i) for i in range(5)]).status_code == 200
    csv = bars().head(5).to_csv(index=False)
    headers = {"Content-Type": "text/csv"}
    assert requests.post(served.url + "/predict/batch", data=csv, headers=headers, timeout=60).status_code == 200
    found = settled(served, 15, before)
    assert found["agreed"] + found["differed"] == 15
    assert choose(served, None).status_code == 200


def test_a_shadow_that_fails_fails_no_request(served: Serving, registry: Registry) -> None:
    assert choose(served, registry.strange).status_code == 200
    before = shadow(served)
    assert served.predict(row()).status_code == 200
    assert served.predict_batch([row()] * 3).status_code == 200
    assert settled(served, 4, before) == {"agreed": 0, "differed": 0, "dropped": 0, "failed": 4}
    assert choose(served, None).status_code == 200


def test_a_shadow_that_is_slow_holds_up_no_request(served: Serving, registry: Registry) -> None:
    assert choose(served, registry.sleeps).status_code == 200
    before = shadow(served)
    assert served.predict(row() | {"spread": 3.0}).status_code == 200
    time.sleep(0.3)
    assert served.predict(row()).status_code == 200  # while the shadow is at work
    now = shadow(served)
    assert now["waiting"] == 2  # the one it is at work on, too
    assert now["agreed"] + sum(now["differed"].values()) == before["agreed"] + sum(before["differed"].values())
    assert choose(served, None).status_code == 200


def test_what_is_loaded_is_listed_with_what_computes_it(served: Serving, registry: Registry) -> None:
    assert served.predict(row(), f"models:/{NAME}/1").status_code == 200
    listed = served.admin("/admin/models").json()
    entry = loaded(listed)[registry.ids[1]]
    hits = entry["hits"]
    assert entry["is_default"]
    assert entry["model_uris"] == [f"models:/{NAME}/1"] * 2 or entry["model_uris"] == [f"models:/{NAME}/1"]
    assert entry["backends"][-1] == "native"
    assert entry["plan"][0]["from_rows"] == 1
    assert entry["bytes"] > 1000
    assert entry["run_id"] == registry.runs[1]
    assert entry["stopped"] is None
    assert served.predict(row()).status_code == 200
    again = served.admin("/admin/models").json()
    assert loaded(again)[registry.ids[1]]["hits"] == hits + 1
    stopped = served.admin("/admin/models/stop", {"name": NAME, "reason": "Because."})
    assert stopped.json()["kept"] is False  # this server has no state file
    try:
        now = served.admin("/admin/models").json()
        assert loaded(now)[registry.ids[1]]["stopped"] == "Because."
    finally:
        served.admin("/admin/models/start", {"name": NAME})


def test_what_is_stopped_in_memory_alone_stays_so_over_a_new_configuration(served: Serving) -> None:
    body = {"name": NAME, "reason": "Because."}
    assert served.admin("/admin/models/stop", body).status_code == 200
    try:
        before = served.admin("/admin/models").json()["worker"]
        served.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 120
        while served.admin("/admin/models").json()["worker"] == before:
            assert time.monotonic() < deadline, served.log()
            assert "Because." in refused(served.predict(row()), 503)["detail"]
            time.sleep(0.1)
        assert "Because." in refused(served.predict(row()), 503)["detail"]
    finally:
        served.admin("/admin/models/start", {"name": NAME})
    assert served.predict(row()).status_code == 200


def test_a_full_file_is_kept_once_and_never_grows_beyond(tmp_path: Path) -> None:
    written = Differences(tmp_path / "d.jsonl", 2000)
    for i in range(50):
        written.write([difference(str(i))])
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.jsonl", "d.jsonl.1"]
    assert max(sizes) <= 2000
    ids = [json.loads(line)["request_id"] for name in ("d.jsonl.1", "d.jsonl") for line in (tmp_path / name).open()]
    assert ids == [str(i) for i in range(50 - len(ids), 50)]


def difference(request_id: str) -> Difference:
    return Difference(
        time="2026-03-02T09:30:00.000+00:00",
        request_id=request_id,
        row=0,
        model_id="models:/m-1",
        shadow_id="models:/m-2",
        prediction=1,
        shadow_prediction=-1,
        probabilities=None,
        shadow_probabilities=None,
    )


LABELS = st.permutations([-1, 0, 1]).flatmap(lambda order: st.integers(1, 3).map(lambda k: list(order[:k])))


@given(st.data(), LABELS, LABELS, st.none() | st.floats(0, 1))
def test_rows_are_compared_by_label_whatever_the_order_of_the_classes(
    data: st.DataObject, ours: list[int], theirs: list[int], tolerance: float | None
) -> None:
    n = data.draw(st.integers(1, 8))

    def scores(classes: list[int]) -> Scores:
        index = np.array(data.draw(st.lists(st.integers(0, len(classes) - 1), min_size=n, max_size=n)), dtype=np.intp)
        p = np.array(data.draw(st.lists(st.floats(0, 1), min_size=n * len(classes), max_size=n * len(classes))))
        return Scores(classes=classes, index=index, probabilities=p.reshape(n, len(classes)))

    a, b = scores(ours), scores(theirs)
    found = compare(a, b, tolerance)
    pairs = [(str(ours[i]), str(theirs[j])) for i, j in zip(a.index.tolist(), b.index.tolist(), strict=True)]
    assert found.agreed == sum(x == y for x, y in pairs)
    assert sum(found.pairs.values()) == n - found.agreed
    assert all(x != y for x, y in found.pairs)
    assert (found.distances is not None) == (set(ours) == set(theirs))
    if found.distances is not None:
        assert a.probabilities is not None
        assert b.probabilities is not None
        frames = [pd.DataFrame(s.probabilities, columns=list(s.classes)) for s in (a, b)]
        distances = (frames[0] - frames[1][frames[0].columns]).abs().max(axis=1)
        np.testing.assert_array_equal(found.distances, distances)
    for i, (x, y) in enumerate(pairs):
        far = tolerance is not None and found.distances is not None and found.distances[i] > tolerance
        assert bool(found.differing[i]) == (x != y or far)
