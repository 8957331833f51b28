"""Bare ONNX files as skl2onnx writes them: every form of label and probability, and what is no classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import (
    BooleanTensorType,
    DoubleTensorType,
    FloatTensorType,
    Int64TensorType,
    StringTensorType,
)
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
)
from sklearn.linear_model import LinearRegression, LogisticRegression, SGDClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from fin_pyfunc.model.backends.onnx_graph import class_labels
from fin_pyfunc.model.errors import ArtifactError, FeatureError, ScoringError
from fin_pyfunc.model.wrapper import FinPyfuncModel
from fin_pyfunc.serving.loader import load
from fin_pyfunc.serving.resolver import Resolver
from tests.models import bars, labels, quotes

#: How far the float32 of a graph may be from scikit-learn's float64.
FLOAT32 = 1e-5
LABELS = {"signed": (-1, 0, 1), "shuffled text": ("up", "down", "flat"), "two": (7, 3), "two of text": ("b", "a")}
SMALL = LogisticRegression()
ESTIMATORS = {
    "forest": RandomForestClassifier(5, random_state=0),
    "scaled logistic": make_pipeline(StandardScaler(), LogisticRegression()),
    "boosting": GradientBoostingClassifier(n_estimators=3),
    "extra trees": ExtraTreesClassifier(5, random_state=0),
    "tree": DecisionTreeClassifier(max_depth=3),
    "Bayes": GaussianNB(),
    "neighbours": KNeighborsClassifier(),
    "network": make_pipeline(StandardScaler(), MLPClassifier((4,), max_iter=300, random_state=0)),
    "calibrated": CalibratedClassifierCV(RandomForestClassifier(3, random_state=0), cv=2),
    "AdaBoost": AdaBoostClassifier(n_estimators=3, random_state=0),
    "bagging": BaggingClassifier(n_estimators=3, random_state=0),
    "stack": StackingClassifier([("a", DecisionTreeClassifier(max_depth=2)), ("b", SMALL)]),
    "one against the rest": OneVsRestClassifier(SMALL),
}


def matrix() -> np.ndarray[Any, np.dtype[np.float32]]:
    """Two numbers that do not lose anything as float32."""
    return bars()[["order_flow_imbalance", "spread"]].to_numpy().astype(np.float32)


def written(folder: Path, model: Any) -> Path:
    (folder / "m.onnx").write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return folder / "m.onnx"


def loaded(path: Path) -> FinPyfuncModel:
    resolver = Resolver(None)
    return load(resolver, resolver.resolve_argument(str(path))).model


def assert_answers_as(model: FinPyfuncModel, estimator: Any, frame: Any, sent: list[Any]) -> None:
    decided = model.decide(sent)
    assert decided.scores.probabilities is not None
    expected = estimator.predict_proba(frame)
    assert list(decided.scores.classes) == estimator.classes_.tolist()
    np.testing.assert_allclose(decided.scores.probabilities, expected, rtol=0, atol=FLOAT32)
    highest = np.sort(expected, axis=1)
    clear = highest[:, -1] - highest[:, -2] > 10 * FLOAT32  # float32 may break a tie otherwise
    predicted = np.array(decided.predictions, dtype=object)
    assert predicted[clear].tolist() == estimator.predict(frame)[clear].tolist()
    assert [type(label) for label in predicted] == [type(estimator.classes_.tolist()[0])] * len(sent)


@pytest.mark.parametrize("zipmap", [False, True])
@pytest.mark.parametrize("names", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
def test_a_matrix_is_answered_as_by_the_estimator(estimator: Any, names: Any, zipmap: bool, tmp_path: Path) -> None:
    estimator.fit(matrix(), labels(*names))
    model = loaded(written(tmp_path, to_onnx(estimator, matrix()[:1], options={"zipmap": zipmap})))
    assert_answers_as(model, estimator, matrix()[-30:], matrix()[-30:].tolist())
    assert model.decide([]).predictions == []
    assert model.dispatch.backends[0].name == "onnx"


def test_columns_of_numbers_text_and_booleans_are_answered_and_checked(tmp_path: Path) -> None:
    frame = quotes()[["order_flow_imbalance", "venue", "hour", "is_month_end"]]
    numbers = ["order_flow_imbalance", "hour", "is_month_end"]
    encoder = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["venue"]), ("passthrough", numbers))
    estimator = make_pipeline(encoder, LogisticRegression(max_iter=1000)).fit(frame, labels("down", "flat", "up"))
    inputs = [
        ("order_flow_imbalance", FloatTensorType([None, 1])),
        ("venue", StringTensorType([None, 1])),
        ("hour", Int64TensorType([None, 1])),
        ("is_month_end", BooleanTensorType([None, 1])),
    ]
    model = loaded(written(tmp_path, to_onnx(estimator, initial_types=inputs, options={"zipmap": False})))
    sent = cast("list[dict[str, Any]]", frame.tail(20).to_dict("records"))
    assert_answers_as(model, estimator, frame.tail(20), [dict(reversed(row.items())) for row in sent])
    assert model.features is not None
    assert [(f.name, f.kind) for f in model.features.features] == [
        ("order_flow_imbalance", "number"), ("venue", "string"), ("hour", "integer"), ("is_month_end", "boolean")
    ]  # fmt: skip
    with pytest.raises(FeatureError) as refused:
        model.decide([{**sent[0], "venue": None, "hour": 3.5}, {**sent[0], "is_month_end": 1}, {}])
    assert [(p.row, p.feature) for p in refused.value.problems][:3] == [(0, "venue"), (0, "hour"), (1, "is_month_end")]
    assert len(refused.value.problems) == 7


def test_a_double_matrix_is_not_narrowed(tmp_path: Path) -> None:
    X = matrix().astype(np.float64) * (1 + 1e-9)
    estimator = GaussianNB().fit(X, labels(-1, 0, 1))
    model = loaded(
        written(
            tmp_path, to_onnx(estimator, initial_types=[("X", DoubleTensorType([None, 2]))], options={"zipmap": False})
        )
    )
    probabilities = model.decide(X.tolist()).scores.probabilities
    assert probabilities is not None
    np.testing.assert_allclose(probabilities, estimator.predict_proba(X), rtol=0, atol=1e-9)


def test_labels_without_probabilities_are_answered(tmp_path: Path) -> None:
    estimator = RandomForestClassifier(5, random_state=0).fit(matrix(), labels(-1, 0, 1))
    graph = to_onnx(estimator, matrix()[:1], options={"zipmap": False})
    del graph.graph.output[1]
    decided = loaded(written(tmp_path, graph)).decide(matrix()[-20:].tolist())
    assert decided.predictions == estimator.predict(matrix()[-20:]).tolist()
    assert set(decided.confidences) == {"unknown"}


@pytest.mark.parametrize(
    "estimator", [LinearSVC(), SGDClassifier(random_state=0), SVC()], ids=["LinearSVC", "SGD", "SVC"]
)
@pytest.mark.parametrize("names", [(-1, 0, 1), (0, 1)], ids=["three", "two"])
def test_scores_are_never_passed_off_as_probabilities(estimator: Any, names: Any, tmp_path: Path) -> None:
    estimator.fit(matrix(), labels(*names))
    path = written(tmp_path, to_onnx(estimator, matrix()[:1]))
    with pytest.raises(ScoringError, match=r"answered (scores that are not probabilities|probabilities of shape)"):
        loaded(path).decide(matrix()[-20:].tolist())


def test_a_row_of_the_wrong_width_is_an_error_in_words(tmp_path: Path) -> None:
    estimator = LogisticRegression().fit(matrix(), labels(-1, 0, 1))
    model = loaded(written(tmp_path, to_onnx(estimator, matrix()[:1])))
    with pytest.raises(FeatureError, match="a row has another number of values than 2"):
        model.decide([[1.0, 2.0, 3.0]])
    with pytest.raises(FeatureError, match="'1' must be a number, not text"):
        model.decide([[2.0, "x"]])
    with pytest.raises(FeatureError, match="send each row as a list of its 2 values in training order"):
        model.decide([{"a": 1.0, "b": 2.0}])


def test_of_a_matrix_of_any_width_keys_are_not_matched_by_their_place(tmp_path: Path) -> None:
    estimator = LogisticRegression().fit(matrix(), labels(-1, 0, 1))
    graph = to_onnx(estimator, matrix()[:1])
    graph.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "n"
    model = loaded(written(tmp_path, graph))
    assert_answers_as(model, estimator, matrix()[-5:], matrix()[-5:].tolist())
    with pytest.raises(FeatureError, match="nothing says in which order it was trained"):
        model.decide([{"a": 1.0, "b": 2.0}])


def test_a_regressor_is_refused(tmp_path: Path) -> None:
    regressor = LinearRegression().fit(matrix(), bars()["spread"].to_numpy().astype(np.float32))
    with pytest.raises(ArtifactError, match=r"^The ONNX file is no classifier: .*\.$"):
        loaded(written(tmp_path, to_onnx(regressor, matrix()[:1])))


def test_probabilities_in_an_output_a_class_are_refused(tmp_path: Path) -> None:
    estimator = LogisticRegression().fit(matrix(), labels(-1, 0, 1))
    with pytest.raises(ArtifactError, match=r"^The ONNX file is no classifier: "):
        loaded(written(tmp_path, to_onnx(estimator, matrix()[:1], options={"zipmap": "columns"})))


def test_several_matrices_are_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame(matrix(), columns=["a", "b"])
    estimator = make_pipeline(make_column_transformer(("passthrough", ["a"]), ("passthrough", ["b"])), SMALL)
    estimator.fit(frame, labels(-1, 0, 1))
    graph = to_onnx(estimator, initial_types=[(n, FloatTensorType([None, 1])) for n in "ab"])
    graph.graph.input[1].type.tensor_type.shape.dim[1].dim_value = 4
    with pytest.raises(ArtifactError, match=r"^The ONNX file (takes several matrices|could not be read)"):
        loaded(written(tmp_path, graph))


@pytest.mark.parametrize("damage", ["cut", "noise", "empty"])
def test_a_damaged_file_is_one_sentence(damage: str, tmp_path: Path) -> None:
    estimator = RandomForestClassifier(5, random_state=0).fit(matrix(), labels(-1, 0, 1))
    whole = to_onnx(estimator, matrix()[:1]).SerializeToString()
    damaged = {"cut": whole[: len(whole) // 2], "noise": b"\x07" * 100, "empty": b""}[damage]
    with pytest.raises(ArtifactError, match=r"^The ONNX file could not be read \(\w+\): export the model again\.$"):
        loaded(written(tmp_path, damaged))


def hand_made(label_nodes: list[Any], constants: list[Any] | None = None, label_type: int = TensorProto.INT64) -> Any:
    """A graph whose probabilities are a constant fact, and whose label comes from `label_nodes`."""
    nodes = [helper.make_node("Softmax", ["X"], ["probabilities"]), *label_nodes]
    outputs = [
        helper.make_tensor_value_info("label", label_type, [None]),
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2]),
    ]
    inputs = [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 2])]
    graph = helper.make_graph(nodes, "by hand", inputs, outputs, constants or [])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


ARGMAX = helper.make_node("ArgMax", ["probabilities"], ["best"], axis=1, keepdims=0)
PICK = helper.make_node("Gather", ["names", "best"], ["label"])


@pytest.mark.parametrize("raw", [False, True])
def test_labels_are_read_however_a_tensor_holds_them(raw: bool, tmp_path: Path) -> None:
    values = np.array([5, -3], dtype=np.int64)
    content: Any = values.tobytes() if raw else values.tolist()
    constant = helper.make_tensor("names", TensorProto.INT64, [2], content, raw=raw)
    decided = loaded(written(tmp_path, hand_made([ARGMAX, PICK], [constant]))).decide([[0.0, 9.0]])
    assert decided.predictions == [-3]
    assert decided.one()["probabilities"] == pytest.approx({"5": 0.0001234, "-3": 0.9998766}, abs=1e-6)


def test_labels_may_stand_in_a_constant_node(tmp_path: Path) -> None:
    texts: Any = [b"sell", "l\xe4nger".encode()]
    constant = helper.make_tensor("value", TensorProto.STRING, [2], texts)
    nodes = [helper.make_node("Constant", [], ["names"], value=constant), ARGMAX, PICK]
    model = loaded(written(tmp_path, hand_made(nodes, label_type=TensorProto.STRING)))
    assert model.decide([[0.0, 9.0]]).predictions == ["l\xe4nger"]


@pytest.mark.parametrize("how", ["position", "repeated", "computed"])
def test_labels_that_cannot_be_found_are_refused_when_loading(how: str, tmp_path: Path) -> None:
    names = helper.make_tensor("names", TensorProto.INT64, [2], [1, 1])
    graph = {
        "position": lambda: hand_made([helper.make_node("ArgMax", ["X"], ["label"], axis=1, keepdims=0)]),
        "repeated": lambda: hand_made([ARGMAX, PICK], [names]),
        "computed": lambda: hand_made([ARGMAX, helper.make_node("Neg", ["best"], ["label"])]),
    }[how]()
    with pytest.raises(ArtifactError, match=r"^The ONNX file answers probabilities, but which label [^\n]+\.$"):
        loaded(written(tmp_path, graph))


def test_more_probabilities_than_labels_are_an_error(tmp_path: Path) -> None:
    names = helper.make_tensor("names", TensorProto.INT64, [3], [1, 2, 3])
    model = loaded(written(tmp_path, hand_made([ARGMAX, PICK], [names])))
    with pytest.raises(ScoringError, match=r"probabilities of shape \(1, 2\), expected \(1, 3\)"):
        model.decide([[0.0, 9.0]])


def test_the_graph_is_read_as_onnx_reads_it() -> None:
    estimator = RandomForestClassifier(5, random_state=0).fit(matrix(), labels("up", "down", "flat"))
    content = to_onnx(estimator, matrix()[:1], options={"zipmap": False}).SerializeToString()
    nodes = onnx.load_from_string(content).graph.node
    listed = [a.strings for n in nodes for a in n.attribute if a.name == "classlabels_strings"]
    assert class_labels(content) == [text.decode() for text in listed[0]]
