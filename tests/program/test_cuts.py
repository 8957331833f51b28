"""A class by a threshold of its own: FixedThresholdClassifier, TunedThresholdClassifierCV, OneVsOneClassifier."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV, TunedThresholdClassifierCV
from sklearn.multiclass import OneVsOneClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.program.delegates import cut_of
from fin_pyfunc.model.decision import Thresholds
from fin_pyfunc.model.form import Cut
from tests.compiling.checks import Made, assert_same, compiled, odd_rows
from tests.models import Fitted, bars, fit, labels


def fixed(of: Any = None, **options: Any) -> Any:
    return FixedThresholdClassifier(LogisticRegression() if of is None else of, **options)


CASES: dict[str, tuple[Callable[[], Any], Cut | None]] = {
    "fixed": (lambda: fixed(threshold=0.3), Cut(column=1, least=0.3)),
    "fixed, by default": (fixed, Cut(column=1, least=0.5)),
    "fixed, of the first class": (lambda: fixed(threshold=0.8, pos_label="down"), Cut(column=0, least=0.8)),
    "fixed, of decision values": (lambda: fixed(LinearSVC(), threshold=0.2), Cut(column=1, least=0.2)),
    "fixed, within a search": (
        lambda: GridSearchCV(fixed(threshold=0.4), {"estimator__C": [1]}, cv=2),
        Cut(column=1, least=0.4),
    ),
    "fixed, at the end of a Pipeline": (
        lambda: make_pipeline(StandardScaler(), fixed(threshold=0.6)),
        Cut(column=1, least=0.6),
    ),
    "tuned": (
        lambda: TunedThresholdClassifierCV(make_pipeline(StandardScaler(), LogisticRegression()), cv=2),
        None,
    ),
    "one against one, of probabilities": (lambda: OneVsOneClassifier(GaussianNB()), Cut(column=1, least=0.5)),
}


def fitted(make: Callable[[], Any]) -> Fitted:
    return fit(make(), bars(), labels("down", "up"))


@pytest.mark.parametrize("case", CASES)
def test_a_class_is_taken_by_the_threshold(case: str, tmp_path: Path) -> None:
    make, cut = CASES[case]
    model = fitted(make)
    made = compiled(model, tmp_path)
    assert made.kept == ["program"], made.compiled.dropped
    found = made.form("program").cut
    assert found == (Cut(column=1, least=model.estimator.best_threshold_) if cut is None else cut)
    assert_same(made, odd_rows(made, model.train))
    assert_same(made, odd_rows(made, model.held_out, seed=1)[:1])


class Asked:
    """An estimator's backend that keeps the rows that it is asked about."""

    def __init__(self, made: Made) -> None:
        self.native, self.rows = made.native, np.empty((0, len(made.spec.features)))

    def score(self, table: Any) -> Any:
        self.rows = np.vstack([self.rows, table])
        return self.native.score(table)


def test_rows_beside_the_threshold_are_left_to_the_estimator(tmp_path: Path) -> None:
    model = fitted(lambda: fixed(threshold=0.3))
    row = model.train.to_numpy()[:1]
    threshold = float(model.estimator.predict_proba(model.train[:1])[0, 1])
    for away, is_asked in ((0.0, True), (1e-12, True), (-1e-12, True), (1e-3, False), (-1e-3, False)):
        model.estimator.set_params(threshold=threshold + away)
        again = compiled(model, tmp_path)
        native = Asked(again)
        backend = type(again.open(again.form("program")))(
            tmp_path, again.form("program"), ["down", "up"], Thresholds(), native
        )
        for rows in (row, np.vstack([row] * 3)):
            scores = backend.score(rows)
            assert scores.index.tolist() == [0 if away > 0 else 1] * len(rows)
        assert bool(len(native.rows)) == is_asked


def test_confidence_is_that_of_the_class_by_the_threshold(tmp_path: Path) -> None:
    model = fitted(lambda: fixed(threshold=0.1))
    made = compiled(model, tmp_path)
    p = model.estimator.predict_proba(model.train)[:, 1]
    at = np.flatnonzero((p > 0.1) & (p < 0.5))[0]
    chosen = float(p[at])
    native = Asked(made)
    opened = made.open(made.form("program"))
    backend = type(opened)(tmp_path, made.form("program"), ["down", "up"], Thresholds(medium=chosen, high=0.9), native)
    backend.score(model.train.to_numpy()[[at]])
    assert len(native.rows) == 1  # the word hangs on the last bit of the lower probability


def test_a_threshold_of_other_scores_than_are_answered_is_not_compiled() -> None:
    with pytest.raises(NotCompilable, match="compares decision values, and answers probabilities"):
        cut_of(fitted(lambda: fixed(threshold=0.2, response_method="decision_function")).estimator)


def test_a_program_equal_to_the_last_bit_answers_ties_and_leaves_what_it_withholds(tmp_path: Path) -> None:
    trees = RandomForestClassifier(n_estimators=4, random_state=0)  # of pure leaves, so that two and two is common
    model = fitted(lambda: make_pipeline(StandardScaler(), trees))
    made = compiled(model, tmp_path)
    form = made.form("program")
    assert (form.error, form.band) == (0, 0)
    native = Asked(made)
    backend = type(made.open(form))(tmp_path, form, ["down", "up"], Thresholds(), native)
    rows = odd_rows(made, model.train)
    rows = rows[(abs(rows) < 1e15).all(axis=1)]
    assert (model.estimator.predict_proba(rows)[:, 0] == 0.5).any()
    np.testing.assert_array_equal(backend.score(rows).index, made.native.score(rows).index)
    assert not len(native.rows)
    rows[0, 0] = 1e25
    backend.score(rows)
    assert len(native.rows) == 1
