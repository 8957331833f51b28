"""Real environments, built by uv from what MLflow and we log: two versions of scikit-learn at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mlflow
import pytest
import sklearn
from sklearn.naive_bayes import GaussianNB

import fin_pyfunc
from fin_pyfunc.model.errors import ArtifactError
from fin_pyfunc.serving.hosts.environments import Environments
from tests import models

pytestmark = [pytest.mark.long, pytest.mark.timeout(900), pytest.mark.xdist_group("environments")]

VERSIONS = ("1.6.1", "1.7.2")
#: Fits and logs with the scikit-learn that it runs with, and says what the estimator answers.
LOG = """
import json, sys
import numpy as np, pandas as pd, sklearn
import mlflow.sklearn
from sklearn.ensemble import RandomForestClassifier
rng = np.random.default_rng(3)
rows = pd.DataFrame(rng.normal(size=(200, 3)), columns=["bid", "ask", "spread"])
labels = np.where(rows["bid"] + rows["ask"] ** 2 > 1, "up", "down")
estimator = RandomForestClassifier(20, random_state=0).fit(rows, labels)
mlflow.sklearn.save_model(
    estimator, sys.argv[1], pip_requirements=sys.argv[2].splitlines(), serialization_format="cloudpickle",
    signature=mlflow.models.infer_signature(rows, estimator.predict(rows)),
)
print(json.dumps([sklearn.__version__, estimator.predict_proba(rows[:50]).tolist()]))
"""
#: Opens any model as a host does, and says what answers it.
ANSWER = """
import json, sys
import numpy as np, pandas as pd, sklearn
import mlflow.pyfunc
rng = np.random.default_rng(3)
rows = pd.DataFrame(rng.normal(size=(200, 3)), columns=["bid", "ask", "spread"])
model = mlflow.pyfunc.load_model(sys.argv[1], suppress_warnings=True)
print(json.dumps([sklearn.__version__, model.get_raw_model().predict_proba(rows[:50]).tolist()]))
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


class Logged:
    """A model that was logged with a version of scikit-learn, and what it answered there."""

    def __init__(self, environments: Environments, folder: Path, version: str) -> None:
        requirements = f"mlflow=={mlflow.__version__}\nscikit-learn=={version}\ncloudpickle"
        (folder / "wanted").mkdir()
        (folder / "wanted" / "requirements.txt").write_text(requirements)
        self.path = folder / "model"
        python = environments.python_of(folder / "wanted")
        self.version, self.probabilities = run(python, LOG, str(self.path), requirements)


@pytest.fixture(scope="module", params=VERSIONS)
def logged(request: pytest.FixtureRequest, environments: Environments, tmp_path_factory: Any) -> Logged:
    return Logged(environments, tmp_path_factory.mktemp("logged"), request.param)


def test_a_model_answers_in_its_environment_as_where_it_was_logged(environments: Environments, logged: Logged) -> None:
    assert logged.version in VERSIONS
    assert logged.version != sklearn.__version__
    begun = time.monotonic()
    python = environments.python_of(logged.path)
    assert time.monotonic() - begun < 1, "the environment is there, and was built again"
    assert run(python, ANSWER, str(logged.path)) == [logged.version, logged.probabilities]


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
