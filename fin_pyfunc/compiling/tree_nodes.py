"""Tree ensembles as nodes of an ONNX graph, exact in ways that ONNX's own classifier nodes are not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fin_pyfunc.compiling.trees import Array, Ensemble, Trees, constant, stack
from fin_pyfunc.model.backends.forest import float32_below

#: A TreeEnsembleRegressor (float32, several targets a leaf) is gone from ai.onnx.ml 5, where TreeEnsemble (float64, one
#: target a leaf) comes; one graph cannot have both. https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsemble.html
ML_FLOAT, ML_DOUBLE = 3, 5
#: Begins the name of every node made here, which tells it from a converter's.
OWN = "fin_pyfunc/"
#: Numbers of the widest vectors that processors compute with, in float64 (AVX-512).
_VECTOR = 8
#: Bits of a float32's significand: whole numbers up to 2**24 are exact in it (IEEE 754).
_FLOAT32_BITS = 24
#: TreeEnsemble's numbers of the comparisons, and of adding up; TreeEnsembleRegressor's names of the same.
_LEQ, _LT, _SUM = 0, 1, 1
_LEQ_NAME, _LEAF_NAME = b"BRANCH_LEQ", b"LEAF"


@dataclass
class Nodes:
    """Nodes and constants on their way into a graph.

    Parameters
    ----------
    prefix : str
        Begins every name made here, so that it is the only one of its kind in the graph.
    """

    prefix: str
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def name(self) -> str:
        """A new name."""
        return f"{self.prefix}{len(self.nodes) + len(self.constants)}"

    def constant(self, value: Any) -> str:
        """Add a constant and return its name."""
        from onnx import numpy_helper

        name = self.name()
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(
        self, op: str, inputs: Iterable[str], output: str | None = None, domain: str = "", **attributes: Any
    ) -> str:
        """Add a node and return the name of its output."""
        from onnx import AttributeProto, NodeProto, TensorProto

        name = output or self.name()
        node = NodeProto(op_type=op, domain=domain, name=f"{OWN}{name}_{op}", input=list(inputs), output=[name])
        for key, value in attributes.items():
            made = node.attribute.add(name=key)
            # by hand: onnx.helper looks at every one of a list's items, which takes seconds for a large forest
            if isinstance(value, TensorProto):
                made.type = AttributeProto.TENSOR
                made.t.CopyFrom(value)
            elif isinstance(value, int):
                made.type, made.i = AttributeProto.INT, value
            elif isinstance(value, bytes):
                made.type, made.s = AttributeProto.STRING, value
            elif isinstance(value, list):
                made.type = AttributeProto.STRINGS
                made.strings.extend(value)
            elif value.dtype.kind == "f":
                made.type = AttributeProto.FLOATS
                made.floats.extend(value.tolist())
            else:
                made.type = AttributeProto.INTS
                made.ints.extend(value.tolist())
        self.nodes.append(node)
        return name

    def cast(self, value: str, dtype: str, output: str | None = None) -> str:
        """Add a Cast to "float32" or "float64"."""
        from onnx import TensorProto

        to = TensorProto.FLOAT if dtype == "float32" else TensorProto.DOUBLE
        return self.add("Cast", [value], output, to=int(to))

    def link(self, op: str, scores: str, width: int, output: str | None = None) -> str:
        """Add a Sigmoid or Softmax that answers a row alike in a batch of any size, and return the name of its output.

        ONNX Runtime computes both a vector of numbers at a time and what is left over one by one, which may round
        otherwise. With rows as wide as vectors nothing is ever left over.
        """
        options: dict[str, Any] = {"axis": 1} if op == "Softmax" else {}
        if not (missing := -width % _VECTOR):
            return self.add(op, [scores], output, **options)
        pads, least = self.constant([0, 0, 0, missing]), self.constant(-np.inf if op == "Softmax" else 0.0)
        linked = self.add(op, [self.add("Pad", [scores, pads, least])], **options)
        # start, end and axis
        return self.add("Slice", [linked, *(self.constant([number]) for number in (0, width, 1))], output)


def add_ensemble(nodes: Nodes, ensemble: Ensemble, features: str, output: str, ml: int, block: int | None) -> None:
    """Add the nodes that compute an ensemble's probabilities.

    Parameters
    ----------
    nodes : Nodes
        Added to.
    ensemble : Ensemble
    features : str
        A float64 matrix (n_rows, n_features).
    output : str
        Becomes the float64 probabilities (n_rows, n_classes).
    ml : {3, 5}
        Version of ai.onnx.ml that the graph uses; a boosted ensemble needs 5, a forest is faster with 3.
    block : int or None
        Most tree nodes in one node of the graph; None for no limit. One node with all trees is fastest for one row;
        for many rows, blocks that fit into the processor's caches are.
    """
    if ensemble.kind == "boosted":
        _add_boosted(nodes, ensemble, features, output, block)
    elif ml == ML_FLOAT:
        _add_forest(nodes, ensemble, features, output, block)
    else:
        _add_forest_by_class(nodes, ensemble, features, output, block)


def _add_forest(nodes: Nodes, ensemble: Ensemble, features: str, output: str, block: int | None) -> None:
    """Sums in float32 that are exact, or nearly so, because of how the leaves are cut in parts.

    Where every leaf is of one class, the sums are whole numbers, exact in float32. Elsewhere each leaf is cut in a
    high part, a multiple of 2**-b with so few bits that no sum of n_trees of them is rounded, and a low part.
    A single tree is cut in three parts of 24 bits, which hold the 53 bits of a float64 between them.
    """
    trees, n_trees, k = ensemble.trees, len(ensemble.trees.roots), ensemble.n_classes
    # of two classes one is enough, but a lone tree's value of the other need not be exactly what remains to 1
    one_of_two = k == 2 and (n_trees > 1 or ensemble.is_pure)
    value = trees.value[:, 1:] if one_of_two else trees.value
    parts = [value] if ensemble.is_pure else _parts(value, n_trees)
    weights = np.hstack(parts).astype(np.float32)
    X = nodes.cast(features, "float32")
    pieces = _blocks(replace(trees, value=weights), block)
    sums = [
        nodes.add("TreeEnsembleRegressor", [X], domain="ai.onnx.ml", **_float_attributes(piece)) for piece in pieces
    ]
    # what the blocks add up to is exact, or nearly so, as within each of them
    exact = nodes.cast(_added(nodes, sums), "float64")
    if one_of_two:
        other = nodes.constant(np.tile([[-1.0, 1.0]], (len(parts), 1)))
        exact = nodes.add("Gemm", [exact, other, nodes.constant([float(n_trees), 0.0])])
    elif len(parts) > 1:
        exact = nodes.add("MatMul", [exact, nodes.constant(np.tile(np.eye(k), (len(parts), 1)))])
    nodes.add("Div", [exact, nodes.constant(float(n_trees))], output)


def _add_forest_by_class(nodes: Nodes, ensemble: Ensemble, features: str, output: str, block: int | None) -> None:
    """One float64 copy of the trees a class, for a graph that needs ai.onnx.ml 5 for another part of it."""
    X = nodes.cast(nodes.cast(features, "float32"), "float64")
    n_trees, k = len(ensemble.trees.roots), ensemble.n_classes
    copies = stack(replace(ensemble.trees, value=ensemble.trees.value[:, i : i + 1]) for i in range(k))
    target = np.repeat(np.arange(k), n_trees)
    summed = _add_double(nodes, copies, target, k, X, block, "float64")
    nodes.add("Div", [summed, nodes.constant(float(n_trees))], output)


def _add_boosted(nodes: Nodes, ensemble: Ensemble, features: str, output: str, block: int | None) -> None:
    """Scores added up as the library does, tree by tree from the base on; then its link, in float64."""
    if ensemble.target is None or ensemble.base is None:
        raise TypeError("a boosted ensemble has a target for each tree, and a base")
    X = features
    if ensemble.rounds:
        X = nodes.cast(X, "float32")
    if ensemble.rounds != (None if ensemble.sums == "float64" else "float32"):
        X = nodes.cast(X, ensemble.sums)
    base = [(constant(value), i) for i, value in enumerate(ensemble.base.tolist()) if value]
    bases = [replace(tree, strict=ensemble.trees.strict) for tree, _ in base]
    trees = stack([*bases, ensemble.trees])
    target = np.concatenate([np.array([i for _, i in base], dtype=np.int64), ensemble.target])
    raw = _add_double(nodes, trees, target, len(ensemble.base), X, block, ensemble.sums)
    if ensemble.sums == "float32":
        raw = nodes.cast(raw, "float64")
    if ensemble.link == "softmax":
        scaled = raw if ensemble.slope == 1 else nodes.add("Mul", [raw, nodes.constant(ensemble.slope)])
        nodes.link("Softmax", scaled, len(ensemble.base), output)
        return
    slope = [-ensemble.slope, ensemble.slope] if ensemble.link == "sigmoid" else [ensemble.slope]
    nodes.link("Sigmoid", nodes.add("Mul", [raw, nodes.constant(slope)]), ensemble.n_classes, output)


def _add_double(nodes: Nodes, trees: Trees, target: Array, n_scores: int, X: str, block: int | None, dtype: str) -> str:
    sums, first = [], 0
    for piece in _blocks(trees, block):
        last = first + len(piece.roots)
        attributes = _double_attributes(piece, target[first:last], n_scores, dtype)
        sums.append(nodes.add("TreeEnsemble", [X], domain="ai.onnx.ml", **attributes))
        first = last
    return _added(nodes, sums)


def _added(nodes: Nodes, sums: list[str]) -> str:
    return sums[0] if len(sums) == 1 else nodes.add("Sum", sums)


def _blocks(trees: Trees, block: int | None) -> list[Trees]:
    if block is None:
        return [trees]
    ends = trees.block_ends(block)
    return [trees.slice(first, last) for first, last in zip([0, *ends[:-1]], ends, strict=True)]


def _parts(value: Array, n_trees: int) -> list[Array]:
    if n_trees == 1:
        high = value.astype(np.float32)
        middle = (value - high).astype(np.float32)
        return [high, middle, value - high - middle]
    bits = _FLOAT32_BITS - int(np.ceil(np.log2(n_trees)))
    high = np.round(np.ldexp(value, bits)) * 2.0**-bits
    return [high, value - high]


def _float_attributes(trees: Trees) -> dict[str, Any]:
    """Of a TreeEnsembleRegressor; a node is named by its tree and its place there."""
    leaf = trees.is_leaf
    tree_of = np.repeat(np.arange(len(trees.roots)), np.diff(np.append(trees.roots, len(leaf))))
    place = np.arange(len(leaf)) - trees.roots[tree_of]
    start = trees.roots[tree_of]
    node, target = np.nonzero((trees.value != 0) & leaf[:, None])
    empty = np.setdiff1d(np.flatnonzero(leaf), node)  # every leaf has a weight, if it is nothing
    node, target = np.append(node, empty), np.append(target, np.zeros(len(empty), dtype=np.int64))
    order = np.argsort(node, kind="stable")
    node, target = node[order], target[order]
    attributes = {
        "n_targets": trees.value.shape[1],
        "nodes_treeids": tree_of,
        "nodes_nodeids": place,
        "nodes_featureids": np.where(leaf, 0, trees.feature),
        "nodes_values": np.where(leaf, 0, float32_below(trees.threshold)),
        "nodes_modes": np.where(leaf, _LEAF_NAME, _LEQ_NAME).tolist(),
        "nodes_truenodeids": np.where(leaf, 0, trees.left - start),
        "nodes_falsenodeids": np.where(leaf, 0, trees.right - start),
        "target_treeids": tree_of[node],
        "target_nodeids": place[node],
        "target_ids": target,
        "target_weights": trees.value[node, target],
        "aggregate_function": b"SUM",
        "post_transform": b"NONE",
    }
    if trees.nan_left[~leaf].any():
        attributes["nodes_missing_value_tracks_true"] = (trees.nan_left & ~leaf).astype(np.int64)
    return attributes


def _double_attributes(trees: Trees, target: Array, n_scores: int, dtype: str) -> dict[str, Any]:
    """Of a TreeEnsemble; branches and leaves are counted apart, and a tree that is a leaf hangs twice on a branch."""
    from onnx import numpy_helper

    leaf = trees.is_leaf
    alone = trees.roots[leaf[trees.roots]]
    inner = np.sort(np.append(np.flatnonzero(~leaf), alone))
    branch_no, leaf_no = np.full(len(leaf), -1), np.full(len(leaf), -1)
    branch_no[inner] = np.arange(len(inner))
    leaf_no[leaf] = np.arange(leaf.sum())
    left, right = (np.where(leaf[inner], inner, side[inner]) for side in (trees.left, trees.right))
    tree_of = np.repeat(np.arange(len(trees.roots)), np.diff(np.append(trees.roots, len(leaf))))
    attributes = {
        "n_targets": n_scores,
        "aggregate_function": _SUM,
        "post_transform": 0,
        "tree_roots": branch_no[trees.roots],
        "nodes_featureids": np.maximum(trees.feature[inner], 0),
        "nodes_splits": numpy_helper.from_array(trees.threshold[inner].astype(dtype)),
        "nodes_modes": numpy_helper.from_array(np.full(len(inner), _LT if trees.strict else _LEQ, dtype=np.uint8)),
        "nodes_truenodeids": np.where(leaf[left], leaf_no[left], branch_no[left]),
        "nodes_trueleafs": leaf[left].astype(np.int64),
        "nodes_falsenodeids": np.where(leaf[right], leaf_no[right], branch_no[right]),
        "nodes_falseleafs": leaf[right].astype(np.int64),
        "leaf_targetids": target[tree_of[leaf]],
        "leaf_weights": numpy_helper.from_array(trees.value[leaf, 0].astype(dtype)),
    }
    if trees.nan_left[inner].any():
        attributes["nodes_missing_value_tracks_true"] = (trees.nan_left & ~leaf)[inner].astype(np.int64)
    return attributes
