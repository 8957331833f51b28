"""What workers share: no change is lost, whoever makes it, and whoever dies while making it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fin_pyfunc.serving.cache import ModelCache
from fin_pyfunc.serving.motion import commands
from fin_pyfunc.serving.motion.board import CAPACITY, Board, BoardFullError
from fin_pyfunc.serving.motion.names import normal, registered_name
from fin_pyfunc.serving.motion.state import NotStoppedError, StateFile
from fin_pyfunc.serving.motion.stops import Stops
from fin_pyfunc.serving.motion.tally import Tally
from fin_pyfunc.serving.resolver import Resolver

NAMES = ("a", "b", "models:/c@champion")
ID = "m-" + "0" * 32


def fork(work: object) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()  # type: ignore[operator]
        finally:
            os._exit(0)
    return pid


def plus_one(text: bytes) -> bytes:
    return str(int(text or b"0") + 1).encode()


def test_processes_that_change_the_board_lose_no_change() -> None:
    board = Board()
    workers = [fork(lambda: [board.change(plus_one) for _ in range(200)]) for _ in range(4)]
    for pid in workers:
        os.waitpid(pid, 0)
    assert board.read() == (800, b"800")


def test_a_process_killed_while_it_changes_the_board_leaves_it_whole_and_unlocked() -> None:
    board = Board()

    def for_ever() -> None:
        while True:
            board.change(plus_one)

    for i in range(20):
        pid = fork(for_ever)
        before = board.generation[0]
        deadline = time.monotonic() + 30
        while board.generation[0] <= before + i:
            assert time.monotonic() < deadline
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        generation, text = board.read()
        assert int(text) == generation


def test_what_stays_the_same_is_no_change_and_what_is_too_much_is_refused() -> None:
    board = Board()
    board.change(lambda _: b"x")
    board.change(lambda _: b"x")
    assert board.read() == (1, b"x")
    with pytest.raises(BoardFullError):
        board.change(lambda _: b"x" * CAPACITY)
    assert board.read() == (1, b"x")


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(NAMES), st.booleans(), st.booleans()), min_size=1, max_size=25
    )
)
def test_two_workers_and_a_command_that_stop_and_start_end_up_agreeing(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, str, bool, bool]]
) -> None:
    """Whoever does what, and whether or not the file is brought up to date before the next step."""
    path = tmp_path_factory.mktemp("state") / "state.json"
    board, cache = Board(), ModelCache(Resolver(None), lambda _: None, 1, 1.0)  # type: ignore[arg-type, return-value]
    workers = [Stops(board, StateFile(path), cache, None, Tally()) for _ in range(2)]
    expected: set[str] = set()
    for who, name, is_stop, is_kept in steps:
        if who == 2:
            for worker in workers:  # a command may come at any time, but says nothing of what it has not read
                worker.keep()
        try:
            if who == 2 and is_stop:
                commands.stop_in_file(path, name, "why")
            elif who == 2:
                commands.start_in_file(path, name)
            elif is_stop:
                workers[who].add(name, "why")
            else:
                workers[who].remove(name)
        except NotStoppedError:
            assert name not in expected
        else:
            expected = expected | {name} if is_stop else expected - {name}
        if is_kept and who != 2:
            workers[who].keep()
        if who == 2:
            workers[is_kept].look()
    for worker in workers:
        worker.keep()
    assert {stop.name for stop in workers[0].now()} == expected
    assert {stop.name for stop in StateFile(path).read() or ()} == expected


def test_what_cannot_be_written_holds_in_memory_and_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    board, cache = Board(), ModelCache(Resolver(None), lambda _: None, 1, 1.0)  # type: ignore[arg-type, return-value]
    stops = Stops(board, StateFile(tmp_path / "state.json"), cache, None, Tally())
    stops.load()
    (tmp_path / "state.json").mkdir()  # no file can take its place
    stops.add("a", "why")
    stops.keep()
    stops.look()
    assert not stops.is_kept
    assert [stop.name for stop in stops.now()] == ["a"]
    assert sum("Until then" in record.message for record in caplog.records) == 1
    (tmp_path / "state.json").rmdir()
    stops.look()
    assert stops.is_kept
    assert [stop.name for stop in StateFile(tmp_path / "state.json").read() or ()] == ["a"]


@pytest.mark.parametrize(
    ("text", "form", "name"),
    [
        ("eurusd_rf", "eurusd_rf", None),
        ("models:/eurusd_rf", "eurusd_rf", "eurusd_rf"),
        (ID, f"models:/{ID}", None),
        (f"models:/{ID}", f"models:/{ID}", None),
        ("models:/eurusd_rf/3", "models:/eurusd_rf/3", "eurusd_rf"),
        ("models:/eurusd_rf@champion", "models:/eurusd_rf@champion", "eurusd_rf"),
        (f"models:/{ID}/2", f"models:/{ID}/2", ID),
        ("runs:/abc/model", "runs:/abc/model", None),
        ("sha256:00", "sha256:00", None),
    ],
)
def test_an_operators_word_has_one_form(text: str, form: str, name: str | None) -> None:
    assert normal(text) == form
    assert registered_name(text) == name
