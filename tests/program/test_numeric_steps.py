"""Every step that computes with numbers does as scikit-learn's own, to the last bit where it is arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import special
from sklearn.decomposition import PCA, FastICA, IncrementalPCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import (
    RFE,
    RFECV,
    GenericUnivariateSelect,
    SelectFdr,
    SelectFpr,
    SelectFromModel,
    SelectFwe,
    SelectKBest,
    SelectPercentile,
    SequentialFeatureSelector,
    VarianceThreshold,
)
from sklearn.impute import MissingIndicator
from sklearn.kernel_approximation import RBFSampler
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NeighborhoodComponentsAnalysis
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
)
from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection

from fin_pyfunc.model.program.program import Program
from tests.program.steps import assert_same_as, program_of_step

Array = np.ndarray[Any, Any]
logistic = LogisticRegression(max_iter=200)


@cache
def table(name: str) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    columns: dict[str, Any] = {
        "a": rng.normal(size=240), "b": rng.exponential(size=240) - 0.2, "c": rng.integers(-3, 4, 240),
        "d": np.round(rng.normal(size=240), 1), "e": np.repeat([0.0, 1.0], 120), "f": rng.random(240) < 0.4,
    }  # fmt: skip
    frame = pd.DataFrame(columns)
    if name == "gaps":
        frame = frame.astype(dict.fromkeys("c", "float64"))
        return frame.mask(
            pd.DataFrame(rng.random(frame.shape) < 0.1, columns=frame.columns) & (frame.dtypes == "float64")
        )
    if "nullable" in name:
        gaps = pd.DataFrame(rng.random((240, 3)) < 0.1, columns=list("acf"))
        nullable = frame[["a", "c", "f"]].astype({"a": "Float64", "c": "Int64", "f": "boolean"}).mask(gaps)
        return nullable[["a", "c"]].abs() if "positive" in name else nullable
    return {"numbers": frame, "floats": frame[["a", "b", "d"]], "positive": frame[["a", "b"]].abs() + 0.5}[name]


def bins(encode: str, strategy: str = "quantile", **options: Any) -> Any:
    return KBinsDiscretizer(n_bins=5, encode=encode, strategy=strategy, subsample=None, **options)


def union(**weights: float) -> Any:
    return FeatureUnion(
        [("s", StandardScaler()), ("as", "passthrough"), ("none", "drop"), ("bins", bins("onehot"))],
        transformer_weights=weights,
    )


STEPS: dict[str, tuple[Callable[[], Any], str]] = {
    "StandardScaler": (StandardScaler, "gaps"),
    "StandardScaler of nullable columns": (StandardScaler, "nullable"),
    "QuantileTransformer of nullable columns": (lambda: QuantileTransformer(n_quantiles=30), "nullable"),
    "PowerTransformer of nullable columns": (PowerTransformer, "nullable"),
    "logarithms of nullable columns": (
        lambda: make_pipeline(FunctionTransformer(np.log1p), StandardScaler()), "nullable positive"
    ),
    "StandardScaler, mean only": (lambda: StandardScaler(with_std=False), "numbers"),
    "StandardScaler, scale only": (lambda: StandardScaler(with_mean=False), "numbers"),
    "StandardScaler, sparse": (lambda: make_pipeline(bins("onehot"), StandardScaler(with_mean=False)), "numbers"),
    "MinMaxScaler": (MinMaxScaler, "gaps"),
    "MinMaxScaler, clipped": (lambda: MinMaxScaler((-1, 3), clip=True), "gaps"),
    "MaxAbsScaler": (MaxAbsScaler, "gaps"),
    "MaxAbsScaler, sparse": (lambda: make_pipeline(bins("onehot"), MaxAbsScaler()), "numbers"),
    "RobustScaler": (lambda: RobustScaler(unit_variance=True), "gaps"),
    "RobustScaler, scale only": (lambda: RobustScaler(with_centering=False), "numbers"),
    "RobustScaler, centre only": (lambda: RobustScaler(with_scaling=False), "numbers"),
    "RobustScaler, sparse": (lambda: make_pipeline(bins("onehot"), RobustScaler(with_centering=False)), "numbers"),
    "PowerTransformer": (PowerTransformer, "gaps"),
    "PowerTransformer, as it is": (lambda: PowerTransformer(standardize=False), "numbers"),
    "PowerTransformer, Box-Cox": (lambda: PowerTransformer("box-cox"), "positive"),
    "QuantileTransformer": (lambda: QuantileTransformer(n_quantiles=60), "gaps"),
    "QuantileTransformer, few": (lambda: QuantileTransformer(n_quantiles=1), "numbers"),
    "QuantileTransformer, normal": (lambda: QuantileTransformer(output_distribution="normal"), "gaps"),
    **{
        f"KBinsDiscretizer, {encode}, {strategy}": ((lambda e=encode, s=strategy: bins(e, s)), "numbers")
        for encode in ("ordinal", "onehot", "onehot-dense") for strategy in ("uniform", "quantile", "kmeans")
    },
    "KBinsDiscretizer of float64": (lambda: bins("ordinal", dtype=np.float64), "numbers"),
    "Binarizer": (lambda: Binarizer(threshold=0.3), "numbers"),
    "Binarizer, sparse": (lambda: make_pipeline(bins("onehot"), Binarizer()), "numbers"),
    "PolynomialFeatures": (PolynomialFeatures, "numbers"),
    **{
        f"PolynomialFeatures, degree {d}, {i}, {b}": (
            (lambda d=d, i=i, b=b: PolynomialFeatures(d, interaction_only=i, include_bias=b)), "numbers"
        )
        for d in (1, 3, (2, 3), (0, 2), (3, 7)) for i in (True, False) for b in (True, False)
    },
    "PolynomialFeatures, F": (lambda: PolynomialFeatures(order="F"), "floats"),
    "PolynomialFeatures, sparse": (lambda: make_pipeline(bins("onehot"), PolynomialFeatures()), "floats"),
    "PolynomialFeatures, sparse, degree 3": (lambda: make_pipeline(bins("onehot"), PolynomialFeatures(3)), "floats"),
    **{
        f"SplineTransformer, {e}, degree {d}": (
            (lambda e=e, d=d, k=k: SplineTransformer(n_knots=6, degree=d, extrapolation=e, knots=k)), "floats"
        )
        for e in ("constant", "linear", "continue", "periodic", "error") for d, k in ((1, "uniform"), (3, "quantile"))
    },
    "SplineTransformer, one less": (lambda: SplineTransformer(include_bias=False), "floats"),
    **{
        f"FunctionTransformer, {f.__name__}": ((lambda f=f: FunctionTransformer(f)), "floats")
        for f in (np.log1p, np.sqrt, np.abs, np.exp, np.sign, np.square, np.cbrt, np.tanh, np.reciprocal, np.floor,
                  special.expit, special.logit, special.erf)
    },
    "FunctionTransformer, checked": (lambda: FunctionTransformer(np.log1p, validate=True), "floats"),
    "logarithms, scaled": (lambda: make_pipeline(FunctionTransformer(np.log1p), StandardScaler()), "positive"),
    "logarithms, cut": (lambda: make_pipeline(FunctionTransformer(np.log), Binarizer()), "positive"),
    "FunctionTransformer of nothing": (lambda: make_pipeline(FunctionTransformer(), StandardScaler()), "numbers"),
    "FeatureUnion": (union, "floats"),
    "FeatureUnion, weighed": (lambda: union(s=0.3, **{"as": 2.5}, bins=3.0), "numbers"),
    "PolynomialFeatures of powers": (lambda: make_pipeline(PowerTransformer(), PolynomialFeatures()), "numbers"),
    **{
        type(step).__name__: ((lambda step=step: make_pipeline(step, StandardScaler())), "numbers")
        for step in (
            SelectKBest(k=3), SelectPercentile(percentile=60), SelectFpr(alpha=0.9), SelectFdr(alpha=0.9),
            SelectFwe(alpha=0.9), GenericUnivariateSelect(mode="k_best", param=2), SelectFromModel(logistic),
            RFE(logistic, n_features_to_select=3), RFECV(logistic, cv=2), VarianceThreshold(0.5),
            SequentialFeatureSelector(logistic, n_features_to_select=2, cv=2),
        )
    },
    "SelectFromModel of trees": (
        lambda: make_pipeline(SelectFromModel(RandomForestClassifier(10, random_state=0)), StandardScaler()), "gaps"
    ),
    "MissingIndicator": (lambda: MissingIndicator(error_on_new=False), "gaps"),
    "MissingIndicator, strict": (MissingIndicator, "gaps"),
    "MissingIndicator of all": (lambda: MissingIndicator(features="all"), "gaps"),
}  # fmt: skip
ROUNDED: dict[str, tuple[Callable[[], Any], str]] = {
    "Normalizer": (Normalizer, "numbers"),
    "Normalizer, l1": (lambda: Normalizer("l1"), "numbers"),
    "Normalizer, max": (lambda: Normalizer("max"), "floats"),
    "Normalizer, sparse": (lambda: make_pipeline(bins("onehot"), Normalizer()), "numbers"),
    "PCA": (lambda: make_pipeline(StandardScaler(), PCA(3)), "numbers"),
    "PCA, whitened": (lambda: make_pipeline(StandardScaler(), PCA(3, whiten=True)), "numbers"),
    "TruncatedSVD": (lambda: make_pipeline(MinMaxScaler(clip=True), TruncatedSVD(3)), "numbers"),
    "TruncatedSVD, sparse": (lambda: make_pipeline(bins("onehot"), TruncatedSVD(3)), "numbers"),
    **{
        type(step).__name__: ((lambda step=step: make_pipeline(MinMaxScaler(clip=True), step)), "numbers")
        for step in (
            IncrementalPCA(2, whiten=True),
            FastICA(2, random_state=0),
            LinearDiscriminantAnalysis(),
            NeighborhoodComponentsAnalysis(max_iter=5),
            GaussianRandomProjection(3, random_state=0),
            SparseRandomProjection(3, random_state=0),
        )
    },
    "LinearDiscriminantAnalysis, eigen": (
        lambda: make_pipeline(MinMaxScaler(clip=True), LinearDiscriminantAnalysis(solver="eigen")),
        "floats",
    ),
    "RBFSampler": (lambda: make_pipeline(MinMaxScaler(clip=True), RBFSampler(n_components=8)), "numbers"),
}


@cache
def fitted(name: str) -> tuple[Any, pd.DataFrame, Program]:
    make, on = {**STEPS, **ROUNDED}[name]
    train = table(on)
    transformer = make().fit(train, (train["a"].fillna(0) + train.iloc[:, 1].fillna(0) > 1).astype(int))
    return transformer, train, program_of_step(transformer, train)[0]


def rows_of(name: str) -> st.SearchStrategy[Array]:
    """Rows that a client may send: values of training and of edges, what is beside them, far ones, missing ones."""
    _, train, program = fitted(name)
    own = np.concatenate([train.to_numpy(dtype=np.float64, na_value=np.nan).ravel(), *_constants(program)])
    own = own[np.isfinite(own)]
    near = st.sampled_from(own.tolist()).flatmap(
        lambda x: st.sampled_from(
            [x, float(np.nextafter(x, np.inf)), float(np.nextafter(x, -np.inf)), x + 1e-9, x - 1e-7]
        )
    )
    far = st.sampled_from([0.0, -0.0, 1e-300, -1e-12, 1e6, -1e6, 1e19, -1e19, 3.0, -1.0])
    value = st.one_of(near, near, far, st.floats(-10, 10))

    def column(dtype: Any, has_gaps: bool) -> st.SearchStrategy[float]:
        if dtype.kind in "bi":
            whole = st.sampled_from([0.0, 1.0]) if dtype.kind == "b" else st.integers(-5, 5).map(float)
            return whole if not has_gaps else st.one_of(whole, whole, st.just(float("nan")))
        return st.one_of(value, value, value, st.just(float("nan"))) if has_gaps else value

    each = [column(dtype, bool(train[c].isna().any())) for c, dtype in train.dtypes.items()]
    return st.lists(st.tuples(*each), min_size=1, max_size=5).map(lambda rows: np.array(rows, dtype=np.float64))


def _constants(program: Program) -> list[Array]:
    return [edge.constant for step in program.steps for edge in step.node.edges()]


@pytest.mark.parametrize("name", STEPS)
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
@pytest.mark.filterwarnings("ignore")
def test_a_step_makes_the_same_bits(name: str, data: st.DataObject) -> None:
    transformer, train, program = fitted(name)
    assert_same_as(transformer, train, data.draw(rows_of(name)), program=program)


@pytest.mark.parametrize("name", ROUNDED)
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
@pytest.mark.filterwarnings("ignore")
def test_a_step_with_a_sum_is_as_close_as_rounding_lets_it(name: str, data: st.DataObject) -> None:
    transformer, train, program = fitted(name)
    rows = np.clip(data.draw(rows_of(name)), -1e6, 1e6)
    assert_same_as(transformer, train, rows, program=program, within=1e-9)
