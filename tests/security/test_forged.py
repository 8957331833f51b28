"""Files whose digests are right and whose numbers are not: refused before any compiled code goes by them."""

from __future__ import annotations

import json
import random
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import skops.io
from onnx import TensorProto, helper, numpy_helper
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from fin_pyfunc.model import estimators
from fin_pyfunc.model.errors import ArtifactError
from fin_pyfunc.model.soundness.estimator import check_estimator
from fin_pyfunc.model.soundness.onnx import check_onnx
from fin_pyfunc.model.soundness.treelite import check_treelite
from fin_pyfunc.model.soundness.trees import MAX_DEPTH
from tests.authoring.estimators import lightgbm
from tests.models import bars, labels
from tests.test_artifact import FIXTURES, folder

ESTIMATORS: dict[str, Callable[[], Any]] = {
    "forest": lambda: RandomForestClassifier(3, random_state=0),
    "extra trees": lambda: ExtraTreesClassifier(3, random_state=0),
    "tree": lambda: DecisionTreeClassifier(random_state=0),
    "boosting": lambda: GradientBoostingClassifier(n_estimators=2),
    "histogram": lambda: HistGradientBoostingClassifier(max_iter=3, min_samples_leaf=5),
    "k-d tree": lambda: KNeighborsClassifier(algorithm="kd_tree", leaf_size=5),
    "ball tree": lambda: KNeighborsClassifier(algorithm="ball_tree", leaf_size=5),
    "brute": lambda: KNeighborsClassifier(algorithm="brute"),
    "svm": lambda: make_pipeline(StandardScaler(), SVC()),
}


def fitted(kind: str) -> Any:
    return ESTIMATORS[kind]().fit(bars(), labels(-1, 0, 1))


def set_state(tree: Any, **changes: Any) -> Any:
    """A tree of scikit-learn's with other numbers, made as a file makes it."""
    kind, arguments, state = tree.__reduce__()
    state = {**state, **{name: changes[name] for name in changes if name in state}}
    if "field" in changes:
        nodes = state["nodes"].copy()
        nodes[changes["field"]][changes.get("at", 0)] = changes["value"]
        state["nodes"] = nodes
    made = kind(*changes.get("arguments", arguments))
    made.__setstate__(state)
    return made


TREES: dict[str, dict[str, Any]] = {
    "a child beyond the end": {"field": "left_child", "value": 10**9},
    "a child before the start": {"field": "right_child", "value": -7},
    "a child that is its own parent": {"field": "left_child", "value": 0},
    "a feature that no row has": {"field": "feature", "value": 10**9},
    "a feature before the first": {"field": "feature", "value": -3},
    "fewer than none": {"node_count": -1},
    "no nodes": {"node_count": 0},
}


@pytest.mark.parametrize("kind", ["forest", "extra trees", "tree", "boosting"])
@pytest.mark.parametrize("change", TREES.values(), ids=TREES)
def test_a_forged_estimator_is_refused(kind: str, change: dict[str, Any]) -> None:
    estimator = fitted(kind)
    check_estimator(estimator)
    owner = estimator if kind == "tree" else np.ravel(estimator.estimators_)[-1]
    owner.tree_ = set_state(owner.tree_, **change)
    with pytest.raises(ArtifactError, match="which no library writes"):
        check_estimator(estimator)


def test_a_forged_tree_is_refused_out_of_a_skops_file(tmp_path: Path) -> None:
    estimator = fitted("forest")
    estimator.estimators_[1].tree_ = set_state(estimator.estimators_[1].tree_, field="feature", value=10**9)
    skops.io.dump(estimator, tmp_path / "m.skops")
    with pytest.raises(ArtifactError, match="a feature that a row does not have"):
        estimators.load_file(tmp_path / "m.skops", "skops")


def forge_widths(estimator: Any) -> None:
    estimator.n_features_in_ = 2


def forge_members(estimator: Any) -> None:
    estimator.estimators_[0].n_features_in_ = 2


def forge_silence(estimator: Any) -> None:
    del estimator.n_features_in_


def forge_bunch(estimator: Any) -> None:
    from sklearn.utils import Bunch

    estimator.estimators_[0] = Bunch(tree_=estimator.estimators_[0].tree_, n_features_in_=5)


def forge_stages(estimator: Any) -> None:
    estimator.estimators_ = np.repeat(estimator.estimators_, 4, axis=1)


def forge_leaf(field: str, value: Any) -> Callable[[Any], None]:
    def forge(estimator: Any) -> None:
        estimator._predictors[0][0].nodes[field][0] = value

    return forge


def forge_category(estimator: Any) -> None:
    estimator._predictors[0][0].nodes["is_categorical"][0] = 1


def forge_bin_mapper(estimator: Any) -> None:
    estimator._bin_mapper.is_categorical_ = np.zeros(1, dtype=np.uint8)


def forge_state(place: int, change: Callable[[Any], Any]) -> Callable[[Any], None]:
    def forge(estimator: Any) -> None:
        state = list(estimator._tree.__getstate__())
        state[place] = change(state[place])
        made = type(estimator._tree).__new__(type(estimator._tree))
        made.__setstate__(tuple(state))
        estimator._tree = made

    return forge


def beyond(array: Any) -> Any:
    changed = np.array(array)
    changed[0] = 10**9
    return changed


def span(name: str, value: int) -> Callable[[Any], Any]:
    def change(nodes: Any) -> Any:
        changed = np.array(nodes)
        changed[name][-1] = value
        return changed

    return change


def no_leaf(nodes: Any) -> Any:
    changed = np.array(nodes)
    changed["is_leaf"] = 0
    return changed


def forge_labels(estimator: Any) -> None:
    estimator._y = beyond(estimator._y)


def forge_few_labels(estimator: Any) -> None:
    estimator._y = estimator._y[:3]


def forge_vectors(name: str, change: Callable[[Any], Any]) -> Callable[[Any], None]:
    def forge(pipeline: Any) -> None:
        setattr(pipeline[-1], name, change(getattr(pipeline[-1], name)))

    return forge


PARTS: dict[str, tuple[str, Callable[[Any], None]]] = {
    "narrower": ("forest", forge_widths),
    "a narrower member": ("forest", forge_members),
    "no width": ("extra trees", forge_silence),
    "something else in the forest": ("forest", forge_bunch),
    "more trees than classes": ("boosting", forge_stages),
    "a child beyond the end": ("histogram", forge_leaf("left", 4 * 10**9)),
    "a loop": ("histogram", forge_leaf("right", 0)),
    "a feature that no row has": ("histogram", forge_leaf("feature_idx", 10**9)),
    "a number for a category": ("histogram", forge_category),
    "categories of another width": ("histogram", forge_bin_mapper),
    "a row beyond the end": ("k-d tree", forge_state(1, beyond)),
    "a span beyond the end": ("ball tree", forge_state(2, span("idx_end", 10**9))),
    "a span before the start": ("k-d tree", forge_state(2, span("idx_start", -(10**9)))),
    "no leaves": ("k-d tree", forge_state(2, no_leaf)),
    "fewer bounds": ("ball tree", forge_state(3, lambda bounds: np.array(bounds)[:, :1])),
    "more levels": ("k-d tree", forge_state(5, lambda levels: levels + 9)),
    "a label beyond the classes": ("brute", forge_labels),
    "fewer labels than rows": ("brute", forge_few_labels),
    "fewer coefficients": ("svm", forge_vectors("_dual_coef_", lambda c: c[:, :2])),
    "more vectors than there are": ("svm", forge_vectors("_n_support", lambda n: n * 1000)),
    "fewer intercepts": ("svm", forge_vectors("_intercept_", lambda i: i[:1])),
}


@pytest.mark.parametrize(("kind", "forge"), PARTS.values(), ids=PARTS)
def test_parts_that_do_not_fit_together_are_refused(kind: str, forge: Callable[[Any], None]) -> None:
    estimator = fitted(kind)
    check_estimator(estimator)
    forge(estimator)
    with pytest.raises(ArtifactError, match="which no library writes"):
        check_estimator(estimator)


def test_a_skops_file_that_unpacks_to_a_multiple_is_refused(tmp_path: Path) -> None:
    skops.io.dump(fitted("tree"), tmp_path / "m.skops")
    with zipfile.ZipFile(tmp_path / "m.skops", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.npy", bytes(300 << 20))
    assert (tmp_path / "m.skops").stat().st_size < 1 << 20
    with pytest.raises(ArtifactError, match="unpacks to more than 50 times its size"):
        estimators.load_file(tmp_path / "m.skops", "skops")


# --- LightGBM's text in a skops file


def resized(text: str, pattern: str, other: str) -> str:
    """A model with another line in its first tree or header, and sizes that fit it."""
    forged, n = re.subn(pattern, other, text, count=1, flags=re.MULTILINE)
    assert n == 1
    grown = 0 if re.search(pattern, text[: text.index("Tree=0")], re.MULTILINE) else len(forged) - len(text)
    return re.sub(r"tree_sizes=(\d+)", lambda size: f"tree_sizes={int(size[1]) + grown}", forged, count=1)


@pytest.mark.parametrize(
    ("pattern", "other"),
    [
        (r"^left_child=\S+", "left_child=999999999"),
        (r"^left_child=\S+", "left_child=0"),
        (r"^right_child=\S+", "right_child=-900000"),
        (r"^split_feature=\S+", "split_feature=70000"),
        (r"^split_feature=\S+", "split_feature=-1"),
        (r"^num_leaves=\d+", "num_leaves=999999"),
        (r"^decision_type=\d+", "decision_type=1"),
        (r"^leaf_value=\S+ ", "leaf_value="),
        (r"num_class:3", "num_class:99999"),
        (r"^num_tree_per_iteration=3", "num_tree_per_iteration=9"),
        (r"^tree_sizes=", "tree_sizes=9"),
    ],
)
def test_a_forged_lightgbm_model_is_refused_before_lightgbm_reads_it(pattern: str, other: str, tmp_path: Path) -> None:
    estimator = lightgbm(num_leaves=4).fit(bars(), labels(-1, 0, 1))
    path = tmp_path / "m.skops"
    skops.io.dump(estimator, path)
    read = estimators.load_file(path, "skops")
    assert read.predict(bars()).tolist() == estimator.predict(bars()).tolist()
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    text = estimator.booster_.__getstate__()["_handle"]
    said, forged = json.dumps(json.dumps(text)), json.dumps(json.dumps(resized(text, pattern, other)))
    assert said.encode() in contents["schema.json"]
    contents["schema.json"] = contents["schema.json"].replace(said.encode(), forged.encode())
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    with pytest.raises(ArtifactError, match="which no library writes"):
        estimators.load_file(path, "skops")


# --- ONNX


def chain(depth: int) -> bytes:
    """A tree that is a chain, in each of the two forms that ONNX has for trees."""
    leaves = depth + 1
    node = helper.make_node(
        "TreeEnsemble", ["features"], ["scores"], domain="ai.onnx.ml", n_targets=1, aggregate_function=1,
        post_transform=0, tree_roots=[0], nodes_featureids=[0] * depth,
        nodes_splits=numpy_helper.from_array(np.zeros(depth)),
        nodes_modes=numpy_helper.from_array(np.zeros(depth, np.uint8)),
        nodes_truenodeids=list(range(depth)), nodes_trueleafs=[1] * depth,
        nodes_falsenodeids=[*range(1, depth), depth], nodes_falseleafs=[0] * (depth - 1) + [1],
        leaf_targetids=[0] * leaves, leaf_weights=numpy_helper.from_array(np.ones(leaves)),
    )  # fmt: skip
    inputs = [helper.make_tensor_value_info("features", TensorProto.DOUBLE, [None, 2])]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.DOUBLE, [None, 1])]
    graph = helper.make_graph([node], "chain", inputs, outputs)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 5)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def onnx_forest() -> onnx.ModelProto:
    return onnx.load(folder(FIXTURES / "artifact-v2") / "model.onnx")


def changed(name: str, at: int, value: int) -> Callable[[onnx.ModelProto], None]:
    def forge(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            for attribute in node.attribute:
                if attribute.name == name:
                    attribute.ints[at] = value

    return forge


def external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer.add(name="outside", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../../etc/passwd")


def nested(model: onnx.ModelProto) -> None:
    graph = model.graph
    for _ in range(12):
        node = graph.node.add(op_type="If", input=["x"], output=["y"])
        attribute = node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH)
        attribute.g.name = "inner"
        graph = attribute.g


def domain(model: onnx.ModelProto) -> None:
    model.opset_import.add(domain="com.example", version=1)


def cut_short(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "nodes_featureids":
                del attribute.ints[-1]


ONNX: dict[str, Callable[[onnx.ModelProto], None]] = {
    "a child beyond the end": changed("nodes_truenodeids", 0, 10**9),
    "a child before the start": changed("nodes_falsenodeids", 0, -4),
    "a loop": changed("nodes_truenodeids", 0, 0),
    "a feature before the first": changed("nodes_featureids", 0, -1),
    "a feature that no row has": changed("nodes_featureids", 0, 2**40),
    "two nodes of one number": changed("nodes_nodeids", 1, 0),
    "uneven": cut_short,
    "numbers in another file": external,
    "graphs in graphs": nested,
    "operators of its own": domain,
}


@pytest.mark.parametrize("forge", ONNX.values(), ids=ONNX)
def test_a_forged_onnx_file_is_refused(forge: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx_forest()
    check_onnx(model.SerializeToString())
    forge(model)
    with pytest.raises(ArtifactError, match=r"which no library writes|which are not opened here"):
        check_onnx(model.SerializeToString())


def test_a_tree_so_deep_that_onnx_runtime_would_end_is_refused() -> None:
    check_onnx(chain(MAX_DEPTH - 1))
    with pytest.raises(ArtifactError, match="deeper than"):
        check_onnx(chain(300_000))


# --- treelite


def test_a_forged_treelite_file_is_refused() -> None:
    """Each byte that says where something is or how much of it there is, and every cut."""
    content = (folder(FIXTURES / "artifact-v2") / "trees.treelite").read_bytes()
    assert check_treelite(content, 3).n_features == 2
    for classes in (2, 4):
        with pytest.raises(ArtifactError):
            check_treelite(content, classes)
    for cut in (*range(200), *range(200, len(content), 97)):
        with pytest.raises(ArtifactError):
            check_treelite(content[:cut], 3)
    with pytest.raises(ArtifactError):
        check_treelite(content + b"\0", 3)
    chance = random.Random(0)
    refused = 0
    for _ in range(400):
        place, number = chance.randrange(12, len(content) - 8), chance.choice([-1, 2**31 - 1, 10**6])
        forged = content[:place] + (number % 2**32).to_bytes(4, "little") + content[place + 4 :]
        try:
            check_treelite(forged, 3)
        except ArtifactError:
            refused += 1
    assert refused > 100  # the others changed a number that is no position: a threshold, a leaf, a count
