"""Model hosts that end: what that costs, and when the model is back."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest

from fin_pyfunc.host.opening import Opening
from fin_pyfunc.model.errors import ArtifactError, ModelUnavailableError
from fin_pyfunc.serving.errors import answer
from fin_pyfunc.serving.hosts.connection import Limits
from fin_pyfunc.serving.hosts.hosted_model import HostedModel
from fin_pyfunc.serving.hosts.hosts import Hosts
from fin_pyfunc.serving.metrics.folder import expose
from fin_pyfunc.serving.metrics.values import Values
from tests.hosts import behaviour
from tests.hosts.asking import FRAME, answers_again, pid_of, rows_that, surroundings
from tests.hosts.conftest import Folders
from tests.hosts.processes import is_running, wait_for


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        (behaviour.CRASH, "crashed"),
        (behaviour.HANG, "hung"),
        (behaviour.SLEEP, "hung"),
        (behaviour.FILL_MEMORY, "memory"),
        (behaviour.STARTS_A_PROCESS, "crashed"),
        (behaviour.SYSTEM_EXIT, "crashed"),
    ],
    ids=["crash", "hang", "sleep", "memory", "child", "exit"],
)
def test_a_host_that_ends_costs_the_requests_in_it_and_is_back(
    behaving: HostedModel, does: int, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    counted = list[str]()
    behaving._connection._on_end = counted.append
    began = time.monotonic()
    with pytest.raises(ModelUnavailableError, match="try again in a moment"):
        behaving.backend.score(rows_that(does))
    assert time.monotonic() - began < 5
    answers_again(behaving)
    wait_for(lambda: counted == [reason])
    assert behaving.outage is None
    assert "secret" not in caplog.text


def test_an_end_is_counted_and_answered_503(folders: Folders, tmp_path: Path) -> None:
    values = Values(tmp_path)
    hosts = Hosts(Limits(1 << 30, open_seconds=20.0, call_seconds=20.0), values=values)
    model = hosts.open(folders.pyfunc("behaviour", behaviour.Behaviour), "models:/m-behaviour")
    assert len(hosts) == 1
    with pytest.raises(ModelUnavailableError) as raised:
        model.backend.score(rows_that(behaviour.CRASH))
    answered = answer(raised.value, "an id")
    assert answered.status == 503
    assert answered.headers == {"Retry-After": "1"}
    assert answered.body.detail == str(raised.value)

    def is_counted() -> bool:
        values.flush()
        return b'fin_pyfunc_host_restarts_total{reason="crashed"} 1.0' in expose(tmp_path, "text/plain")[0]

    wait_for(is_counted)
    wait_for(lambda: hosts.outages() == {})
    hosts.close()


def test_a_host_that_is_killed_is_back_without_a_request(hosts: Hosts, folders: Folders) -> None:
    model = hosts.open(folders.pyfunc("surroundings", behaviour.Surroundings), "surroundings")
    pid = pid_of(model)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: model.outage is not None)
    wait_for(lambda: model.outage is None, 3)
    assert pid_of(model) != pid


def test_three_ends_within_a_minute_take_the_model_out(behaving: HostedModel) -> None:
    for _ in range(2):
        with pytest.raises(ModelUnavailableError):
            behaving.backend.score(rows_that(behaviour.CRASH))
        answers_again(behaving)
    with pytest.raises(ModelUnavailableError):
        behaving.backend.score(rows_that(behaviour.CRASH))
    wait_for(lambda: behaving.outage is not None and behaving.outage.is_out)
    began = time.monotonic()
    with pytest.raises(ModelUnavailableError, match=r"was ended by SIGSEGV.* too often and is left alone for") as told:
        behaving.backend.score(FRAME)
    assert time.monotonic() - began < 0.1
    assert 25 < told.value.retry_seconds <= 30


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("crash", r"Opening the model ended its process \(was ended by SIGSEGV\): its files are damaged"),
        ("memory", r"Opening the model ended its process \(ran out of memory\): it needs more memory than deployment"),
        ("raise", r"MLflow could not load the model \(ValueError\): its files are damaged"),
        ("library", r"The model needs the Python package 'a_library_that_nobody_has'"),
    ],
)
def test_a_model_that_cannot_be_opened_says_why(hosts: Hosts, folders: Folders, how: str, said: str) -> None:
    opening = folders.pyfunc(f"fails-{how}", lambda: behaviour.FailsToOpen(how))
    with pytest.raises(ArtifactError, match=said) as told:
        hosts.open(opening, how)
    assert "secret" not in str(told.value)


def test_a_model_that_takes_too_long_to_open_is_ended(folders: Folders) -> None:
    hosts = Hosts(Limits(1 << 30, open_seconds=1.0, call_seconds=1.0))
    with pytest.raises(ModelUnavailableError, match="took longer than the 1 s it may take"):
        hosts.open(folders.pyfunc("fails-hang", lambda: behaviour.FailsToOpen("hang")), "hang")
    hosts.close()


def test_a_host_ends_after_its_model_was_let_go(hosts: Hosts, folders: Folders) -> None:
    opening = folders.pyfunc("surroundings", behaviour.Surroundings)
    model = hosts.open(Opening(form="pyfunc", path=opening.path, digest="let-go"), "surroundings")
    seen = surroundings(model)
    again = hosts.open(Opening(form="pyfunc", path=opening.path, digest="let-go"), "surroundings")
    assert pid_of(again) == seen["pid"]  # one host for both
    model.close()
    time.sleep(2.5)
    assert is_running(seen["pid"])
    del again  # nothing refers to it any more
    wait_for(lambda: not is_running(seen["pid"]))
    wait_for(lambda: not Path(seen["cwd"]).exists())


def test_hosts_die_with_the_fork_server_and_are_opened_again_by_another(folders: Folders) -> None:
    hosts = Hosts(Limits(1 << 30, open_seconds=20.0, call_seconds=20.0))
    model = hosts.open(folders.pyfunc("surroundings", behaviour.Surroundings), "surroundings")
    pid = pid_of(model)
    os.kill(psutil.Process(pid).ppid(), signal.SIGKILL)
    wait_for(lambda: not is_running(pid))
    wait_for(lambda: model.outage is not None)
    wait_for(lambda: model.outage is None, 30)  # its imports are made again
    assert pid_of(model) != pid
    hosts.close()


def test_the_folder_may_go_while_the_host_stays(hosts: Hosts, folders: Folders, tmp_path: Path) -> None:
    """It belongs to the worker that opened the model first."""
    opening = folders.pyfunc("surroundings", behaviour.Surroundings)
    copy = tmp_path / "model"
    shutil.copytree(opening.path, copy)
    model = hosts.open(Opening(form="pyfunc", path=str(copy), digest="copy"), "surroundings")
    shutil.rmtree(copy)
    other = tmp_path / "other"
    shutil.copytree(opening.path, other)
    again = hosts.open(Opening(form="pyfunc", path=str(other), digest="copy"), "surroundings")
    assert pid_of(again) == pid_of(model)
