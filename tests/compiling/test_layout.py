"""A large forest is laid out twice, and both layouts answer alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest

from fin_pyfunc.compiling.forms import BLOCK_NODES, ONNX_BATCH_FILE, ONNX_FILE
from fin_pyfunc.compiling.graph import ensemble_graph
from fin_pyfunc.compiling.grown import ensemble_of
from fin_pyfunc.compiling.rows import challenge
from fin_pyfunc.model.backends.onnx_session import open_session
from fin_pyfunc.model.features import infer
from tests.authoring.estimators import of, piped, random_forest, sk
from tests.compiling.checks import assert_same, compiled, odd_rows
from tests.models import Fitted, bars


@pytest.fixture(scope="module")
def large() -> Fitted:
    """A forest of some 400,000 nodes: many rows, and labels that nothing explains."""
    from sklearn.ensemble import RandomForestClassifier

    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(3000, 4)), columns=list("abcd"))
    y = rng.integers(0, 3, len(X))
    return Fitted(RandomForestClassifier(200, random_state=0).fit(X, y), X, X.iloc[:300])


def test_a_large_forest_is_compiled_and_exact(large: Fitted, tmp_path: Path) -> None:
    assert len(ensemble_of(large.estimator).trees.left) > 300_000
    made = compiled(large, tmp_path, backends=("onnx",))
    form = made.form("onnx")
    assert (form.error, form.band) == (0, 0)
    assert (form.batch_file is None) == (form.batch_from == 0)
    assert {path.name for path in tmp_path.iterdir()} == set(form.files) <= {ONNX_FILE, ONNX_BATCH_FILE}
    assert_same(made, odd_rows(made, large.held_out))


def test_blocks_hold_at_most_so_many_nodes_and_add_up_to_the_same() -> None:
    model = of(sk("ensemble.RandomForestClassifier", n_estimators=60, random_state=0))()
    ensemble = ensemble_of(model.estimator)
    whole, blocks = (ensemble_graph(ensemble, 5, block=block, single=False) for block in (None, 100))
    sizes = [
        len(attribute.ints)
        for node in blocks.graph.node
        for attribute in node.attribute
        if attribute.name == "nodes_nodeids"
    ]
    assert len(sizes) > 5
    assert max(sizes) <= 100 < BLOCK_NODES
    assert sum(sizes) == len(ensemble.trees.left)
    rows = {"features": bars().to_numpy()}
    one, other = (open_session(graph.SerializeToString()).run(None, rows)[0] for graph in (whole, blocks))
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(one, model.estimator.predict_proba(bars()))


@pytest.mark.parametrize("make", [of(random_forest), of(piped(random_forest), 0, 1), of(sk("svm.LinearSVC"), "a", "b")])
def test_a_graph_takes_one_matrix_and_answers_one(make: object, tmp_path: Path) -> None:
    model = make()  # type: ignore[operator]
    compiled(model, tmp_path, backends=("onnx",))
    graph = onnx.load(tmp_path / ONNX_FILE).graph
    double = onnx.TensorProto.DOUBLE
    assert [(i.name, i.type.tensor_type.elem_type) for i in graph.input] == [("features", double)]
    assert [(o.name, o.type.tensor_type.elem_type) for o in graph.output] == [("scores", double)]
    onnx.checker.check_model(tmp_path / ONNX_FILE)


def test_rows_to_compare_on_lie_on_thresholds_and_beside_them() -> None:
    model = of(random_forest)()
    plain, made = challenge(model.estimator, infer(model.train), model.train.to_numpy())
    trees = ensemble_of(model.estimator).trees
    assert len(plain) == len(model.train)
    for i in range(5):
        thresholds = trees.threshold[trees.feature == i]
        for beside in (thresholds, np.nextafter(thresholds, np.inf), np.nextafter(thresholds, -np.inf)):
            assert np.isin(made[:, i], beside).any()
    assert np.isfinite(made).all()
    assert abs(made).max() == np.finfo(np.float32).max
