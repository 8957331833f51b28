"""Models in processes of their own, with real processes: what they answer, what they see, and what becomes of them."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import venv
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from fin_pyfunc.host.opening import Opening
from fin_pyfunc.model.backends.native import NativeBackend
from fin_pyfunc.model.errors import ArtifactError, ModelUnavailableError, ScoringError
from fin_pyfunc.model.features import FeatureSpec, infer
from fin_pyfunc.serving.hosts.hosted_model import HostedModel
from fin_pyfunc.serving.hosts.hosts import Hosts
from fin_pyfunc.serving.snapshot import describe
from tests.hosts import behaviour
from tests.hosts.asking import FRAME, SECRET, labels_of, rows_that, surroundings
from tests.hosts.conftest import Folders
from tests.hosts.processes import fork_server_of, is_running, read_pid, wait_for
from tests.models import bars


@pytest.mark.parametrize("estimator", [SVC(probability=False), SVC(probability=True), KNeighborsClassifier()])
@pytest.mark.parametrize("is_named", [True, False])
def test_an_estimator_answers_bit_for_bit_as_in_this_process(
    hosts: Hosts, tmp_path: Path, estimator: Any, is_named: bool
) -> None:
    X = bars()
    y = np.where(X["order_flow_imbalance"] > 0, "up", "down")
    estimator.fit(X if is_named else X.to_numpy(), y)
    (tmp_path / "estimator.pkl").write_bytes(pickle.dumps(estimator))
    spec = infer(X)
    opening = Opening(form="pickle", path=str(tmp_path / "estimator.pkl"), digest=str(tmp_path), features=spec)
    hosted = hosts.open(opening, "a pickle")
    here = NativeBackend(estimator, spec)
    assert hosted.described.kind == "estimator"
    assert hosted.described.type_name == type(estimator).__name__
    assert hosted.backend.name == "native"
    table = spec.check(X)
    for rows in (table, table[:1], np.asfortranarray(table)):
        one, other = here.score(rows), hosted.backend.score(rows)
        assert list(one.classes) == list(other.classes)
        assert (one.index == other.index).all()
        assert (one.probabilities is None) == (other.probabilities is None)
        if one.probabilities is not None and other.probabilities is not None:
            assert one.probabilities.tobytes() == other.probabilities.tobytes()
    assert len(hosted.backend.score(table[:0]).index) == 0


def test_an_estimator_without_a_signature_says_the_names_of_its_features(hosts: Hosts, tmp_path: Path) -> None:
    X = bars()
    estimator = KNeighborsClassifier().fit(X, X["spread"] > X["spread"].median())
    (tmp_path / "e.pkl").write_bytes(pickle.dumps(estimator))
    hosted = hosts.open(Opening(form="joblib", path=str(tmp_path / "e.pkl"), digest=str(tmp_path)), "a file")
    assert hosted.described.features is not None
    assert hosted.described.features.names == list(X.columns)
    assert hosted.described.classes == [False, True]
    assert labels_of(hosted, X) == estimator.predict(X).tolist()


def test_a_custom_model_answers_labels(behaving: HostedModel) -> None:
    assert behaving.described.kind == "pyfunc"
    assert behaving.backend.name == "pyfunc"
    assert labels_of(behaving, FRAME) == ["up", "down"]
    assert len(behaving.backend.score(FRAME[:0]).index) == 0


def test_what_a_model_raises_is_told_by_its_type_alone(behaving: HostedModel) -> None:
    with pytest.raises(ScoringError, match=r"^the model raised ValueError$"):
        behaving.backend.score(rows_that(behaviour.RAISE))
    with pytest.raises(ScoringError, match="a label of more than 4096 bytes"):
        behaving.backend.score(rows_that(behaviour.BAD_LABELS))
    assert labels_of(behaving, FRAME) == ["up", "down"]


def test_a_model_sees_no_secret_and_nothing_of_the_server(hosts: Hosts, folders: Folders) -> None:
    seen = surroundings(hosts.open(folders.pyfunc("surroundings", behaviour.Surroundings), "surroundings"))
    assert SECRET not in json.dumps(seen)
    assert seen["environ"]["MODEL_REGION"] == "eu"
    assert not [name for name in seen["environ"] if name.startswith(("AWS_", "MLFLOW_TRACKING"))]
    assert seen["no_new_privs"] == "1"
    assert seen["pid"] != os.getpid()
    assert seen["cwd"] == seen["environ"]["HOME"] == seen["environ"]["TMPDIR"]
    assert Path(seen["cwd"]) != Path.cwd()
    opened = [file for file in seen["files"] if not file.startswith(("/proc/", "/dev/null"))]
    # what the fork server and this worker speak to it through
    assert [file.split(":")[0] for file in opened] == ["socket", "socket"]


@pytest.mark.parametrize("order", [("1", "2"), ("2", "1")])
def test_two_models_with_a_module_of_the_same_name_answer_by_their_own(
    hosts: Hosts, folders: Folders, order: tuple[str, str]
) -> None:
    opened = {version: hosts.open(folders.rules(version), version) for version in order}
    for _ in range(2):
        for version, model in opened.items():
            assert labels_of(model, FRAME) == [version, version]


def test_a_model_that_writes_over_its_files_writes_over_a_copy(hosts: Hosts, folders: Folders, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.write_text("kept")
    opening = folders.pyfunc("rewriter", behaviour.Rewriter, artifacts={"notes": str(notes)})
    before = describe(Path(opening.path)).digest
    assert labels_of(hosts.open(opening, "rewriter"), FRAME) == ["mine", "mine"]
    assert describe(Path(opening.path)).digest == before


def test_many_threads_share_one_host(behaving: HostedModel) -> None:
    wrong = list[Any]()

    def ask(n: int) -> None:
        x = np.where(np.arange(n + 1) % 2, 1.0, -1.0)
        for _ in range(20):
            found = labels_of(behaving, pd.DataFrame({"x": x}))
            if found != ["up" if value > 0 else "down" for value in x]:
                wrong.append(found)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_pickle_of_a_class_that_is_not_here_is_refused(hosts: Hosts, tmp_path: Path) -> None:
    file = tmp_path / "model.pkl"
    file.write_bytes(b"cno_such_module\nThing\n.")
    with pytest.raises(ArtifactError, match="no_such_module"):
        hosts.open(Opening(form="pickle", path=str(file), digest=str(tmp_path)), "a pickle")


def test_features_are_what_the_signature_says(hosts: Hosts, folders: Folders, tmp_path: Path) -> None:
    opening = folders.pyfunc("behaviour", behaviour.Behaviour)
    spec: FeatureSpec = infer(FRAME)
    model = hosts.open(
        Opening(form="pyfunc", path=opening.path, digest=str(tmp_path), features=spec), "models:/m-behaviour"
    )
    assert model.described.features == spec
    assert labels_of(model, spec.check(FRAME)) == ["up", "down"]  # a matrix


def test_a_host_that_lies_is_ended(hosts: Hosts, folders: Folders, caplog: pytest.LogCaptureFixture) -> None:
    model = hosts.open(folders.pyfunc("liar", behaviour.Liar), "liar")
    assert labels_of(model, rows_that(-1)) == ["a"]
    with pytest.raises(ModelUnavailableError):
        model.backend.score(rows_that(1))
    assert "sent what no model host sends (a message of 1125899906842624 bytes" in caplog.text
    wait_for(lambda: model.outage is not None)
    wait_for(lambda: model.outage is None, 3)
    assert labels_of(model, rows_that(-1)) == ["a"]


def test_a_model_of_ours_that_brings_code_is_opened_by_its_estimator(hosts: Hosts, tmp_path: Path) -> None:
    import fin_pyfunc
    from fin_pyfunc.model import artifact

    code = tmp_path / "my_rules.py"
    code.write_text(
        "import numpy as np\n"
        "from sklearn.base import BaseEstimator, ClassifierMixin\n\n"
        "class Rule(ClassifierMixin, BaseEstimator):\n"
        "    def fit(self, X, y):\n"
        "        self.classes_, self.n_features_in_ = np.unique(y), X.shape[1]\n"
        "        return self\n"
        "    def predict_proba(self, X):\n"
        "        up = 1 / (1 + np.exp(-np.asarray(X)[:, -1]))\n"
        "        return np.column_stack([1 - up, up])\n"
        "    def predict(self, X):\n"
        "        return self.classes_[self.predict_proba(X).argmax(axis=1)]\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        import my_rules  # type: ignore[import-not-found]

        X = bars()
        rule = my_rules.Rule().fit(X, np.where(X["order_flow_imbalance"] > 0, "up", "down"))
        fin_pyfunc.save_model(rule, X, tmp_path / "model", serialization="cloudpickle", code_paths=[str(code)])
        expected = rule.predict_proba(X)
    manifest = artifact.read(tmp_path / "model" / "artifacts" / artifact.NAME)
    opening = Opening(
        form="artifact",
        path=str(tmp_path / "model"),
        digest=str(tmp_path),
        features=manifest.features,
        classes=manifest.classes,
        serialization=manifest.serialization,
    )
    model = hosts.open(opening, "a rule")
    assert model.described.classes == ["down", "up"]
    scores = model.backend.score(manifest.features.check(X))
    assert scores.probabilities is not None
    assert scores.probabilities.tobytes() == np.ascontiguousarray(expected).tobytes()
    # the same folder as MLflow opens it
    by_mlflow = hosts.open(Opening(form="pyfunc", path=str(tmp_path / "model"), digest=str(tmp_path)), "a rule")
    assert by_mlflow.described.kind == "classifier"
    assert by_mlflow.described.features == manifest.features
    assert by_mlflow.described.thresholds == manifest.thresholds
    again = by_mlflow.backend.score(manifest.features.check(X))
    assert again.probabilities is not None
    assert again.probabilities.tobytes() == scores.probabilities.tobytes()


def test_an_mlflow_model_of_an_estimator_answers_as_the_estimator(hosts: Hosts, tmp_path: Path) -> None:
    import mlflow.sklearn

    X = bars()
    estimator = SVC().fit(X, np.where(X["order_flow_imbalance"] > 0, 1, 0))
    mlflow.sklearn.save_model(estimator, tmp_path / "model", serialization_format="cloudpickle", pip_requirements=[])
    model = hosts.open(Opening(form="pyfunc", path=str(tmp_path / "model"), digest=str(tmp_path)), "svc")
    assert model.described.kind == "estimator"
    assert model.described.classes == [0, 1]
    assert model.described.has_pyfunc
    assert labels_of(model, X) == estimator.predict(X).tolist()


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/csv", b"x\n1.5\n-2\n"),
        ("application/json", b'{"dataframe_split": {"columns": ["x"], "data": [[1.5], [-2]]}}'),
        ("application/json", b'{"dataframe_records": [{"x": 1.5}, {"x": -2}]}'),
    ],
)
def test_a_body_is_answered_by_mlflows_scoring_server(behaving: HostedModel, content_type: str, body: bytes) -> None:
    invoked = behaving.invocations(content_type, body)
    assert invoked.status == 200
    assert json.loads(invoked.body) == {"predictions": ["up", "down"]}


def test_a_body_that_cannot_be_answered_is_told_by_kind_alone(behaving: HostedModel) -> None:
    body = behaving.invocations("application/json", b'{"wrong": [4711]}')
    assert (body.failure, body.body) == ("body", b"")
    model = behaving.invocations("text/csv", b"x\n%d\n" % behaviour.RAISE)
    assert (model.failure, model.error) == ("model", "ValueError")
    assert "secret" not in repr(model)
    assert labels_of(behaving, FRAME) == ["up", "down"]


def test_a_foreign_model_is_compiled_in_a_child(hosts: Hosts, tmp_path: Path) -> None:
    import msgspec

    from fin_pyfunc.compiling.job import JOB, OUTCOME, Job, Outcome

    X = bars()
    forest = RandomForestClassifier(5, max_depth=3, random_state=0).fit(X, X["order_flow_imbalance"] > 0)
    (tmp_path / "forest.pkl").write_bytes(pickle.dumps(forest))
    job = Job(path=str(tmp_path / "forest.pkl"), kind="pickle", features=infer(X))
    (tmp_path / JOB).write_bytes(msgspec.json.encode(job))
    assert hosts.compile(tmp_path, 120.0).code == 0
    outcome = msgspec.json.decode((tmp_path / OUTCOME).read_bytes(), type=Outcome)
    assert {form.backend for form in outcome.forms} >= {"trees"}


def test_a_host_may_run_by_another_interpreter(hosts: Hosts, folders: Folders, tmp_path: Path) -> None:
    """As one of another environment, with other versions of libraries, would."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    libraries = next(environment.glob("lib/python*/site-packages"))
    others = [entry for entry in sys.path if entry.endswith("site-packages")]
    (libraries / "all.pth").write_text("\n".join(others))
    (libraries / "only_there.py").write_text("VERSION = 'of the environment'\n")
    opening = folders.pyfunc("surroundings", behaviour.Surroundings)
    python = str(environment / "bin" / "python")
    model = hosts.open(Opening(form="pyfunc", path=opening.path, digest=str(tmp_path), python=python), "another")
    seen = surroundings(model)
    assert SECRET not in json.dumps(seen)
    assert str(libraries) in seen["path"]
    assert Path(seen["path"][0]).parent == Path(seen["cwd"])
    assert seen["no_new_privs"] == "1"
    os.kill(seen["pid"], signal.SIGKILL)
    wait_for(lambda: model.outage is not None)
    wait_for(lambda: model.outage is None)
    assert surroundings(model)["pid"] != seen["pid"]


WORKERS = """
    import json, os, sys, time
    import numpy as np, pandas as pd
    from pathlib import Path
    from fin_pyfunc.host.lifeline import Lifeline
    from fin_pyfunc.host.opening import Opening
    from fin_pyfunc.serving.hosts.connection import Limits
    from fin_pyfunc.serving.hosts.hosts import Hosts

    out, lifeline = Path(sys.argv[1]), Lifeline()
    hosts = Hosts(Limits(1 << 30, 30.0, 600.0), lifeline=lifeline)
    for i in range(2):
        if not os.fork():
            # each worker has a copy of its own
            model = hosts.open(Opening(form="pyfunc", path=str(out / str(i)), digest="one"), "a model")
            scores = model.backend.score(pd.DataFrame({"x": np.zeros(20)}))
            seen = json.loads("".join(scores.classes[i] for i in scores.index))
            (out / f"{i}.pid").write_text(str(seen["pid"]))
            time.sleep(600)
    print(lifeline.folder, flush=True)
    time.sleep(600)
"""


def test_workers_share_a_host_and_nothing_survives_them(folders: Folders, tmp_path: Path) -> None:
    opening = folders.pyfunc("surroundings", behaviour.Surroundings)
    for i in range(2):
        shutil.copytree(opening.path, tmp_path / str(i))
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WORKERS), str(tmp_path)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as arbiter:
        assert arbiter.stdout is not None
        folder = Path(arbiter.stdout.readline().strip())
        wait_for(lambda: all((tmp_path / f"{i}.pid").exists() for i in range(2)), 30)
        pids = {read_pid(tmp_path / f"{i}.pid") for i in range(2)}
        assert len(pids) == 1
        server = fork_server_of(folder)
        os.killpg(arbiter.pid, signal.SIGKILL)
    wait_for(lambda: not any(map(is_running, [server, *pids])))
    wait_for(lambda: not folder.exists())
