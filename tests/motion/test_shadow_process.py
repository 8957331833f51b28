"""The process of a shadow: what is said to it and by it, and what becomes of it when something ends."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import msgspec
import numpy as np
import pandas as pd
import psutil
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from fin_pyfunc.model.decision import Decisions, Scores, Thresholds
from fin_pyfunc.model.errors import BackendError
from fin_pyfunc.model.feature import Feature
from fin_pyfunc.model.features import FeatureSpec
from fin_pyfunc.serving.motion.shadow.messages import (
    Answered,
    Clear,
    Frames,
    Opening,
    Report,
    Rows,
    ToShadow,
    ToWorker,
    framed,
)
from fin_pyfunc.serving.motion.shadow.process import ShadowProcess
from fin_pyfunc.serving.motion.shadow.scorer import Scorer
from fin_pyfunc.serving.motion.shadow.seen import Seen, joined, seen
from fin_pyfunc.serving.motion.shadow.shadow import Chosen, _Active
from fin_pyfunc.serving.motion.shadow.telling import Answer, Telling
from fin_pyfunc.serving.prediction import Prediction
from tests.conftest import tracking_to
from tests.models import bars
from tests.motion.conftest import NAME, Registry
from tests.servers import Serving, serving
from tests.test_api import row

FEATURES = FeatureSpec(features=[Feature(name="spread", kind="number", dtype="float64")])
LABELS = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=5)
ROWS = st.builds(
    Rows,
    requests=st.lists(st.tuples(st.text(max_size=40), st.integers(1, 9)), max_size=3),
    index=st.binary(max_size=4).map(lambda bytes_: bytes_ * 8),
    probabilities=st.none() | st.binary(max_size=100),
    matrix=st.none() | st.binary(max_size=5000),
    sent=st.none() | st.lists(st.binary(max_size=100), max_size=3),
    pickled=st.none() | st.binary(max_size=100),
)
MESSAGES = st.lists(
    ROWS
    | st.builds(Clear)
    | st.builds(Answered, st.text(max_size=9), st.lists(LABELS, max_size=3), st.sampled_from([None, FEATURES])),
    max_size=6,
)


@given(MESSAGES, st.lists(st.integers(1, 3000), min_size=1, max_size=20))
def test_messages_arrive_whole_and_in_turn_however_the_pipe_cuts_them(sent: list[ToShadow], cuts: list[int]) -> None:
    stream, frames = b"".join(map(framed, sent)), Frames[ToShadow](ToShadow)
    heard, at, i = list[ToShadow](), 0, 0
    while at < len(stream):
        heard += frames.feed(stream[at : at + cuts[i % len(cuts)]])
        at, i = at + cuts[i % len(cuts)], i + 1
    assert heard == sent
    assert [type(c) for m in heard if isinstance(m, Answered) for c in m.classes] == [
        type(c) for m in sent if isinstance(m, Answered) for c in m.classes
    ]


def test_a_report_names_pairs_of_classes_by_both() -> None:
    said = Report(taken=3, agreed=1, pairs={("-1", "1"): 2}, compared=3, difference=0.5, greatest=0.25)
    assert list(Frames[ToWorker](ToWorker).feed(framed(said))) == [said]


TURNED = FeatureSpec(features=[Feature(name=name, kind="number", dtype="float64") for name in "dcba"])
STRAIGHT = FeatureSpec(features=[Feature(name=name, kind="number", dtype="float64", nullable=True) for name in "abcd"])


def answer(request_id: str, loaded: Any, table: Any, scores: Scores, sent: bytes | None) -> Answer:
    decisions = Decisions(scores, Thresholds(), "native")
    raw = None if sent is None else msgspec.Raw(sent)
    return request_id, Prediction(None, loaded, table, decisions, 0.0, 0.0, raw)


def heard(said: bytes) -> list[Seen]:
    """What the process makes of messages."""
    found, by = list[Seen](), None
    for message in Frames[ToShadow](ToShadow).feed(said):
        if isinstance(message, Answered):
            by = message
        elif isinstance(message, Rows):
            assert by is not None
            found.append(seen(by, message))
    return found


@given(st.data())
def test_the_process_sees_what_was_answered_to_the_last_bit_however_it_is_gathered(data: st.DataObject) -> None:
    models: list[Any] = [
        SimpleNamespace(model=SimpleNamespace(features=features), resolved=SimpleNamespace(model_id=f"m{i}"))
        for i, features in enumerate((STRAIGHT, TURNED))
    ]
    classes, random = [[-1, 0, 1], ["a", "b"]], np.random.default_rng(data.draw(st.integers(0, 99)))
    answers, which = list[Answer](), data.draw(st.lists(st.integers(0, 1), min_size=1, max_size=8))
    for i, m in enumerate(which):
        n, names = data.draw(st.integers(1, 4)), models[m].model.features.names
        table: Any = (
            random.random((n, 4)) if data.draw(st.booleans()) else np.asfortranarray(random.random((n, 4)))[::-1]
        )
        rows = [dict(zip(names, values, strict=True)) for values in table.tolist()]
        if data.draw(st.booleans()):
            table = pd.DataFrame(rows)
        p = random.random((n, len(classes[m]))) if data.draw(st.booleans()) else None
        scores = Scores(classes=classes[m], index=random.integers(0, len(classes[m]), n), probabilities=p)
        sent = json.dumps(rows).encode() if data.draw(st.booleans()) else None
        answers.append(answer(f"r{i}", models[m], table, scores, sent))

    found = heard(Telling(STRAIGHT).of(answers))
    groups = [list(group) for _, group in groupby(found, lambda each: each.answered.model_id)]
    parts = list[Seen]()
    for group in groups:
        together = group[0]
        for each in group[1:]:
            if together.is_like(each):
                together = joined([together, each])
            else:
                parts.append(together)
                together = each
        parts.append(together)
    alone = list[Seen]()
    for part in parts:
        places = part.where(range(part.n_rows))
        assert places == [(name, row) for name, n in part.requests for row in range(n)]
        rest = part
        while rest.requests:
            k = data.draw(st.integers(1, len(rest.requests)))
            assert rest.within(sum(n for _, n in rest.requests[:k])) == k
            assert rest.within(sum(n for _, n in rest.requests[:k]) - 1) == k - 1
            head, rest = rest.cut(k)
            while head.requests:
                one, head = head.cut(1)
                alone.append(one)
    assert [one.requests[0] for one in alone] == [(name, len(p.decisions)) for name, p in answers]
    ours: Any = SimpleNamespace(features=STRAIGHT, table=STRAIGHT.table)
    for one, (_, prediction) in zip(alone, answers, strict=True):
        scores = prediction.decisions.scores
        assert one.answered.model_id == prediction.loaded.resolved.model_id
        assert one.scores.classes == scores.classes
        assert one.scores.index.tolist() == scores.index.tolist()
        p, q = scores.probabilities, one.scores.probabilities
        assert (p is None and q is None) or (p is not None and q is not None and p.tobytes() == q.tobytes())
        is_matrix = prediction.loaded is models[0] and isinstance(prediction.table, np.ndarray)
        assert isinstance(one.tables, np.ndarray) == is_matrix
        wanted = pd.DataFrame(prediction.table, columns=prediction.loaded.model.features.names)[STRAIGHT.names]
        np.testing.assert_array_equal(np.asarray(one.table(ours)), wanted.to_numpy())


@given(st.lists(st.tuples(st.integers(1, 3), st.booleans()), min_size=1, max_size=12), st.integers(1, 20))
def test_a_request_that_the_shadow_fails_on_keeps_no_other_from_being_compared(
    asked: list[tuple[int, bool]], most: int
) -> None:
    def decide(table: Any) -> Decisions:
        if (table > 100).any():
            raise ValueError
        scores = Scores(classes=[0, 1], index=np.zeros(len(table), np.intp), probabilities=None)
        return Decisions(scores, Thresholds(), "native")

    model: Any = SimpleNamespace(features=None, decide_table=decide)
    loaded: Any = SimpleNamespace(model=model, hosted=None, resolved=SimpleNamespace(model_id="m"))
    scorer = Scorer(loaded, Opening("", "", "", "", None, False, 1.0, None, None, 1, "info", False))
    answers = [
        answer(str(i), loaded, np.full((n, 2), 101.0 if is_bad else 0.0), decide(np.zeros((n, 2))).scores, None)
        for i, (n, is_bad) in enumerate(asked)
    ]
    for message in Frames[ToShadow](ToShadow).feed(Telling(None).of(answers)):
        scorer.hear(message)
    found = Report()
    for _ in answers:
        scorer._most = most
        scorer.work()
        if (report := scorer.report()) is not None:
            assert report.taken <= max(most, max(n for n, _ in asked))
            found.taken += report.taken
            found.agreed += report.agreed
            found.failed += report.failed
    failed = sum(n for n, is_bad in asked if is_bad)
    assert (found.taken, found.failed) == (sum(n for n, _ in asked), failed)
    assert found.agreed == found.taken - failed


@pytest.mark.parametrize(("ours", "is_read_again"), [(None, False), (FEATURES, True)])
def test_a_shadow_that_knows_no_names_gets_the_table_that_was_scored(ours: Any, is_read_again: bool) -> None:
    said = list[bytes]()
    process: Any = SimpleNamespace(send=said.append)
    chosen = Chosen("models:/b/1", 1.0, None, True)
    shadow: Any = SimpleNamespace(model=SimpleNamespace(features=ours))
    answering: Any = SimpleNamespace(
        model=SimpleNamespace(features=None), resolved=SimpleNamespace(model_id="models:/m-1")
    )
    scores = Scores(classes=[0, 1], index=np.array([1]), probabilities=None)
    frame = pd.DataFrame({"session": ["london"], "spread": [1.0]})

    async def tell() -> None:
        active = _Active(chosen, shadow, frozenset({None}), process)
        active.tell(*answer("id", answering, frame, scores, b'{"spread":1.0,"session":"london"}'))
        active.flush()

    asyncio.run(tell())
    (found,) = heard(b"".join(said))
    if is_read_again:
        assert found.tables == [b'{"spread":1.0,"session":"london"}']
    else:
        pd.testing.assert_frame_equal(found.tables[0], frame)


@pytest.fixture(scope="module")
def served(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Version 1, with whatever stands for an alias in its shadow, which is followed."""
    folder = tmp_path_factory.mktemp("shadow")
    registry.move("behind", 1)
    env = {
        "MLFLOW_TRACKING_URI": registry.tracking_uri,
        "FIN_PYFUNC__MODELS__REFRESH_SECONDS": "1",
        "FIN_PYFUNC__SHADOW__MODEL_URI": f"models:/{NAME}@behind",
        "FIN_PYFUNC__SHADOW__SHARE": "1",
        "FIN_PYFUNC__SHADOW__PART_OF_TIME": "1",  # one of its models takes seconds, and would rest for minutes
        "FIN_PYFUNC__LOG_FORMAT": "json",
    }
    with serving("-m", f"models:/{NAME}/1", folder=folder, env=env) as server:
        until(lambda: shadow(server)["problem"] is None)
        yield server


def shadow(server: Serving) -> dict[str, Any]:
    state: dict[str, Any] = server.admin("/admin/models").json()["shadow"]
    return state


def worker(server: Serving) -> psutil.Process:
    (found,) = psutil.Process(server.process.pid).children()
    return found


def shadow_process(of: psutil.Process) -> psutil.Process:
    (found,) = (child for child in of.children() if "fin_pyfunc.serving.motion.shadow" in child.cmdline())
    return found


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def compared(server: Serving) -> int:
    state = shadow(server)
    return int(state["agreed"] + sum(state["differed"].values()))


def test_it_takes_only_what_processor_time_nobody_else_wants(served: Serving) -> None:
    process = shadow_process(worker(served))
    assert os.sched_getscheduler(process.pid) == os.SCHED_IDLE


def test_a_process_that_is_killed_fails_no_request_and_is_started_again(served: Serving) -> None:
    process = shadow_process(worker(served))
    process.kill()
    served.wait_for_log("the shadow models:/eurusd_lr@behind has ended: its process ended (signal 9)")
    assert served.predict(row()).status_code == 200
    until(lambda: shadow(served)["problem"] is None)
    before = compared(served)
    assert served.predict(row()).status_code == 200
    until(lambda: compared(served) == before + 1)


def test_its_alias_is_followed(served: Serving, registry: Registry) -> None:
    assert shadow(served)["model_id"] == registry.ids[1]
    process = shadow_process(worker(served))
    registry.move("behind", 2)
    until(lambda: shadow(served)["model_id"] == registry.ids[2])
    assert not process.is_running()
    before = shadow(served)["differed"]
    for i in range(30):
        assert served.predict(row(i)).status_code == 200
    until(lambda: shadow(served)["differed"] != before)
    registry.move("behind", 1)


def test_a_shadow_that_is_stopped_is_asked_no_more_and_what_waits_is_dropped(
    served: Serving, registry: Registry
) -> None:
    body = {"model_uri": registry.sleeps, "share": 1}
    assert served.admin("/admin/shadow", body).status_code == 200
    before = compared(served)
    assert served.predict(row() | {"spread": 2.0}).status_code == 200
    time.sleep(1.0)  # it is at work on the first, unless this machine is very busy
    for _ in range(3):
        assert served.predict(row() | {"spread": 60.0}).status_code == 200
    stop = {"name": registry.sleeps, "reason": "Because."}
    assert served.admin("/admin/models/stop", stop).status_code == 200
    try:
        assert served.predict(row()).status_code == 200
        until(lambda: not shadow(served)["waiting"], 30)
        done = compared(served) - before
        assert done <= 1
        metrics = requests.get(served.url + "/metrics", timeout=30).text
        until(lambda: f'reason="stopped",shadow="{registry.sleeps}"' in metrics, 1)
        (line,) = [line for line in metrics.splitlines() if f'reason="stopped",shadow="{registry.sleeps}"' in line]
        assert float(line.split()[-1]) == 5 - done
    finally:
        served.admin("/admin/models/start", {"name": registry.sleeps})
    before = compared(served)
    assert served.predict(row() | {"spread": 0.01}).status_code == 200
    until(lambda: compared(served) > before)


def test_it_ends_with_its_worker_whatever_it_is_at_work_on(served: Serving, registry: Registry) -> None:
    body = {"model_uri": registry.sleeps, "share": 1}
    assert served.admin("/admin/shadow", body).status_code == 200
    assert served.predict(row() | {"spread": 600.0}).status_code == 200
    time.sleep(1.0)
    before = worker(served)
    process = shadow_process(before)
    before.kill()
    process.wait(10)
    until(lambda: bool(served.predict(row()).status_code == 200))


@pytest.mark.parametrize(("part", "is_asked_again"), [(1.0, True), (5e-4, False)])
def test_it_rests_after_its_work_for_as_long_as_its_part_of_a_processor_says(
    registry: Registry, tmp_path: Path, part: float, is_asked_again: bool
) -> None:
    with tracking_to(registry.tracking_uri):
        path = mlflow.artifacts.download_artifacts(f"models:/{NAME}/1", dst_path=str(tmp_path))
    opening = Opening(path, "models:/a/1", "models:/m-1", "mlflow", None, False, part, None, None, 1, "info", False)
    loaded: Any = SimpleNamespace(model=SimpleNamespace(features=None), resolved=SimpleNamespace(model_id="m"))
    sizes = [50_000, 1]  # the first takes tens of milliseconds at least: at the lesser part, a rest of a minute or so
    reports = list[Report]()

    async def ask() -> None:
        process = ShadowProcess(reports.append, print)
        await process.start(opening)
        told = Telling(FEATURES)
        try:
            for n in sizes:
                table = bars().sample(n, replace=True, random_state=0)
                scores = Scores(classes=[-1, 0, 1], index=np.ones(n, np.intp), probabilities=None)
                before = len(reports)
                process.send(told.of([answer("id", loaded, table, scores, None)]))
                deadline = time.monotonic() + (30 if is_asked_again or n > 1 else 3)
                while len(reports) == before and time.monotonic() < deadline:
                    await asyncio.sleep(0.05)
        finally:
            process.kill()

    asyncio.run(ask())
    assert [report.taken for report in reports] == sizes[: 1 + is_asked_again]


def test_a_model_that_its_process_cannot_open_is_said_and_no_process_is_left(tmp_path: Path) -> None:
    opening = Opening(
        str(tmp_path), "models:/a/1", "models:/m-1", "mlflow", None, False, 0.1, None, None, 1, "info", False
    )

    async def start() -> None:
        process = ShadowProcess(print, print)
        with pytest.raises(BackendError, match="model"):
            await process.start(opening)
        process.send(b"to nobody")

    before = set(psutil.Process().children())
    asyncio.run(start())
    until(lambda: not set(psutil.Process().children()) - before, 10)
