"""Nodes of classifiers against scikit-learn's own functions, and files that no fit could have made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.isotonic import IsotonicRegression
from sklearn.naive_bayes import CategoricalNB, ComplementNB, MultinomialNB
from sklearn.utils.extmath import softmax
from sklearn.utils.multiclass import _ovr_decision_function

from fin_pyfunc.compiling.program.build import program_of
from fin_pyfunc.compiling.tree_form import trees_of
from fin_pyfunc.model.errors import ArtifactError
from fin_pyfunc.model.feature import Feature
from fin_pyfunc.model.features import FeatureSpec
from fin_pyfunc.model.program.calibration import Isotonic, Platt, Temperature
from fin_pyfunc.model.program.classifiers import Constant, Linear, TreeEnsemble
from fin_pyfunc.model.program.densities import Counts, Gaussian, Quadratic
from fin_pyfunc.model.program.kernels import KernelMachine
from fin_pyfunc.model.program.links import LINKS, Link
from fin_pyfunc.model.program.node import Node
from fin_pyfunc.model.program.program import Program, Step, read, written
from fin_pyfunc.model.program.votes import Average, Choose, Pairs, Spread, Withhold
from fin_pyfunc.model.tree_file import written as trees_written

Array = np.ndarray[Any, Any]
FINITE = st.floats(-1e6, 1e6)
ANY = st.floats(width=64)


def spec_of(n: int) -> FeatureSpec:
    return FeatureSpec(features=[Feature(name=f"f{i}", kind="number", dtype="float64") for i in range(n)])


def scores(k: int | None = None, elements: Any = FINITE) -> Any:
    widths = st.integers(2, 12) if k is None else st.just(k)
    return st.tuples(st.integers(1, 6), widths).flatmap(lambda shape: arrays(np.float64, shape, elements=elements))


# --- links


@given(scores())
@settings(deadline=None)
def test_a_softmax_is_scikit_learns_to_the_last_bit(X: Array) -> None:
    np.testing.assert_array_equal(Link(how="softmax")(X), softmax(X))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@given(X=scores(elements=ANY), how=st.sampled_from(sorted(LINKS)))
@settings(deadline=None, max_examples=300)
def test_a_link_keeps_its_input_and_hands_on_what_is_not_a_number(X: Array, how: str) -> None:
    takes = {"sigmoid": 1, "complement": 1, "pair": 1, "difference": 2}.get(how, X.shape[1])
    X = np.ascontiguousarray(X[:, :takes])
    before, node = X.copy(), Link(how=how)
    made = node(X)
    np.testing.assert_array_equal(X, before)
    assert made.shape == (len(X), node.width(X.shape[1]))
    assert np.isnan(made[np.isnan(X).any(axis=1)]).any(axis=1).all()
    alone = np.vstack([node(X[i : i + 1]) for i in range(len(X))])
    np.testing.assert_allclose(alone, made, rtol=1e-12, atol=1e-15)


@given(scores(elements=st.floats(allow_nan=False, allow_infinity=False)))
@settings(deadline=None)
def test_sigmoids_never_leave_0_to_1(X: Array) -> None:
    made = Link(how="sigmoids")(X)
    assert ((made >= 0) & (made <= 1)).all()


# --- what several answer


@given(scores(k=3), st.lists(st.floats(0.1, 10), min_size=2, max_size=2))
@settings(deadline=None)
def test_an_average_is_numpys_to_the_last_bit(X: Array, weights: list[float]) -> None:
    other = X[::-1] * 0.3
    by = np.array(weights)
    node = Average(weights=by, divisor=float(by[:, None, None].sum(axis=0).item()))
    np.testing.assert_array_equal(node(X, other), np.average(np.array([X, other]), axis=0, weights=weights))
    node = Average(weights=np.empty(0), divisor=2.0)
    np.testing.assert_array_equal(node(X, other), np.average(np.array([X, other]), axis=0))


@given(st.integers(2, 5), st.data())
@settings(deadline=None)
def test_pairs_vote_as_scikit_learn_has_them(k: int, data: Any) -> None:
    n_pairs = k * (k - 1) // 2
    sure = data.draw(scores(k=n_pairs))
    predicted = data.draw(arrays(np.float64, sure.shape, elements=st.sampled_from([0.0, 1.0])))
    node = Pairs(n_classes=k)
    assert node.width(n_pairs, n_pairs) == k
    np.testing.assert_array_equal(node(sure, predicted), _ovr_decision_function(predicted, sure, k))


@given(scores(elements=ANY), st.sampled_from([0.0, 1e-9]))
@settings(deadline=None)
def test_a_vote_goes_to_the_first_of_the_highest_or_is_withheld(X: Array, margin: float) -> None:
    with np.errstate(all="ignore"):
        made = Choose(table=np.eye(X.shape[1]), margin=margin)(X)
        for row, vote in zip(X, made, strict=True):
            best, second = sorted(row.tolist(), reverse=True)[:2]
            if np.isnan(row).any():
                assert np.isnan(vote).all()
            elif best - second > margin * max(1, abs(best)):
                assert vote.tolist() == [float(i == row.argmax()) for i in range(len(row))]
            elif margin:
                assert np.isnan(vote).all()


def test_a_row_with_an_unknown_part_is_withheld() -> None:
    answer, part = np.ones((2, 3)), np.array([[0.0, np.nan], [1.0, 2.0]])
    np.testing.assert_array_equal(Withhold()(answer, part), [[np.nan] * 3, [1, 1, 1]])


# --- calibration


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 40))
@settings(deadline=None, max_examples=60)
def test_isotonic_lines_are_scikit_learns_to_the_last_bit(dtype: Any, seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.random(n).round(2).astype(dtype), rng.integers(0, 2, n).astype(dtype)
    own = IsotonicRegression(out_of_bounds="clip").fit(x, y)
    known = own.X_thresholds_.astype(np.float64)
    X = np.concatenate([rng.random(50), known, np.nextafter(known, 2), np.nextafter(known, -1), [-9.0, 9.0]])
    X = X.astype(dtype).astype(np.float64)
    node = Isotonic(
        sizes=np.array([len(known)]), x=known, y=own.y_thresholds_.astype(np.float64),
        ends=np.array([[own.X_min_, own.X_max_]], dtype=np.float64), is_single=dtype is np.float32, is_rounded=False,
    )  # fmt: skip
    assert node.width(1) == 1
    np.testing.assert_array_equal(node(X[:, None])[:, 0], own.predict(X.astype(dtype)))


def test_a_rounded_number_on_a_step_is_withheld() -> None:
    node = Isotonic(
        sizes=np.array([4]), x=np.array([0.0, 0.5, np.nextafter(0.5, 1), 1.0]), y=np.array([0.0, 0.1, 0.9, 1.0]),
        ends=np.array([[0.0, 1.0]]), is_single=False, is_rounded=True,
    )  # fmt: skip
    assert np.isnan(node(np.array([[0.25], [0.5], [0.75]]))[:, 0]).tolist() == [False, True, False]


def test_a_rounded_number_on_a_threshold_of_a_tree_is_withheld() -> None:
    X = np.arange(40.0)[:, None]
    trees = HistGradientBoostingClassifier(max_iter=1, max_leaf_nodes=2, min_samples_leaf=2).fit(X, X[:, 0] > 19)
    content = trees_written(trees_of(trees, 1, single=False))
    node = TreeEnsemble(content=content, n_classes=2, margin=1e-12)
    (edge,) = node.edges()
    at = float(edge.constant[0])
    rows = np.array([[at], [np.nextafter(at, 99)], [at - 1e-13], [at + 1e-6], [at - 1e-6], [np.nan]])
    assert np.isnan(node(rows)[:, 0]).tolist() == [True, True, True, False, False, False]


def test_a_temperature_withholds_what_scikit_learn_tells_by_all_rows() -> None:
    p, d = np.array([[0.2, 0.8]]), np.array([[-3.0, 3.0]])
    assert not np.isnan(Temperature(beta=2.0, is_proba=True)(p)).any()
    assert np.isnan(Temperature(beta=2.0, is_proba=True)(d)).all()
    assert np.isnan(Temperature(beta=2.0, is_proba=False)(p)).all()
    assert not np.isnan(Temperature(beta=2.0, is_proba=False)(d)).any()


# --- naive Bayes of counts


@pytest.mark.parametrize("kind", [ComplementNB, MultinomialNB, CategoricalNB])
@pytest.mark.parametrize("k", [2, 3, 9])
def test_counts_are_scored_as_scikit_learn_does(kind: type, k: int) -> None:
    rng = np.random.default_rng(k)
    X, y = rng.integers(0, 4, (200, 5)).astype(np.float64), rng.permutation(np.arange(200) % k)
    estimator = kind().fit(X, y)
    program = read(written(program_of(estimator, spec_of(5))), k)
    np.testing.assert_allclose(program(X), estimator.predict_proba(X), rtol=0, atol=1e-14)


def test_a_category_that_was_not_seen_is_left_to_the_estimator() -> None:
    X, y = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0], [0.0, 0.0]]), [0, 1, 1, 0]
    program = read(written(program_of(CategoricalNB().fit(X, y), spec_of(2))), 2)
    rows = np.array([[2.9, 1.0], [-0.5, 0.0], [3.0, 1.0], [-1.0, 0.0], [np.nan, 0.0], [1e300, 0.0], [np.inf, 0.0]])
    assert np.isnan(program(rows)).any(axis=1).tolist() == [False, False, True, True, True, True, True]


# --- files that no fit could have made


def kernel(**options: Any) -> KernelMachine:
    given: dict[str, Any] = {
        "kernel": "rbf", "vectors": np.zeros((2, 1)), "coef": FOUR, "intercept": TWO, "gamma": 1.0, "coef0": 0.0,
        "degree": 3, **options,
    }  # fmt: skip
    return KernelMachine(**given)


ONE, TWO, FOUR = np.zeros(1), np.zeros(2), np.ones((2, 2))
FORGED: dict[str, Callable[[], Node]] = {
    "an unknown link": lambda: Link(how="eval"),
    "a link of another width": lambda: Link(how="difference"),
    "a product of other columns": lambda: Linear(coef=np.zeros((2, 3)), intercept=TWO, link="none"),
    "a product with too few intercepts": lambda: Linear(coef=np.zeros((2, 1)), intercept=ONE, link="none"),
    "a sigmoid of two": lambda: Linear(coef=np.zeros((2, 1)), intercept=TWO, link="sigmoid"),
    "no numbers at all": lambda: Constant(values=np.zeros(0)),
    "a column that is not there": lambda: Spread(columns=np.array([5]), n_columns=2),
    "a column below the first": lambda: Spread(columns=np.array([-1]), n_columns=2),
    "more columns than memory": lambda: Spread(columns=np.array([0]), n_columns=1 << 40),
    "an average by nothing": lambda: Average(weights=np.empty(0), divisor=0.0),
    "an average of other weights": lambda: Average(weights=TWO, divisor=1.0),
    "a vote of another width": lambda: Choose(table=np.zeros((2, 2)), margin=0.0),
    "a margin below 0": lambda: Choose(table=np.zeros((1, 2)), margin=-1.0),
    "pairs of too many": lambda: Pairs(n_classes=100_000),
    "nothing to withhold by": Withhold,
    "a slope too few": lambda: Platt(slope=np.zeros(0), intercept=ONE),
    "points that fall": lambda: Isotonic(
        sizes=np.array([2]), x=TWO, y=TWO, ends=np.zeros((1, 2)), is_single=False, is_rounded=False
    ),
    "points that are not there": lambda: Isotonic(
        sizes=np.array([7]), x=TWO, y=TWO, ends=np.zeros((1, 2)), is_single=False, is_rounded=False
    ),
    "a temperature of one": lambda: Temperature(beta=1.0, is_proba=False),
    "means of other columns": lambda: Gaussian(mean=FOUR, variance=FOUR, log_prior=TWO, constant=TWO),
    "a rotation too short": lambda: Quadratic(mean=FOUR[:, :1], rotation=FOUR[:1], constant=TWO, log_prior=TWO),
    "categories that are not there": lambda: Counts(sizes=np.array([9]), table=np.zeros((2, 2)), log_prior=TWO),
    "a negative number of categories": lambda: Counts(sizes=np.array([-1]), table=np.zeros((0, 2)), log_prior=TWO),
    "a kernel of another name": lambda: kernel(kernel="eval"),
    "vectors of other columns": lambda: kernel(vectors=FOUR),
    "vectors without coefficients": lambda: kernel(coef=np.zeros((0, 2))),
    "a power of too much": lambda: kernel(kernel="poly", degree=1 << 40),
    "trees cut off": lambda: TreeEnsemble(content=b"\x00", n_classes=2),
}  # fmt: skip


@pytest.mark.parametrize("case", FORGED)
def test_a_forged_node_is_refused(case: str) -> None:
    program = Program(n_features=1, steps=[Step(of=(0,), node=FORGED[case]())])  # type: ignore[arg-type]
    with pytest.raises(ArtifactError):
        read(written(program), 2)
