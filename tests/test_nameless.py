"""An estimator that is given a matrix in place of a DataFrame answers the same to the last bit, or is given none."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import RBF
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
from sklearn.svm import SVC, NuSVC

from fin_pyfunc.model.backends.nameless import TAKE_A_MATRIX, nameless, type_name
from fin_pyfunc.model.backends.native import NativeBackend
from fin_pyfunc.model.features import infer

NAMES = ["a", "b", "c", "d"]
ALONE: list[Any] = [
    *(SVC(kernel=kernel) for kernel in ("rbf", "linear", "poly", "sigmoid")),
    SVC(break_ties=True, decision_function_shape="ovr"),
    NuSVC(nu=0.2),
    GaussianProcessClassifier(RBF(1.0), optimizer=None),
    *(KNeighborsClassifier(5, algorithm=a) for a in ("brute", "kd_tree", "ball_tree")),
    *(KNeighborsClassifier(5, algorithm=a, weights="distance") for a in ("brute", "kd_tree", "ball_tree")),
    KNeighborsClassifier(5, algorithm="ball_tree", metric="manhattan"),
]
STEPS: list[Any] = [StandardScaler(), MinMaxScaler(), MaxAbsScaler(), RobustScaler(), PCA(2), PCA(whiten=True)]
TAKEN = {
    **{repr(estimator): estimator for estimator in ALONE},
    **{f"{step!r}, {last!r}": make_pipeline(step, last) for step in STEPS for last in (SVC(), KNeighborsClassifier(3))},
    "two steps": make_pipeline(StandardScaler(), PCA(3), SVC()),
}


class OwnSVC(SVC):
    """A user's own, which may do anything with a DataFrame."""


LEFT = {
    "a subclass": OwnSVC(),
    "a kernel of the user's own": SVC(kernel=lambda a, b: np.asarray(a) @ np.asarray(b).T),
    "a scaler in place": make_pipeline(StandardScaler(copy=False), SVC()),
    "brute force, a metric of two ways": KNeighborsClassifier(5, algorithm="brute", metric="manhattan"),
    "steps that hand on DataFrames": make_pipeline(StandardScaler(), SVC()).set_output(transform="pandas"),
}


def rows(n: int, seed: int, *, are_tied: bool) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    values = random.integers(0, 3, (n, 4)).astype(float) if are_tied else random.normal(size=(n, 4))
    return pd.DataFrame(values, columns=NAMES)


def fitted(estimator: Any, *, are_tied: bool = False) -> Any:
    return clone(estimator).fit(rows(60, 0, are_tied=are_tied), np.resize(["down", "flat", "up"], 60))


@pytest.mark.parametrize("are_tied", [True, False], ids=["ties", "floats"])
@pytest.mark.parametrize("name", TAKEN)
@given(n=st.sampled_from([1, 2, 7, 300]), seed=st.integers(0, 2**32 - 1), order=st.sampled_from("CF"))
@settings(max_examples=15)
def test_a_matrix_is_answered_as_the_dataframe_to_the_last_bit(
    name: str, are_tied: bool, n: int, seed: int, order: Any
) -> None:
    estimator, frame = fitted(TAKEN[name], are_tied=are_tied), rows(n, seed, are_tied=are_tied)
    backend = NativeBackend(estimator, infer(frame))
    expected = estimator.predict(frame)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as one of names that are not there
        scores = backend.score(np.array(frame, order=order))
    assert [scores.classes[i] for i in scores.index] == expected.tolist()
    if scores.probabilities is not None:
        np.testing.assert_array_equal(scores.probabilities, estimator.predict_proba(frame))


@pytest.mark.parametrize("name", TAKEN)
def test_it_is_given_the_matrix_itself_and_keeps_its_names(name: str) -> None:
    estimator = fitted(TAKEN[name])
    unnamed = nameless(estimator)
    assert unnamed is not None
    assert not hasattr(unnamed, "feature_names_in_")
    assert list(estimator.feature_names_in_) == NAMES


@pytest.mark.parametrize("name", LEFT)
def test_what_may_look_at_a_dataframe_is_given_one(name: str) -> None:
    assert nameless(fitted(LEFT[name])) is None


def test_columns_of_other_types_are_given_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = rows(60, 0, are_tied=True).astype({"b": "int64"})
    estimator = SVC().fit(frame, np.resize([0, 1], 60))
    given: list[Any] = []
    monkeypatch.setattr(estimator, "predict", lambda X: given.append(X) or np.zeros(len(X), int))
    NativeBackend(estimator, infer(frame)).score(frame.to_numpy(dtype=float))
    assert given[0].dtypes.tolist() == frame.dtypes.tolist()


def test_every_class_that_takes_a_matrix_is_tried_here() -> None:
    tried = [step for estimator in TAKEN.values() for _, step in getattr(estimator, "steps", [("", estimator)])]
    assert {type_name(step) for step in tried} == TAKE_A_MATRIX
