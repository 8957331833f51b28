"""The operators' routes: by a Unix socket for the server's own user, never over TCP without a credential."""

from __future__ import annotations

import http.client
import multiprocessing
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import requests

from fin_pyfunc.serving.admin.client import NoServerError, find_socket
from fin_pyfunc.serving.admin.listener import listen
from fin_pyfunc.serving.callers.keys import KeyFile
from fin_pyfunc.serving.callers.principal import Scope
from fin_pyfunc.serving.motion.commands import CommandError, ask_socket
from tests.conftest import free_port
from tests.servers import COMMAND, Serving, clean_environment, serving
from tests.test_error_table import refused
from tests.test_tls import certificate

STOP = {"name": "eurusd_rf", "reason": "Its limits were breached."}
SOCKET = "FIN_PYFUNC__ADMIN__SOCKET"
#: A user who is nobody here.
STRANGER = 42_424
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def private() -> Iterator[Path]:
    """A folder of this user alone, with a path short enough for sockets."""
    folder = tempfile.mkdtemp()
    yield Path(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("admin")
    env = {"MLFLOW_TRACKING_URI": "sqlite:///m.db", "FIN_PYFUNC__LIMITS__MAX_CONNECTIONS": "8"}
    with serving(folder=folder, env=env) as server:
        yield server


def start(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A server that does not start, and what it says."""
    done = subprocess.run(
        [*COMMAND, "--port", str(free_port()), *arguments],
        cwd=folder,
        env=clean_environment({"MLFLOW_TRACKING_URI": "sqlite:///m.db", **env}),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done


def cli(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fin_pyfunc_cli", "models", *arguments]
    return subprocess.run(command, cwd=folder, env=clean_environment(), capture_output=True, text=True, timeout=60)


def ask(path: Path, route: str = "/admin/models") -> httpx.Response:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), timeout=60) as client:
        return client.get(f"http://localhost{route}")


def socket_of(server: Serving) -> Path:
    return find_socket(int(server.url.rpartition(":")[2]))


class Proxy(threading.Thread):
    """A reverse proxy on the same host that hands bytes on as they are, and adds no header."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port, self._listening = port, socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.start()

    def run(self) -> None:
        client, _ = self._listening.accept()
        with client, socket.create_connection(("127.0.0.1", self._port)) as server:
            server.sendall(client.recv(65_536))
            while piece := server.recv(65_536):
                client.sendall(piece)


def test_a_proxy_on_the_same_host_that_adds_no_header_leads_nowhere(served: Serving) -> None:
    port = int(served.url.rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", Proxy(port).port, timeout=30)
    connection.request("GET", "/admin/models", headers={"Host": f"127.0.0.1:{port}", "Connection": "close"})
    answered = connection.getresponse()
    assert answered.status == 403
    assert b"deployment.api.admin.socket" in answered.read()
    connection.close()


@pytest.mark.parametrize("path", ["/admin", "/admin/", "/admin/models", "/admin/shadow", "/admin/any/thing"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_nobody_is_the_operator_over_tcp_without_a_credential(served: Serving, method: str, path: str) -> None:
    for headers in ({}, {"Host": "localhost"}, {"X-Forwarded-For": "127.0.0.1"}, {"Authorization": "Bearer x"}):
        prepared = requests.Request(method, served.url, headers=headers, json=STOP).prepare()
        prepared.url = served.url + path
        with requests.Session() as session:
            assert "fin-pyfunc models" in refused(session.send(prepared, timeout=30), 403)["detail"]


def test_the_socket_answers_operators_and_nothing_else(served: Serving) -> None:
    stopped = served.admin("/admin/models/stop", STOP)
    assert stopped.status_code == 200
    (stop,) = stopped.json()["stopped"]
    assert stop["by"] == pwd.getpwuid(os.geteuid()).pw_name
    assert served.admin("/admin/models").json()["stopped"] == [stop]
    assert served.admin("/admin/models/start", {"name": STOP["name"]}).json()["stopped"] == []
    assert served.admin("/health").json()["status"] == "healthy"
    assert served.admin("/health/ready").status_code == 200
    refused(served.admin("/admin/none"), 404)
    for path in ("/", "/predict", "/predict/batch", "/invocations", "/models", "/metrics", "/docs", "/openapi.json"):
        assert "TCP port" in refused(served.admin(path, {"features": {}}), 404)["detail"]


def test_the_socket_and_its_folder_are_its_owners_alone(served: Serving) -> None:
    path = socket_of(served)
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.lstat().st_mode) == 0o700
    assert path.lstat().st_uid == path.parent.lstat().st_uid == os.geteuid()


def as_stranger(work: Callable[[], str], folder: Path) -> str:
    """What a function says in a child process that is another user's; Python itself need not be that user's to run."""
    said = folder / "said"

    def become() -> None:
        said.touch()
        said.chmod(0o666)
        os.setgroups([])
        os.setgid(STRANGER)
        os.setuid(STRANGER)
        said.write_text(work())

    folder.chmod(0o755)
    child = multiprocessing.get_context("fork").Process(target=become)
    child.start()
    child.join(60)
    assert child.exitcode == 0
    return said.read_text()


@as_root
def test_another_user_is_refused_by_the_kernel(served: Serving, private: Path, tmp_path: Path) -> None:
    path = private / "admin.sock"
    env = {SOCKET: str(path), "MLFLOW_TRACKING_URI": "sqlite:///m.db"}

    def stopped() -> str:
        try:
            ask_socket(path, "stop", STOP)
        except CommandError as e:
            return str(e)
        return "stopped"

    with serving(folder=tmp_path, env=env), tempfile.TemporaryDirectory() as shared:
        assert "another user's" in as_stranger(stopped, Path(shared))
        private.chmod(0o755)  # with its folder open the socket's own mode holds
        assert "another user's" in as_stranger(stopped, Path(shared))
        assert ask(path).json()["stopped"] == []


def test_operators_get_through_when_tcp_has_no_connection_left(served: Serving) -> None:
    address = ("127.0.0.1", int(served.url.rpartition(":")[2]))
    with ExitStack() as stack:
        for _ in range(12):
            stack.enter_context(socket.create_connection(address))
        time.sleep(0.5)
        refused(requests.get(served.url + "/health", timeout=30), 503)
        assert served.admin("/admin/models").status_code == 200


def test_with_keys_the_socket_needs_none_and_tcp_wants_the_scope(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    keys = {scope.value: file.add(scope.value, [scope]) for scope in (Scope.ADMIN, Scope.PREDICT)}
    env = {"FIN_PYFUNC__AUTH__MODE": "keys", "FIN_PYFUNC__AUTH__KEYS_FILE": str(tmp_path / "keys.json")}
    with serving("--workers", "2", folder=tmp_path, env={**env, "MLFLOW_TRACKING_URI": "sqlite:///m.db"}) as server:
        server.wait_for_log("MLflow answers", times=2)

        def by_tcp(key: str) -> requests.Response:
            headers = {"Authorization": f"Bearer {keys[key]}"}
            return requests.get(server.url + "/admin/models", headers=headers, timeout=30)

        assert by_tcp("admin").status_code == 200
        refused(by_tcp("predict"), 403)
        refused(requests.get(server.url + "/admin/models", timeout=30), 401)
        assert server.admin("/health").json()["cached_models"] == 0
        with ThreadPoolExecutor(8) as pool:
            workers = {
                answered.json()["worker"] for answered in pool.map(lambda _: server.admin("/admin/models"), range(64))
            }
        assert len(workers) == 2


def test_with_tls_the_socket_speaks_plain_http(private: Path, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    arguments = ("--certfile", str(cert), "--keyfile", str(key))
    env = {SOCKET: str(private / "admin.sock"), "MLFLOW_TRACKING_URI": "sqlite:///m.db"}
    with serving(*arguments, folder=tmp_path, env=env, wait_for=None) as server:
        server.wait_for_log("MLflow answers")
        assert ask(private / "admin.sock").status_code == 200


def test_a_reload_keeps_the_socket_or_takes_the_new_path(private: Path, tmp_path: Path) -> None:
    config = tmp_path / "api.yaml"

    def configured(at: str) -> str:
        config.write_text(f"deployment: {{api: {{admin: {{socket: {at}}}}}}}")
        return at

    first, second = (Path(private / name) for name in ("1.sock", "2.sock"))
    configured(str(first))
    with serving("--config", str(config), folder=tmp_path, env={"MLFLOW_TRACKING_URI": "sqlite:///m.db"}) as server:
        inode, worker = first.stat().st_ino, ask(first).json()["worker"]

        def reloaded(times: int) -> None:
            server.process.send_signal(signal.SIGHUP)
            server.wait_for_log("is told to leave", times=times)

        server.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 60
        while ask(first).json()["worker"] == worker:  # no request fails meanwhile
            assert time.monotonic() < deadline, server.log()
        assert first.stat().st_ino == inode
        server.wait_for_log("is told to leave")
        configured(str(second))
        reloaded(2)
        assert ask(second).status_code == 200
        assert not first.exists()
        configured("null")
        reloaded(3)
        assert not second.exists()
        configured(str(tmp_path / "none" / "there" / "3.sock"))
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("the new configuration or code is not taken")
        assert server.process.poll() is None


def test_the_socket_is_removed_at_the_end_and_a_killed_servers_is_replaced(private: Path, tmp_path: Path) -> None:
    path = private / "admin.sock"
    env = {SOCKET: str(path), "MLFLOW_TRACKING_URI": "sqlite:///m.db"}
    with serving(folder=tmp_path, env=env) as server:
        worker = ask(path).json()["worker"]
        server.process.kill()
        os.kill(worker, signal.SIGKILL)
        server.process.wait()
    assert path.is_socket()
    none = cli("stop", "m", "--reason", "r", "--socket", str(path), folder=tmp_path)
    assert "No server answers" in none.stderr
    with serving(folder=tmp_path, env=env):
        assert ask(path).status_code == 200
    assert not path.exists()


def test_a_second_server_takes_no_socket_from_the_first(private: Path, tmp_path: Path, served: Serving) -> None:
    path, port = socket_of(served), served.url.rpartition(":")[2]
    inode = path.stat().st_ino
    assert "Another server listens on the admin socket" in start(tmp_path, **{SOCKET: str(path)}).stderr
    env = {"MLFLOW_TRACKING_URI": "sqlite:///m.db"}
    with serving("--host", "127.0.0.2", "--port", port, folder=tmp_path, env=env, wait_for=None) as second:
        second.wait_for_log("there is no admin socket: Another server")
        second.wait_for_log("MLflow answers")
        assert path.stat().st_ino == inode
    assert path.stat().st_ino == inode
    assert served.admin("/admin/models").status_code == 200


def test_two_servers_that_start_at_once_do_not_take_each_others_socket(private: Path) -> None:
    path = private / "admin.sock"
    for _ in range(20):
        with socket.socket(socket.AF_UNIX) as leftover:
            leftover.bind(str(path))
        with ThreadPoolExecutor(4) as pool:
            tries = [pool.submit(listen, str(path), 1) for _ in range(4)]
        refusals = [str(done.exception()) for done in tries if done.exception() is not None]
        assert len(refusals) == 3
        assert all("Another server listens" in refusal for refusal in refusals)
        (one,) = [done.result() for done in tries if done.exception() is None]
        assert one is not None
        one.close()
        assert not path.exists()


@pytest.mark.parametrize("at", ["open", "linked", "long", "nowhere", "file", "relative"])
def test_a_path_that_is_not_safe_or_possible_ends_the_start_with_a_sentence(
    at: str, private: Path, tmp_path: Path
) -> None:
    (private / "open").mkdir(mode=0o755)
    (private / "linked").symlink_to(private)
    (private / "file").write_text("kept")
    path, said = {
        "open": (private / "open" / "s", "nobody else may enter it"),
        "linked": (private / "linked" / "s", "nobody else may enter it"),
        "long": (private / ("x" * 100) / "s", "a socket's may have"),
        "nowhere": (private / "no" / "such" / "s", "cannot be made"),
        "file": (private / "file", "no socket"),
        "relative": (Path("admin.sock"), "expected auto or an absolute path"),
    }[at]
    assert said in start(tmp_path, **{SOCKET: str(path)}).stderr
    assert (private / "file").read_text() == "kept"


@as_root
def test_a_default_folder_that_another_user_made_is_not_used(private: Path, tmp_path: Path) -> None:
    folder = private / f"fin-pyfunc-{os.geteuid()}"
    folder.mkdir(mode=0o700)
    os.chown(folder, STRANGER, STRANGER)
    env = {"TMPDIR": str(private), "MLFLOW_TRACKING_URI": "sqlite:///m.db"}
    with serving(folder=tmp_path, env=env) as server:
        assert not list(folder.iterdir())
        assert server.admin("/admin/models").status_code == 200


def test_the_command_finds_the_server_by_its_port_or_its_socket(served: Serving, tmp_path: Path) -> None:
    port = served.url.rpartition(":")[2]
    for where in (("--port", port), ("--socket", str(socket_of(served)))):
        stopped = cli("stop", "eurusd_rf", "--reason", "because", *where, folder=tmp_path)
        assert (stopped.returncode, stopped.stdout) == (0, "stopped eurusd_rf\n")
        assert served.admin("/admin/models").json()["stopped"][0]["reason"] == "because"
        started = cli("start", "eurusd_rf", *where, folder=tmp_path)
        assert (started.returncode, started.stdout) == (0, "started eurusd_rf again\n")
    none = cli("stop", "m", "--reason", "r", "--port", str(free_port()), folder=tmp_path)
    assert (none.returncode, none.stderr.count("\n")) == (1, 1)
    assert "No server of this user" in none.stderr
    both = cli("stop", "m", "--reason", "r", "--port", port, "--file", "state.json", folder=tmp_path)
    assert both.returncode == 2
    assert "give one of them" in both.stderr
    by_tcp = cli("stop", "m", "--reason", "r", "--server", served.url, folder=tmp_path)
    assert by_tcp.returncode == 1
    assert "deployment.api.auth.mode" in by_tcp.stderr


@as_root
def test_the_command_needs_no_port_for_the_only_server_of_its_user(private: Path) -> None:
    def found() -> str:
        try:
            return find_socket(None).name
        except NoServerError as e:
            return str(e)

    def work() -> str:
        said = [found()]
        first = listen("auto", 50_001)
        said.append(found())
        second = listen("auto", 50_002)
        said.append(found())
        for listener in (first, second):
            assert listener is not None
            listener.close()
        assert first is not None
        shutil.rmtree(Path(first.path).parent)
        return "\n".join(said)

    none, one, several = as_stranger(work, private).splitlines()
    assert "No server of this user" in none
    assert one == "50001.sock"
    assert "(ports 50001, 50002)" in several


def test_without_a_socket_the_state_file_still_works_and_the_command_says_so(tmp_path: Path) -> None:
    env = {SOCKET: "", "FIN_PYFUNC__ADMIN__STATE_FILE": "state.json", "MLFLOW_TRACKING_URI": "sqlite:///m.db"}
    with serving(folder=tmp_path, env=env) as server:
        port = server.url.rpartition(":")[2]
        assert "admin socket" not in server.log()
        assert "--socket" in cli("stop", "m", "--reason", "r", "--port", port, folder=tmp_path).stderr
        assert cli("stop", "m", "--reason", "r", "--file", "state.json", folder=tmp_path).returncode == 0
        server.wait_for_log("stopped m")
        refused(requests.get(server.url + "/admin/models", timeout=30), 403)
