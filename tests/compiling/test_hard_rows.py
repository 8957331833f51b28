"""What a pipeline decides in float64, at a threshold, an edge or a category, its form decides alike to the last bit."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from fin_pyfunc.compiling import conversion, forms
from fin_pyfunc.compiling.comparisons import comparisons
from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.rounding import Grade, grades
from tests.authoring.estimators import linear, of, piped_through, random_forest, sk
from tests.compiling.checks import assert_same, compiled, odd_rows
from tests.models import Fitted, bars, bars_with_gaps, fit, fit_array, labels

Array = np.ndarray[Any, Any]
boosting = sk("ensemble.GradientBoostingClassifier", n_estimators=8, random_state=0)
pure_forest = sk("ensemble.RandomForestClassifier", n_estimators=10, random_state=0)
scaled = sk("preprocessing.StandardScaler")
binarizer = sk("preprocessing.Binarizer", threshold=0.2345)


def bins(strategy: str, encode: str = "ordinal", n_bins: int = 5) -> Callable[[], Any]:
    return sk("preprocessing.KBinsDiscretizer", n_bins=n_bins, encode=encode, strategy=strategy)


def steps(*makers: Callable[[], Any]) -> Callable[[], Any]:
    from sklearn.pipeline import make_pipeline

    return lambda: make_pipeline(*(make() for make in makers))


def columns() -> Any:
    from sklearn.compose import ColumnTransformer

    each = [("bins", bins("uniform", "onehot-dense")(), [0, 2]), ("scaled", scaled(), [3]), ("cut", binarizer(), [4])]
    return piped_through(ColumnTransformer(each, remainder="passthrough"), linear())


def stacked(*members: Callable[[], Any], **options: Any) -> Callable[[], Any]:
    named = [(str(i), make) for i, make in enumerate(members)]
    return lambda: sk("ensemble.StackingClassifier", estimators=[(n, m()) for n, m in named], cv=2, **options)()


def whole_numbers() -> pd.DataFrame:
    random = np.random.default_rng(1)
    return pd.DataFrame({"hour": random.integers(0, 6, 200), "day": random.integers(0, 5, 200)})


KEPT: dict[str, Callable[[], Fitted]] = {
    "threshold": of(steps(binarizer, linear), 0, 1),
    "threshold behind a scaler": of(steps(scaled, binarizer, random_forest)),
    **{
        f"{strategy} bins, {encode}": of(steps(bins(strategy, encode), linear), 0, 1)
        for strategy in ("uniform", "quantile", "kmeans")
        for encode in ("ordinal", "onehot", "onehot-dense")
    },
    "bins before a forest": of(steps(bins("uniform", "onehot-dense"), random_forest)),
    "bins behind a scaler": of(steps(sk("preprocessing.MinMaxScaler"), bins("kmeans"), linear)),
    "bins of one column, a scaler for another": lambda: fit_array(columns(), labels(-1, 0, 1)),
    "bins in one member of a stack": of(stacked(steps(bins("uniform"), linear), random_forest)),
    "a bag of thresholds": of(sk("ensemble.BaggingClassifier", estimator=steps(binarizer, linear)(), random_state=0)),
    "thresholds, one against the rest": of(sk("multiclass.OneVsRestClassifier", estimator=steps(binarizer, linear)())),
    "forest behind other scalers": of(
        steps(sk("preprocessing.RobustScaler"), sk("preprocessing.MaxAbsScaler"), random_forest)
    ),
    "forest behind quantiles": of(steps(sk("preprocessing.QuantileTransformer", n_quantiles=9), random_forest)),
    "forest behind a selection": of(steps(sk("feature_selection.SelectKBest", k=3), random_forest)),
    "forest on a forest of pure leaves": of(stacked(pure_forest, final_estimator=random_forest())),
    "boosting of thresholds": of(steps(binarizer, boosting)),
    "categories that are whole numbers": of(
        steps(sk("preprocessing.OneHotEncoder", handle_unknown="ignore"), linear), 0, 1, frame=whole_numbers
    ),
}
DROPPED: dict[str, tuple[Callable[[], Fitted], str]] = {
    "forest behind components": (of(steps(sk("decomposition.PCA", n_components=3), random_forest)), "rounded"),
    "threshold behind components": (
        of(steps(sk("decomposition.PCA", n_components=3), sk("preprocessing.Binarizer", threshold=2e-4), linear)),
        "rounded",
    ),
    "forest on probabilities": (of(stacked(linear, final_estimator=random_forest())), "rounded"),
    "forest on rows of unit length": (of(steps(sk("preprocessing.Normalizer"), random_forest)), "rounded"),
    "isotonic calibration": (
        of(sk("calibration.CalibratedClassifierCV", estimator=random_forest(), method="isotonic", cv=2)),
        "rounded",
    ),
    "categories as numbers of an encoder": (
        of(steps(sk("preprocessing.OrdinalEncoder"), linear), 0, 1, frame=whole_numbers),
        "float32",
    ),
    "an encoder that refuses unknown categories": (
        of(steps(sk("preprocessing.OneHotEncoder"), linear), 0, 1, frame=whole_numbers),
        "the estimator refuses rows",
    ),
    "many quantiles": (of(steps(sk("preprocessing.QuantileTransformer", n_quantiles=100), linear)), "takes minutes"),
    "a pipeline on float32": (of(steps(binarizer, linear), 0, 1, frame=lambda: bars().astype("float32")), "float32"),
}


def around(model: Fitted) -> Array:
    """Rows with each of a pipeline's own thresholds and edges, on the way back through its scalers, and the numbers
    that follow and go before: 40 of float64, and some of float32 and beyond.
    """
    rows, made = model.train.to_numpy(dtype=np.float64), []
    before = []
    for step in getattr(model.estimator, "named_steps", {}).values():
        edges = getattr(step, "bin_edges_", [np.array([getattr(step, "threshold", np.nan)])] * rows.shape[1])
        for i, known in enumerate(edges):
            cuts = np.zeros((len(known), rows.shape[1]))
            cuts[:, i] = known
            cuts = cuts[np.isfinite(cuts).all(axis=1)]
            for scaler in reversed(before) if len(cuts) else ():
                cuts = scaler.inverse_transform(cuts)
            for cut in cuts[:, i]:
                near = [cut + 1e-9, cut - 1e-9, *np.nextafter(np.float32(cut), np.float32([-np.inf, cut, np.inf]))]
                for towards in (-np.inf, np.inf):
                    near += accumulate(range(20), lambda at, _: np.nextafter(at, towards), initial=cut)  # noqa: B023
                some = rows[np.arange(len(near)) % len(rows)].copy()
                some[:, i] = near
                made.append(some)
        if not hasattr(step, "inverse_transform") or hasattr(step, "bin_edges_"):
            break
        before.append(step)
    return np.vstack([rows, *made])


@pytest.mark.parametrize("case", KEPT)
def test_a_form_decides_at_each_constant_as_its_estimator(case: str, tmp_path: Path) -> None:
    model = KEPT[case]()
    made = compiled(model, tmp_path, backends=("onnx",))
    assert made.kept == ["onnx"], made.compiled.dropped
    assert made.form("onnx").error < 1e-12
    assert_same(made, around(model))


#: What converters do not know today, or get wrong: whatever comes of them, it answers as they do.
OTHERS: dict[str, Callable[[], Fitted]] = {
    "splines": of(steps(sk("preprocessing.SplineTransformer"), linear)),
    "powers": of(steps(sk("preprocessing.PowerTransformer"), random_forest)),
    "products": of(steps(sk("preprocessing.PolynomialFeatures"), random_forest)),
    "quantiles of a normal": of(
        steps(sk("preprocessing.QuantileTransformer", n_quantiles=9, output_distribution="normal"), linear)
    ),
    "leaves of random trees": of(steps(sk("ensemble.RandomTreesEmbedding", n_estimators=3, random_state=0), linear)),
    "gaps filled from neighbours": of(steps(sk("impute.KNNImputer"), linear), frame=bars_with_gaps),
    "gaps told apart": of(steps(sk("impute.MissingIndicator", features="all"), linear), frame=bars_with_gaps),
    "means of a category": of(steps(sk("preprocessing.TargetEncoder", cv=2), linear), 0, 1, frame=whole_numbers),
    "numbers as categories": of(
        steps(sk("preprocessing.OneHotEncoder", handle_unknown="ignore"), linear), frame=lambda: bars()[["spread"]]
    ),
    "counts": of(sk("naive_bayes.CategoricalNB"), frame=whole_numbers),
    "signs": of(sk("naive_bayes.BernoulliNB", binarize=0.2345)),
    "calibrated thresholds": of(sk("calibration.CalibratedClassifierCV", estimator=steps(binarizer, linear)(), cv=2)),
    "boosting of linear models": of(sk("ensemble.AdaBoostClassifier", estimator=linear())),
    "a threshold of its own": of(
        sk("model_selection.TunedThresholdClassifierCV", estimator=linear(), scoring="f1", cv=2), 0, 1
    ),
}


@pytest.mark.parametrize("case", OTHERS)
def test_whatever_a_converter_makes_of_it_answers_as_the_estimator(case: str, tmp_path: Path) -> None:
    model = OTHERS[case]()
    made = compiled(model, tmp_path, backends=("onnx",))
    assert made.kept or made.compiled.dropped["onnx"]
    if made.kept:
        assert_same(made, odd_rows(made, model.held_out))


@pytest.mark.parametrize("case", DROPPED)
def test_what_cannot_be_proven_stays_with_the_estimator(case: str, tmp_path: Path) -> None:
    make, reason = DROPPED[case]
    made = compiled(make(), tmp_path, backends=("onnx",))
    assert made.kept == []
    assert reason in made.compiled.dropped["onnx"]


def test_prices_of_five_decimals_fall_into_the_estimators_bins(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    X = pd.DataFrame({"bid": np.round(1.1 + random.normal(0, 2e-3, 20_000), 5), "flow": random.normal(size=20_000)})
    y = (X["flow"] + 400 * (X["bid"] - 1.1) > 0).astype(int)
    model = Fitted(steps(bins("uniform", "onehot-dense", 20), linear)().fit(X, y), X, X)
    made = compiled(model, tmp_path, backends=("onnx",))
    assert made.form("onnx").error < 1e-12
    assert_same(made, X.to_numpy())


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(["none", "StandardScaler", "MinMaxScaler", "RobustScaler"]),
    st.sampled_from(["Binarizer", "uniform", "quantile", "kmeans"]),
    st.sampled_from(["ordinal", "onehot", "onehot-dense"]),
    st.integers(2, 9),
    st.sampled_from([linear, random_forest, boosting]),
    st.floats(-2, 2),
    st.sampled_from([1e-5, 1.0, 1e5]),
    st.integers(0, 2**32 - 1),
)
def test_every_cut_of_any_pipeline_is_where_its_estimator_has_it(
    scaler: str, cutter: str, encode: str, n_bins: int, last: Any, threshold: float, scale: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    X = pd.DataFrame(random.normal(size=(160, 2)) * scale, columns=["a", "b"]).round(random.integers(2, 9))
    y = np.concatenate([[0, 1], (X["a"] + random.normal(0, 0.3 * scale, 160) > 0).to_numpy()[2:]])
    cut = sk("preprocessing.Binarizer", threshold=threshold * (scale if scaler == "none" else 1.0))
    makers = [cut if cutter == "Binarizer" else bins(cutter, encode, n_bins), last]
    makers = makers if scaler == "none" else [sk(f"preprocessing.{scaler}"), *makers]
    model = Fitted(steps(*makers)().fit(X, y), X, X)
    with tempfile.TemporaryDirectory() as folder:
        made = compiled(model, Path(folder), backends=("onnx",))
        if made.kept != ["onnx"]:  # all rows are in one bin, and no class is more probable than another
            assert "too close to call" in made.compiled.dropped["onnx"]
        assert_same(made, around(model))


def nudged(model: Any, found: Any, by: float) -> Any:
    """A copy of a graph with one of the constants that something is compared with moved, by one step at least."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    names = {name for node in changed.graph.node if found.value in node.input for name in node.input}
    for tensor in changed.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if tensor.name in names and value.dtype == np.float64:
            moved = value.copy()
            moved.reshape(-1)[0] = np.nextafter(moved.reshape(-1)[0] + by, np.inf)
            tensor.CopyFrom(numpy_helper.from_array(moved, tensor.name))
            return changed
    return None


@pytest.mark.parametrize(
    ("case", "by"),
    # behind a scaler neighbours among the features are not neighbours any more
    [("threshold", 0.0), ("uniform bins, ordinal", 0.0), ("bins behind a scaler", 1e-13), ("a bag of thresholds", 0.0)],
)
def test_a_constant_that_is_off_by_one_step_is_found(
    case: str, by: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, off = conversion.convert, []

    def convert(*args: Any, **options: Any) -> Any:
        model = own(*args, **options)
        for found in comparisons(model, grades(model, "it")):
            if (changed := nudged(model, found, by)) is not None:
                off.append(found)
                return changed
        return model

    monkeypatch.setattr(forms, "convert", convert)
    made = compiled(KEPT[case](), tmp_path, backends=("onnx",))
    assert off
    assert made.kept == []
    assert "off by" in made.compiled.dropped["onnx"]


@pytest.mark.parametrize(("step", "reason"), [(bins("kmeans"), "float32"), (binarizer, "off by")])
def test_a_converters_own_way_is_taken_only_where_it_is_proven(
    step: Callable[[], Any], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = conversion.own_converter
    kinds = ("KBinsDiscretizer", "Binarizer")
    monkeypatch.setattr(
        conversion, "own_converter", lambda part, *rest: None if type(part).__name__ in kinds else own(part, *rest)
    )
    made = compiled(of(steps(step, linear), 0, 1)(), tmp_path, backends=("onnx",))
    assert reason in made.compiled.dropped["onnx"]


def test_float32_bins_are_found_by_their_rows_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = conversion.own_converter
    monkeypatch.setattr(
        conversion, "own_converter", lambda part, *rest: None if hasattr(part, "bin_edges_") else own(part, *rest)
    )
    monkeypatch.setattr(forms, "grades", lambda model, _: dict.fromkeys((), Grade.EXACT))
    made = compiled(of(steps(bins("uniform"), linear), 0, 1)(), tmp_path, backends=("onnx",))
    assert "off by" in made.compiled.dropped["onnx"]


def test_numbers_that_a_graph_rounds_are_told_from_those_that_it_does_not() -> None:
    model = fit(steps(scaled, bins("uniform"), linear)(), bars(), labels(0, 1)).estimator
    graph = conversion.convert(model, 5, 2, block=None)
    found = grades(graph, "it")
    compared = comparisons(graph, found)
    assert [(each.is_rounded, each.is_tree) for each in compared] == [(False, False)]
    assert found[compared[0].value] is Grade.EXACT
    assert found["scores"] is Grade.ROUNDED


def test_the_reason_names_the_classifier() -> None:
    model = fit(sk("svm.SVC")(), bars(), labels(0, 1)).estimator
    with pytest.raises(NotCompilable, match="SVMClassifier in float32, and SVC computes in float64"):
        grades(conversion.convert(model, 5, 2, block=None), conversion.culprit(model))
