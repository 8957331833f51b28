"""Thousands of hostile model folders: whatever is in them, nothing of theirs runs in a server that trusts data."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from mlflow import MlflowClient

from tests.security import hostile, hostile_cases
from tests.security.canary import Canary
from tests.security.hostile import ROW, Case, Hostile
from tests.servers import Serving, serving

ROOT = Path(__file__).parents[2]
CASES = hostile_cases.cases()


class Opening(NamedTuple):
    """A process that opens models where a server would, and what it opens them from."""

    hostile: Hostile
    run: str
    tracking_uri: str
    models: Path
    expected: dict[str, Any]

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.security.opener", self.tracking_uri, self.run, self.models],
            cwd=ROOT,
            env={**os.environ, **self.hostile.canary.env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )


def told(process: subprocess.Popen[str], path: Path) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{path}\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise AssertionError(f"the process ended with {process.wait(30)}")
    found: dict[str, Any] = json.loads(line)
    return found


@pytest.fixture(scope="module")
def opening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opening]:
    folder = tmp_path_factory.mktemp("hostile")
    canary = Canary(folder)
    canary.assert_notices()
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(uri)
    run = client.create_run(client.create_experiment("e", artifact_location=(folder / "artifacts").as_uri())).info
    models = Path(run.artifact_uri.removeprefix("file://"))
    models.mkdir(parents=True)
    made = Opening(Hostile(folder / "bases", canary), run.run_id, uri, models, {})
    process = made.start()
    for base in sorted({case.base for case in CASES}):
        path = made.hostile.write(Case("nothing", base, lambda path, hostile: None), models / "base")
        made.expected[base] = told(process, path)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    process.communicate(timeout=60)
    yield made
    canary.close()


def test_base_models_are_answered_if_they_are_data_and_refused_if_not(opening: Opening) -> None:
    for base, said in opening.expected.items():
        is_data = base in hostile.DATA or base in ("bare.skops", "bare.onnx")
        for origin, answer in said.items():
            assert ("refused" not in answer and "predict" in answer) == is_data, (base, origin, answer)
    opening.hostile.canary.assert_untouched()


def check(opening: Opening, cases: list[Case]) -> Counter[str]:
    """Open every case in one process after another; returns how many came to what."""
    canary, wrong, outcomes = opening.hostile.canary, [], Counter[str]()
    process = opening.start()
    for i, case in enumerate(cases):
        path = opening.hostile.write(case, opening.models / f"c{i}")
        try:
            said = told(process, path)
        except AssertionError as e:
            wrong.append(f"{case.name}: {e}")
            process = opening.start()
            continue
        wrong += [f"{case.name}: {problem}" for problem in problems(opening, case, said)]
        outcomes.update("refused" if "refused" in answer else "answered" for answer in said.values())
        try:
            canary.assert_untouched()
        except AssertionError as e:
            wrong.append(f"{case.name}: the canary was touched ({e})")
            canary.reset()
        for left in opening.models.iterdir():
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
    process.communicate(timeout=60)
    assert not wrong, f"{len(wrong)} of {len(cases)}:\n" + "\n".join(wrong[:40])
    return outcomes


def problems(opening: Opening, case: Case, said: dict[str, Any]) -> Iterator[str]:
    if "changed" in said:
        yield f"changed the process: {said.pop('changed')}"
    # a part of another base model may have been copied in: then it is that model
    expected = [answer for of in opening.expected.values() for answer in of.values()]
    for origin, answer in said.items():
        if "failed" in answer:
            yield f"{origin}: {answer['failed']}"
        elif "refused" in answer:
            for held in (str(opening.models), opening.hostile.canary.folder.name, hostile.SECRET):
                if held in answer["refused"]:
                    yield f"{origin}: the refusal tells {held}"
        else:
            for route in ("predict", "invocations"):
                if route in answer and answer[route] not in [each.get(route) for each in expected]:
                    yield f"{origin}: {route} answered {answer[route]}"


def test_a_sample_of_hostile_models_never_runs_and_never_answers_otherwise_than_its_base(opening: Opening) -> None:
    outcomes = check(opening, hostile_cases.sample(CASES, 150))
    assert outcomes["refused"] > outcomes["answered"] > 0, outcomes


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_every_hostile_model_never_runs_and_never_answers_otherwise_than_its_base(opening: Opening) -> None:
    assert len(CASES) > 500
    check(opening, CASES)


# --- models that may run code, in processes of their own


@pytest.fixture(scope="module")
def running(opening: Opening, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A real server that may load anything, its models in processes of their own."""
    env = {
        **opening.hostile.canary.env,
        "MLFLOW_TRACKING_URI": opening.tracking_uri,
        "FIN_PYFUNC__MODELS__TRUST": "all",
        "FIN_PYFUNC__MODELS__FILE_ROOTS": str(opening.models),
        "FIN_PYFUNC__MODELS__UNKNOWN_PER_SECOND": "1000000",
        "FIN_PYFUNC__CACHE__MAX_MODELS": "1",
    }
    with serving(folder=tmp_path_factory.mktemp("running"), env=env, wait_for="/health/live") as server:
        yield server


def host_cases(opening: Opening, server: Serving, cases: list[Case]) -> None:
    """Ask a server for every case: what runs of it runs in none of the server's own processes."""
    canary = opening.hostile.canary
    own = processes(server)
    path = opening.hostile.write(Case("nothing", "pyfunc", lambda path, hostile: None), opening.models / "base")
    assert server.predict(ROW, path.as_uri()).status_code == 200
    own |= fork_servers(processes(server))
    wrong = []
    for i, case in enumerate(cases):
        path = opening.hostile.write(case, opening.models / f"h{i}")
        for uri in (path.as_uri(), f"runs:/{opening.run}/{path.name}"):
            status = server.predict(ROW, uri).status_code
            if status not in (200, 403, 404, 422, 500, 503):
                wrong.append(f"{case.name}: {status}")
        for left in opening.models.iterdir():
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
    ran = canary.ran_in
    canary.reset()
    assert ran, "no payload ran at all, so this shows nothing"
    assert not [each for each in ran if each["pid"] in own or each["group"] in own]
    assert not wrong, "\n".join(wrong)
    assert own <= processes(server), "a process of the server has ended"


def processes(server: Serving) -> set[int]:
    """Ids of a server and all that it has started."""
    master = psutil.Process(server.process.pid)
    return {process.pid for process in [master, *master.children(recursive=True)]}


def fork_servers(pids: set[int]) -> set[int]:
    """The process that forks the hosts, without the hosts, which have its command line."""
    named = set()
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            if any("fork_server" in word for word in psutil.Process(pid).cmdline()):
                named.add(pid)
    return {pid for pid in named if psutil.Process(pid).ppid() not in named}


#: Ways in which MLflow's own loader runs what a folder brings.
RUNS = (
    "sklearn: every file leads to pickle",
    "sklearn: model_path leads to cloudpickle",
    "pyfunc: python_model leads to pickle",
    "pyfunc: with modules beside MLmodel",
    "pyfunc: with code/sitecustomize.py",
    "pyfunc: with code as a package",
    "ours-pickled: every file leads to pickle",
)


def test_what_a_sample_of_hostile_models_runs_runs_in_no_process_of_the_server(
    opening: Opening, running: Serving
) -> None:
    chosen = [case for case in CASES if case.name.startswith(RUNS)]
    host_cases(opening, running, [*chosen, *hostile_cases.sample(CASES, 15)])


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_what_hostile_models_run_runs_in_no_process_of_the_server(opening: Opening, running: Serving) -> None:
    host_cases(opening, running, hostile_cases.sample(CASES, 300))
