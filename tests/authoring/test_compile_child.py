"""Logging makes compiled forms in a child process: what crashes or hangs there costs its form and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

import fin_pyfunc
from fin_pyfunc.authoring import compile_child
from tests.authoring.checks import assert_same_answers, saved
from tests.models import Fitted, bars, fit, labels, small_forest

ROOT = Path(__file__).parents[2]


class ElsewhereScaler(StandardScaler):
    """Behaves as its parent in the process that made it, and in no other."""

    def __init__(self, act: str = "") -> None:
        super().__init__()
        self.act, self.home = act, os.getpid()

    def transform(self, X: Any, copy: Any = None) -> Any:
        if os.getpid() != self.home:
            misbehave(self.act)
        return super().transform(X, copy)


class EnvironmentScaler(StandardScaler):
    """Works only where a variable of the environment is as the process that logs has set it."""

    def transform(self, X: Any, copy: Any = None) -> Any:
        if os.environ.get("OF_NOW") != "set" or "OF_BEFORE" in os.environ:
            misbehave("SIGSEGV")
        return super().transform(X, copy)


class ElsewhereTree(DecisionTreeClassifier):
    """A tree that ends another process where a function reads its nodes."""

    home, reader = 0, ""

    @property
    def tree_(self) -> Any:
        if os.getpid() != self.home and is_called_from(self.reader):
            misbehave("SIGSEGV")
        return self.nodes

    @classmethod
    def of(cls, tree: DecisionTreeClassifier, reader: str) -> ElsewhereTree:
        made = cls()
        vars(made).update({name: value for name, value in vars(tree).items() if name != "tree_"})
        made.nodes, made.home, made.reader = tree.tree_, os.getpid(), reader
        return made


def is_called_from(function: str) -> bool:
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == function:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def misbehave(act: str) -> None:
    if act == "sleep":
        time.sleep(600)
    elif act == "exit":
        os._exit(3)
    else:
        os.kill(os.getpid(), signal.Signals[act])


def piped(act: str) -> Fitted:
    return fit(make_pipeline(ElsewhereScaler(act), LogisticRegression()), bars(), labels(-1, 0, 1))


def dropped(model: fin_pyfunc.FinPyfuncModel) -> dict[str, str]:
    assert model.manifest is not None
    return model.manifest.dropped


@pytest.mark.parametrize(
    ("act", "said"),
    [
        ("SIGSEGV", "making it ended its process (SIGSEGV)"),
        ("SIGKILL", "making it ended its process (SIGKILL)"),
        ("exit", "making it ended its process (exit code 3)"),
        ("sleep", "making it took longer than 3 s"),
    ],
)
def test_a_model_whose_compiling_ends_its_process_is_logged_natively(
    act: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if act == "sleep":
        monkeypatch.setattr(compile_child, "SECONDS", 3.0)
    fitted = piped(act)
    model = saved(fitted, tmp_path, serialization="cloudpickle")
    assert dropped(model) == {"program": said, "onnx": said, "treelite": said}
    assert_same_answers(model, fitted)


@pytest.mark.parametrize(
    ("reader", "kept", "lost"), [("treelite_model", ["trees"], "treelite"), ("_trees", ["onnx", "treelite"], "trees")]
)
def test_a_form_that_ends_its_process_costs_no_other(reader: str, kept: list[str], lost: str, tmp_path: Path) -> None:
    fitted = fit(RandomForestClassifier(5, max_depth=3, random_state=0), bars(), labels(-1, 0, 1))
    members = fitted.estimator.estimators_
    members[:] = [ElsewhereTree.of(tree, reader) for tree in members]
    model = saved(fitted, tmp_path, serialization="cloudpickle")
    assert model.manifest is not None
    assert sorted(form.backend for form in model.manifest.forms) == kept, model.manifest.dropped
    assert dropped(model) == {lost: "making it ended its process (SIGSEGV)"}
    files = {name for form in model.manifest.forms for name in form.files}
    assert set(model.manifest.files) == {"estimator.pkl", *files}
    assert_same_answers(model, fitted)


def test_a_process_of_its_own_does_where_none_can_be_forked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_child, "_known", lambda: None)
    compile_child.start()
    model = saved(small_forest(), tmp_path)
    assert model.manifest is not None
    assert sorted(form.backend for form in model.manifest.forms) == ["treelite", "trees"]
    fitted = piped("SIGSEGV")
    model = saved(fitted, tmp_path / "other", serialization="cloudpickle")
    assert set(dropped(model).values()) == {"making it ended its process (SIGSEGV)"}


def test_what_was_begun_ends_where_nobody_waits_for_it(tmp_path: Path) -> None:
    from fin_pyfunc.model import estimators
    from fin_pyfunc.model.features import infer

    fitted, file = piped("sleep"), tmp_path / "estimator.pkl"
    estimators.dump(fitted.estimator, file, "cloudpickle")
    with compile_child.Compilation(
        file, "cloudpickle", infer(fitted.train), [-1, 0, 1], None, 1e-6, ["onnx"]
    ) as compilation:
        folder = Path(compilation._folder.name)
    assert not folder.exists()


def test_a_child_has_the_environment_as_it_is_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_NOW", "set")
    compile_child.start()  # if it has not been yet
    fitted = fit(make_pipeline(EnvironmentScaler(), LogisticRegression()), bars(), labels(0, 1))
    for change in (lambda: monkeypatch.setenv("OF_BEFORE", "x"), lambda: monkeypatch.delenv("OF_BEFORE")):
        change()
    model = saved(fitted, tmp_path, serialization="cloudpickle")
    assert "ended its process" not in dropped(model)["onnx"]


NOTEBOOK = """
    import os, signal, sys, warnings
    warnings.simplefilter("ignore")
    import numpy as np, pandas as pd
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler
    import fin_pyfunc
    from helpers import Doubled

    class Mine(StandardScaler):
        def transform(self, X, copy=None):
            return super().transform(X, copy) * factor

    factor = float(sys.argv[1])
    X = pd.DataFrame({"a": np.linspace(-1, 1, 60), "b": np.cos(np.arange(60.0))})
    estimator = make_pipeline(Mine(), Doubled(), LogisticRegression()).fit(X, X["a"] > 0)
    fin_pyfunc.save_model(estimator, X, "saved", serialization="cloudpickle", code_paths=["helpers.py"])
    model = fin_pyfunc.load_model("saved")
    print(model.manifest.dropped["onnx"])
"""


def test_classes_of_a_notebook_and_modules_beside_it_are_found(tmp_path: Path) -> None:
    (tmp_path / "helpers.py").write_text(
        "from sklearn.preprocessing import StandardScaler\n\nclass Doubled(StandardScaler):\n    pass\n"
    )
    (tmp_path / "notebook.py").write_text(textwrap.dedent(NOTEBOOK))
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/db"}
    done = subprocess.run(
        [sys.executable, "notebook.py", "2"], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    # it was read there, asked, and looked at by the converter
    assert done.stdout.strip() == "LogisticRegression cannot be converted to ONNX (MissingShapeCalculator)"


def test_nothing_that_the_fork_server_imports_starts_a_thread(tmp_path: Path) -> None:
    from tests.hosts.processes import fork_server_of

    saved(small_forest(), tmp_path)
    forks = compile_child._known()
    assert forks is not None
    pid = fork_server_of(forks.client._lifeline.folder)
    assert len(list(Path(f"/proc/{pid}/task").iterdir())) == 1
