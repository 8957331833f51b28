"""An estimator that computes in float32 rounds a row alone otherwise than among others: that is nobody's fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fin_pyfunc.authoring.verify import MOST, SINGLE_TOLERANCE, TOLERANCE, Reference
from fin_pyfunc.model.features import infer
from tests.authoring.checks import refused, saved
from tests.authoring.estimators import linear, piped, piped_through, sk
from tests.models import Fitted

ROUNDED: dict[str, Callable[[], Any]] = {
    "logistic regression": lambda: linear(),
    "stochastic descent": sk("linear_model.SGDClassifier", loss="log_loss", random_state=0),
    "linear discriminants": sk("discriminant_analysis.LinearDiscriminantAnalysis"),
    "network": sk("neural_network.MLPClassifier", max_iter=5, random_state=0),
    "scaled network": piped(sk("neural_network.MLPClassifier", max_iter=5, random_state=0)),
    "components": lambda: piped_through(sk("decomposition.PCA", n_components=5)(), linear()),
}


def wide(n_classes: int = 3, scale: float = 1.0) -> tuple[pd.DataFrame, Any]:
    random = np.random.default_rng(5)
    X = random.normal(size=(400, 40)) * random.choice([0.1, 1.0, 10.0], size=40) * scale
    y = np.digitize(X[:, :5].sum(axis=1), np.quantile(X[:, :5].sum(axis=1), np.arange(1, n_classes) / n_classes))
    return pd.DataFrame(X.astype("float32"), columns=[f"f{i}" for i in range(40)]), y


@pytest.mark.parametrize("case", ROUNDED)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_an_estimator_in_float32_is_logged(case: str, tmp_path: Path) -> None:
    X, y = wide()
    estimator = ROUNDED[case]().fit(X, y)
    model = saved(Fitted(estimator, X, X), tmp_path)
    table = model.predict(X)
    np.testing.assert_array_equal(table["prediction"], estimator.predict(X))
    own = estimator.predict_proba(X)
    np.testing.assert_allclose(table.filter(like="probability_"), own, rtol=0, atol=SINGLE_TOLERANCE)


class OfTheBatch:
    """A user's own classifier in float32 whose answers hang, a little, on the rows beside a row."""

    classes_ = np.array([0, 1])

    def __init__(self, part: float) -> None:
        self.part = part

    def predict_proba(self, X: Any) -> Any:
        values = np.asarray(X, dtype=np.float32)
        up = 1 / (1 + np.exp(-values[:, 0] - np.float32(self.part) * values[:, 1].mean()))
        return np.column_stack([1 - up, up])

    def predict(self, X: Any) -> Any:
        return self.predict_proba(X).argmax(axis=1)


@pytest.mark.parametrize("part", [1.0, 1e-3])
def test_a_look_at_other_rows_is_told_from_rounding(part: float, tmp_path: Path) -> None:
    X, _ = wide()
    said = refused(OfTheBatch(part), X, "answers differently to .*, by", tmp_path, serialization="cloudpickle")
    assert "no look at other rows" in said


def sensitive(weight: float = 6e4, spread: float = 1e-5) -> tuple[Any, pd.DataFrame]:
    """Prices whose differences decide, in float32: a step of it is a hundredth of the score."""
    random = np.random.default_rng(0)
    bid = 1.1 + random.normal(0, spread, (300, 24))
    dtype = "float32" if spread > 1e-7 else "float64"
    X = pd.DataFrame(bid.astype(dtype), columns=[f"p{i}" for i in range(24)])
    estimator = sk("linear_model.LogisticRegression")().fit(X, random.integers(0, 2, 300))
    estimator.coef_ = (np.resize([weight, -weight], 24) * np.linspace(0.9, 1.1, 24)).astype(dtype)[None]
    estimator.intercept_ -= (X.to_numpy() @ estimator.coef_.T).mean()
    return estimator, X


def test_where_rounding_shows_it_is_named(tmp_path: Path) -> None:
    estimator, X = sensitive()
    reference = Reference.of(estimator, X, infer(X), [0, 1])
    assert reference.is_single
    assert reference.rounding() > MOST
    said = refused(estimator, X, "rounding alone moves.*fit it on float64", tmp_path)
    assert "no look at other rows" not in said


def test_float64_has_its_own_rounding(tmp_path: Path) -> None:
    estimator, X = sensitive(6e7, 1e-8)
    rows = X.to_numpy()[:100]
    apart = abs(
        estimator.predict_proba(rows) - np.vstack([estimator.predict_proba(rows[i : i + 1]) for i in range(100)])
    )
    assert TOLERANCE < apart.max() < MOST
    saved(Fitted(estimator, X, X), tmp_path)


def test_what_is_drawn_is_no_rounding() -> None:
    class Noisy(OfTheBatch):
        def predict_proba(self, X: Any) -> Any:
            up = 0.5 + 1e-3 * np.random.default_rng().random(len(X))
            return np.column_stack([1 - up, up])

    X, _ = wide()
    assert Reference.of(Noisy(0.0), X, infer(X), [0, 1]).rounding() == 0


def test_a_class_as_probable_as_another_may_change_by_rounding(tmp_path: Path) -> None:
    X, y = wide(2)
    estimator = linear().fit(X, y)
    # one row exactly between the classes
    estimator.intercept_ = -(X.to_numpy()[200:201] @ estimator.coef_.T)[0]
    saved(Fitted(estimator, X, X), tmp_path)
