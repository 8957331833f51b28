"""The fork server and its jobs, with real processes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fin_pyfunc.host.confinement import reduced
from fin_pyfunc.host.fork_client import ForkClient, ForkServerError
from fin_pyfunc.host.fork_server import PRELOAD
from fin_pyfunc.host.lifeline import Lifeline
from fin_pyfunc.host.messages import Finished, Run, send
from tests.hosts.processes import fork_server_of, is_running, read_pid, wait_for

SECRET = "s3cret-of-the-server"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def client() -> Iterator[ForkClient]:
    """One that shares a fork server with all tests of this file; the server's environment has a secret."""
    lifeline = Lifeline()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
        patch.setenv("FIN_PYFUNC_API_KEY", SECRET)
        patch.setenv("MODEL_REGION", "eu")
        yield ForkClient(lifeline, reduced(os.environ, ["MODEL_REGION"]), ("numpy", "threadpoolctl"))
    folder = lifeline.folder
    lifeline.close()
    wait_for(lambda: not folder.exists())


def run(client: ForkClient, name: str, folder: Path, **options: Any) -> Finished:
    return client.run(Run(**{"target": f"tests.hosts.jobs:{name}", "folder": str(folder), "seconds": 60.0, **options}))


def seen_by(client: ForkClient, folder: Path, **options: Any) -> dict[str, Any]:
    assert run(client, "describe", folder, **options).code == 0
    seen: dict[str, Any] = json.loads((folder / "seen.json").read_text())
    return seen


def test_a_job_is_done_in_a_child(client: ForkClient, tmp_path: Path) -> None:
    assert run(client, "write_word", tmp_path) == Finished(code=0, is_late=False)
    assert (tmp_path / "word").read_text() == "done"


def test_a_child_knows_no_secret_of_the_server(client: ForkClient, tmp_path: Path) -> None:
    seen = seen_by(client, tmp_path)
    assert SECRET not in json.dumps(seen)
    assert seen["environ"]["MODEL_REGION"] == "eu"  # which the operator has listed
    assert seen["environ"]["PATH"] == os.environ["PATH"]


def test_a_child_is_confined(client: ForkClient, tmp_path: Path) -> None:
    seen = seen_by(client, tmp_path, memory_bytes=1 << 30, nice=3)
    assert seen["status"]["NoNewPrivs"] == "1"
    assert seen["cwd"] == seen["environ"]["HOME"] == seen["environ"]["TMPDIR"] != str(Path.cwd())
    assert seen["umask"] == 0o077
    limits = {line[:26].strip(): line[26:].split()[0] for line in seen["limits"].splitlines()}
    assert limits["Max core file size"] == "0"
    assert int(limits["Max open files"]) == 1024
    assert 1 << 30 < int(limits["Max data size"]) < 2 << 30
    wait_for(lambda: not Path(seen["cwd"]).exists())  # it goes with the child


def test_a_child_has_no_file_of_the_servers_open(client: ForkClient, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.set_inheritable(True)
        seen = seen_by(client, tmp_path)
        run(client, "send_on_any_socket", tmp_path)
    opened = {int(fd): where for fd, where in seen["fds"].items() if not where.startswith("/proc/")}
    assert opened == dict.fromkeys(range(3), os.devnull)
    assert json.loads((tmp_path / "sockets").read_text()) == []


def test_a_crash_is_an_exit_code(client: ForkClient, tmp_path: Path) -> None:
    assert run(client, "crash", tmp_path) == Finished(code=-signal.SIGSEGV, is_late=False)


def test_a_job_that_takes_too_long_is_killed(client: ForkClient, tmp_path: Path) -> None:
    assert run(client, "hold_the_interpreter", tmp_path, seconds=0.5) == Finished(code=-signal.SIGKILL, is_late=True)


def test_a_job_that_takes_too_much_memory_ends(client: ForkClient, tmp_path: Path) -> None:
    from fin_pyfunc.host.children import OUT_OF_MEMORY

    assert run(client, "fill_memory", tmp_path, memory_bytes=256 << 20) == Finished(code=OUT_OF_MEMORY, is_late=False)
    assert (tmp_path / "began").exists()


def test_what_a_job_has_started_ends_with_it(client: ForkClient, tmp_path: Path) -> None:
    assert run(client, "leave_a_process_behind", tmp_path).code == 0
    wait_for(lambda: not (tmp_path / "pid").exists() or not is_running(int((tmp_path / "pid").read_text() or "0")))


def test_a_job_that_nobody_waits_for_any_more_is_killed(client: ForkClient, tmp_path: Path) -> None:
    job = {"target": "tests.hosts.jobs:sleep", "folder": str(tmp_path), "seconds": 60.0}
    code = f"""
        import os, sys
        from pathlib import Path
        from fin_pyfunc.host.fork_client import ForkClient
        from fin_pyfunc.host.messages import Run, send
        known = {{"folder": Path({str(client._lifeline.folder)!r}), "secret": {client._lifeline.secret!r}}}
        lifeline = type("", (), known)
        connection = ForkClient(lifeline, {{}}).connect()
        send(connection, Run(**{job}))
        sys.stdin.read()
    """
    asker = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdin=subprocess.PIPE, cwd=ROOT)
    pid = read_pid(tmp_path / "pid")
    assert is_running(pid)
    asker.kill()
    asker.wait()
    wait_for(lambda: not is_running(pid))
    assert asker.stdin is not None
    asker.stdin.close()


def test_an_unconfined_job_has_the_callers_path_and_folder(client: ForkClient, tmp_path: Path) -> None:
    path = (str(tmp_path), *sys.path)
    seen = seen_by(client, tmp_path, is_confined=False, path=path, cwd=str(tmp_path))
    assert seen["path"] == list(path)
    assert seen["cwd"] == str(tmp_path)
    assert seen["status"]["NoNewPrivs"] == "0"


def test_many_jobs_run_at_once(client: ForkClient, tmp_path: Path) -> None:
    threads, codes = [], []
    for i in range(8):
        folder = tmp_path / str(i)
        folder.mkdir()
        threads.append(threading.Thread(target=lambda f=folder: codes.append(run(client, "write_word", f).code)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0] * 8


def test_a_fork_server_that_was_killed_is_started_again_for_the_next_job(tmp_path: Path) -> None:
    lifeline = Lifeline()
    client = ForkClient(lifeline, reduced(os.environ), ())
    ends = list[object]()

    def ask() -> None:
        try:
            run(client, "hold_the_interpreter", tmp_path)
        except ForkServerError as e:
            ends.append(e)

    waiting = threading.Thread(target=ask)
    waiting.start()
    pid = read_pid(tmp_path / "pid")
    os.kill(fork_server_of(lifeline.folder), signal.SIGKILL)
    waiting.join(5)
    assert len(ends) == 1
    wait_for(lambda: not is_running(pid))  # stuck in C code as it was
    assert run(client, "write_word", tmp_path).code == 0
    lifeline.close()


WORKERS = """
    import os, sys, time
    from pathlib import Path
    from fin_pyfunc.host.confinement import reduced
    from fin_pyfunc.host.fork_client import ForkClient
    from fin_pyfunc.host.lifeline import Lifeline
    from fin_pyfunc.host.messages import Run

    out = Path(sys.argv[1])
    lifeline = Lifeline()
    client = ForkClient(lifeline, reduced(os.environ), ())
    for i in range(2):
        if not os.fork():
            folder = out / str(i)
            folder.mkdir()
            client.run(Run(target="tests.hosts.jobs:hold_the_interpreter", folder=str(folder), seconds=600.0))
    print(lifeline.folder, flush=True)
    time.sleep(600)
"""


def test_the_fork_server_is_shared_and_ends_with_the_last_process_however_that_ends(tmp_path: Path) -> None:
    code = textwrap.dedent(WORKERS)
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True, process_group=0
    ) as arbiter:
        assert arbiter.stdout is not None
        folder = Path(arbiter.stdout.readline().strip())
        jobs = [read_pid(tmp_path / str(i) / "pid") for i in range(2)]
        server = fork_server_of(folder)  # one for both
        os.kill(arbiter.pid, signal.SIGKILL)
        time.sleep(0.2)
        assert all(map(is_running, [server, *jobs]))  # the workers are still there
        os.killpg(arbiter.pid, signal.SIGKILL)
    wait_for(lambda: not any(map(is_running, [server, *jobs])))
    wait_for(lambda: not folder.exists())


def test_nothing_that_is_preloaded_starts_a_thread(tmp_path: Path) -> None:
    """The child of a process with threads would find their locks held for ever."""
    lifeline = Lifeline()
    client = ForkClient(lifeline, reduced(os.environ), PRELOAD)
    assert run(client, "write_word", tmp_path).code == 0
    tasks = Path(f"/proc/{fork_server_of(lifeline.folder)}/task")
    assert len(list(tasks.iterdir())) == 1
    lifeline.close()


def test_whoever_does_not_know_the_secret_is_not_heard(client: ForkClient, tmp_path: Path) -> None:
    """A model host runs as the same user and can find the socket; it must not have models opened or jobs run."""
    client.connect().close()
    for first in (b"", b"x" * 32, hashlib.sha256(client._lifeline.secret).digest()):
        stranger = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stranger.connect(str(client._lifeline.folder / "socket"))
        with contextlib.suppress(OSError):
            stranger.send(first)
            send(stranger, Run(target="tests.hosts.jobs:describe", folder=str(tmp_path), seconds=5.0))
        stranger.settimeout(10)
        with contextlib.suppress(ConnectionError):
            assert stranger.recv(1024) == b""
        stranger.close()
    assert not list(tmp_path.iterdir())
