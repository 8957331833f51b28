"""The zoo's models are served as docs/models.md says; and what is wrong with one would be noticed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fin_pyfunc.model.backends.program import ProgramBackend
from tests.zoo import classifiers, pool, transformers
from tests.zoo.case import Case, Outcome, fitting, linear, piped, sk
from tests.zoo.check import check
from tests.zoo.edges import edges
from tests.zoo.page import PAGE, served
from tests.zoo.tables import numbers

ROOT = Path(__file__).parents[2]
#: Models of each kind, for the tests that are to be quick.
SOME = (
    "RandomForestClassifier / numbers",
    "HistGradientBoostingClassifier / gaps",
    "StandardScaler, LogisticRegression / float32",
    "ColumnTransformer(impute, scale, one-hot), LogisticRegression",
    "Stacking(KBinsDiscretizer, RandomForest)",
    "StandardScaler, KBinsDiscretizer(kmeans, onehot-dense), LogisticRegression",
    "Binarizer(0.2345), LogisticRegression",
    "Calibrated(RandomForest, isotonic)",
    "GridSearchCV(make_scorer)",
    "TfidfVectorizer of headlines, LogisticRegression",
    "LGBMClassifier / categories",
    "XGBClassifier / gaps",
    "a raw Booster (lgb.train) / numbers",
    "/ IsolationForest",
)


def outcomes(folder: Path, *options: str, only: Sequence[str] = ()) -> list[Outcome]:
    """What ``python -m tests.zoo`` finds; it forks, which this process is not made for."""
    file = folder / "outcomes.json"
    command = [sys.executable, "-m", "tests.zoo", "--json", str(file), "--only", *(only or [""]), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert file.exists(), done.stderr
    found = msgspec.json.decode(file.read_bytes(), type=list[Outcome])
    assert done.returncode == any(each.verdict in ("wrong", "crashed") for each in found)
    return found


def assert_page_agrees(found: Sequence[Outcome]) -> None:
    """What is served, by what, and in which words the rest is refused is what the page says."""
    said, others = served(PAGE.read_text("utf-8")), []
    for each in found:
        line = said.get((each.group, each.name, "all")) or said.get((each.group, each.name, each.data))
        expected = (each.served_by, " ".join(each.says.split()) if each.verdict == "refused" else None)
        if line is None or (line[0], line[1] if expected[1] is not None else None) != expected:
            others.append((each.name, each.data, expected, line))
    assert not others, "run make zoo"


def test_some_models_are_served_as_the_page_says(tmp_path: Path) -> None:
    found = outcomes(tmp_path, only=SOME)
    assert len(found) >= len(SOME)
    assert not [each for each in found if each.verdict in ("wrong", "crashed")]
    assert_page_agrees(found)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_model_is_served_as_the_page_says(tmp_path: Path) -> None:
    elsewhere = Path(f"{sys.prefix}-zoo", "bin", "python")
    found = outcomes(tmp_path, *(["--further", str(elsewhere)] if elsewhere.exists() else []))
    assert not [each for each in found if each.verdict in ("wrong", "crashed")]
    assert_page_agrees(found)
    groups = {each.group for each in found}
    names = {(group, name) for group, name, _ in served(PAGE.read_text("utf-8")) if group in groups}
    assert names == {(each.group, each.name) for each in found}


def test_no_line_of_the_page_is_wrong_or_crashed() -> None:
    said = served(PAGE.read_text("utf-8"))
    assert said
    assert not {line: by for line, (by, _) in said.items() if by in ("wrong", "crashed")}


def test_every_classifier_and_transformer_of_scikit_learn_is_in_the_zoo() -> None:
    alone = {case.name for case in classifiers.cases()}
    assert alone == set(classifiers.every("classifier"))
    before = {case.name for case in transformers.cases()}
    assert before | set(transformers.NOT_FOR_FEATURES) | transformers.CLASSIFIERS == set(
        transformers.every("transformer")
    )


def _ends(X: Any, y: Any) -> Any:
    os.kill(os.getpid(), signal.SIGSEGV)


def _hangs(X: Any, y: Any) -> Any:
    time.sleep(600)


def _raises(X: Any, y: Any) -> Any:
    raise RuntimeError("it cannot be fitted")


def test_a_crash_and_a_hang_are_results_like_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "SECONDS", 3.0)
    cases = [Case("zoo", fit.__name__, fit) for fit in (_ends, _hangs, _raises)]
    found = {each.name: each for each in pool.outcomes(cases, 3)}
    assert {each.verdict for each in found.values()} == {"crashed"}
    assert found["_ends"].says == "SIGSEGV, when it was fitted"
    assert found["_hangs"].says == "took longer than 3 s, when it was fitted"
    assert found["_raises"].says.startswith("RuntimeError: it cannot be fitted")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("by", [3e-6, 0.3])
def test_a_backend_that_is_off_is_told(by: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = ProgramBackend.run

    def off(self: ProgramBackend, matrix: Any) -> Any:
        scores = own(self, matrix)
        scores[matrix[:, 0] > 1.1] += np.array([by, -by, 0.0])  # some rows, after it was compared
        return scores

    case = Case("zoo", "off", fitting(linear))
    # one at a time, so that the artifact is verified before
    monkeypatch.setattr("tests.zoo.check._save", _saving(monkeypatch, off))
    outcome = check(case, tmp_path, lambda _: None)
    assert outcome.verdict == "wrong"
    assert outcome.says.startswith("program: ")
    assert (outcome.flips > 0) == (by > 0.1)


def _saving(monkeypatch: pytest.MonkeyPatch, off: Any) -> Any:
    from tests.zoo import check as module

    save = module._save

    def saved(*args: Any) -> bool:
        found: bool = save(*args)
        monkeypatch.setattr(ProgramBackend, "run", off)
        return found

    return saved


def test_an_edge_behind_a_scaler_is_found_to_the_last_bit() -> None:
    X = numbers().to_numpy()
    scaler = sk("preprocessing.StandardScaler")
    bins = sk("preprocessing.KBinsDiscretizer", n_bins=4, encode="ordinal", strategy="uniform")
    asked = piped(scaler, bins).fit(X).transform
    found = edges(asked, X, [0, 3], 40)
    pairs = zip(found[: len(found) // 2], found[len(found) // 2 :], strict=True)
    close = [(c, low, high) for (c, low), (_, high) in pairs if abs(high - low) <= 2 * np.spacing(abs(low))]
    parted = []
    for column, low, high in close:
        rows = np.repeat(X[:1], 2, axis=0)
        rows[:, column] = low, high
        below, above = asked(rows)
        parted.append((below != above).any())
    assert sum(parted) >= 20
