"""Real environments, built by uv from what MLflow and we log: several versions of scikit-learn at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.naive_bayes import GaussianNB

import fin_pyfunc
from fin_pyfunc.host.opening import Opening
from fin_pyfunc.model.errors import ArtifactError
from fin_pyfunc.serving.hosts.connection import Limits
from fin_pyfunc.serving.hosts.environments import Environments
from fin_pyfunc.serving.hosts.hosts import Hosts
from tests import models
from tests.servers import serving

pytestmark = [pytest.mark.long, pytest.mark.timeout(900), pytest.mark.xdist_group("environments")]

#: scikit-learn, and what was current with it; the server's own is newer than all of them.
WANTED = {
    "1.6.1": f"mlflow=={mlflow.__version__}\nscikit-learn==1.6.1\ncloudpickle",
    "1.7.2": f"mlflow=={mlflow.__version__}\nscikit-learn==1.7.2\ncloudpickle",
    "1.3.2": "mlflow==2.9.2\nscikit-learn==1.3.2\ncloudpickle\nnumpy<2\npandas<3\nsetuptools<80",
}
ROWS = pd.DataFrame(np.random.default_rng(3).normal(size=(200, 3)), columns=["bid", "ask", "spread"])
#: Fits and logs with the scikit-learn that it runs with, and says what the estimator answers.
LOG = """
import json, sys
import numpy as np, pandas as pd, sklearn
import mlflow.pyfunc, mlflow.sklearn
from sklearn.ensemble import RandomForestClassifier

class Version(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        import sklearn
        return [sklearn.__version__] * len(model_input)

rows = pd.DataFrame(np.random.default_rng(3).normal(size=(200, 3)), columns=["bid", "ask", "spread"])
labels = np.where(rows["bid"] + rows["ask"] ** 2 > 1, "up", "down")
estimator = RandomForestClassifier(20, random_state=0).fit(rows, labels)
options = {
    "pip_requirements": sys.argv[2].splitlines(),
    "signature": mlflow.models.infer_signature(rows, estimator.predict(rows)),
}
mlflow.sklearn.save_model(estimator, sys.argv[1] + "/estimator", serialization_format="cloudpickle", **options)
mlflow.pyfunc.save_model(sys.argv[1] + "/version", python_model=Version(), **options)
print(json.dumps([sklearn.__version__, estimator.predict_proba(rows).tolist()]))
"""
#: Our own package is the server's, as in a host.
OURS = """
import json, sys
sys.path.insert(0, sys.argv[3])
import pandas as pd, sklearn
import mlflow.pyfunc
rows = pd.read_json(sys.argv[2], orient="split")
answers = mlflow.pyfunc.load_model(sys.argv[1], suppress_warnings=True).predict(rows)
print(json.dumps([sklearn.__version__, answers["probability_up"].tolist()]))
"""


def run(python: Path, program: str, *arguments: str) -> Any:
    done = subprocess.run(
        [python, "-I", "-c", program, *arguments],
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Environments:
    return Environments(tmp_path_factory.mktemp("environments"), 600)


class Logged(NamedTuple):
    """Two models that were logged with a version of scikit-learn, and what the estimator answered there."""

    folder: Path
    version: str
    probabilities: list[list[float]]


@pytest.fixture(scope="module")
def logged(environments: Environments, tmp_path_factory: pytest.TempPathFactory) -> list[Logged]:
    made = []
    for version, requirements in WANTED.items():
        folder = tmp_path_factory.mktemp("logged")
        (folder / "requirements.txt").write_text(requirements)
        seen, probabilities = run(environments.python_of(folder), LOG, str(folder), requirements)
        assert seen == version
        made.append(Logged(folder, version, probabilities))
    return made


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    made = Hosts(Limits(3 << 30, open_seconds=120.0, call_seconds=20.0))  # pyarrow reserves 1 GiB of it
    yield made
    made.close()


def test_models_of_three_versions_of_scikit_learn_answer_at_once_as_where_they_were_logged(
    environments: Environments, hosts: Hosts, logged: list[Logged]
) -> None:
    opened = {}
    for each in logged:
        for name in ("estimator", "version"):
            model = each.folder / name
            begun = time.monotonic()
            python = environments.python_of(model)
            assert time.monotonic() - begun < 1, "the environment is there, and was built again"
            opening = Opening(form="pyfunc", path=str(model), digest=str(model), python=str(python))
            opened[each.version, name] = hosts.open(opening, f"models:/{name}/{each.version}")
    assert sklearn.__version__ not in WANTED
    for each in logged:
        scores = opened[each.version, "estimator"].backend.score(ROWS)
        assert scores.classes == ["down", "up"]
        assert scores.probabilities is not None
        assert scores.probabilities.tolist() == each.probabilities
        scores = opened[each.version, "version"].backend.score(ROWS)
        assert {scores.classes[i] for i in scores.index} == {each.version}


def test_a_model_of_ours_answers_with_the_scikit_learn_that_it_names(
    environments: Environments, tmp_path: Path
) -> None:
    # its fitted attributes are the same in both versions, so that it can be logged from here
    fitted = models.fit(GaussianNB(), models.bars(), models.labels("down", "up"))
    wanted = [f"mlflow=={mlflow.__version__}", "scikit-learn==1.7.2", "skops", "cloudpickle"]
    fin_pyfunc.save_model(fitted.estimator, fitted.train, tmp_path / "model", pip_requirements=wanted)
    rows = tmp_path / "rows.json"
    fitted.held_out.to_json(rows, orient="split", double_precision=15)
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "fin_pyfunc").symlink_to(Path(fin_pyfunc.__file__).parent)
    python = environments.python_of(tmp_path / "model")
    version, probabilities = run(python, OURS, str(tmp_path / "model"), str(rows), str(tmp_path / "library"))
    assert version == "1.7.2"
    assert probabilities == pytest.approx(fitted.estimator.predict_proba(fitted.held_out)[:, 1].tolist(), abs=1e-9)


def test_a_hash_that_is_another_s_is_not_installed(
    environments: Environments, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "requirements.txt").write_text(f"six==1.16.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(ArtifactError, match="uv could not install its requirements"):
        environments.python_of(tmp_path)
    assert "Hash mismatch" in caplog.text


def test_what_would_have_to_be_built_is_not_installed(
    environments: Environments, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "requirements.txt").write_text("docopt==0.6.2\n")  # has no wheel
    with pytest.raises(ArtifactError, match="uv could not install its requirements"):
        environments.python_of(tmp_path)
    assert "docopt" in caplog.text


def test_a_builder_that_is_killed_leaves_no_half_of_an_environment(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "requirements.txt").write_text("scikit-learn==1.7.2\n")
    folder = tmp_path / "environments"
    program = (
        "import sys\nfrom pathlib import Path\nfrom fin_pyfunc.serving.hosts.environments import Environments\n"
        "print(Environments(Path(sys.argv[1]), 600).python_of(Path(sys.argv[2])))\n"
    )
    command = [sys.executable, "-c", program, str(folder), str(tmp_path / "model")]
    first = subprocess.Popen(command)
    deadline = time.monotonic() + 60
    while not list(folder.glob("*.building/environment/bin/python")):
        assert time.monotonic() < deadline
        assert first.poll() is None
        time.sleep(0.01)
    others = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    first.send_signal(signal.SIGKILL)
    first.wait()
    pythons = {other.communicate(timeout=600)[0].strip() for other in others}
    assert [other.returncode for other in others] == [0, 0]
    (python,) = pythons
    assert run(Path(python), "import json, sklearn\nprint(json.dumps(sklearn.__version__))") == "1.7.2"
    assert not list(folder.glob("*.building"))


def test_one_server_answers_for_each_model_as_where_it_was_logged(
    environments: Environments, logged: list[Logged], tmp_path: Path
) -> None:
    env = {
        "FIN_PYFUNC__MODELS__ENVIRONMENT": "model",
        "FIN_PYFUNC__MODELS__ENVIRONMENTS_FOLDER": str(environments._folder),
        "FIN_PYFUNC__MODELS__TRUST": "all",
        "FIN_PYFUNC__MODELS__FILE_ROOTS": json.dumps([str(each.folder) for each in logged]),
        "FIN_PYFUNC__LIMITS__REQUEST_SECONDS": "120",
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
    }
    rows = ROWS.head(5).to_dict("records")
    with serving(folder=tmp_path, env=env) as server:
        for each in [*logged, *logged]:
            answered = server.predict_batch(rows, (each.folder / "version").as_uri())
            assert (answered.status_code, answered.json()["predictions"]) == (200, [each.version] * 5), answered.text
            answered = server.predict_batch(rows, (each.folder / "estimator").as_uri(), return_proba=True)
            assert answered.status_code == 200, answered.text
            assert [list(p.values()) for p in answered.json()["probabilities"]] == each.probabilities[:5]
