"""An ONNX file, read as data before ONNX Runtime opens it: nothing outside the file, and trees that are trees.

ONNX Runtime checks its graphs itself, but walks a tree by recursion until the stack ends, and versions differ in what
they check.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fin_pyfunc.model.errors import ArtifactError
from fin_pyfunc.model.soundness.trees import Array, check_trees, forged

#: Deepest nesting of graphs in graphs (If, Loop, Scan).
_MAX_NESTING = 8
#: Widest row that a tree may ask of; ONNX Runtime compares with the row's own width when it runs.
_MAX_FEATURES = 1 << 20
_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
_EXTERNAL = 1  # TensorProto.DataLocation


def check_onnx(content: bytes) -> None:
    """Check a model.

    Parameters
    ----------
    content : bytes
        Of an ``.onnx`` file.

    Raises
    ------
    ArtifactError
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped] # protobuf ships no types

    from fin_pyfunc.model.backends.onnx_graph import message

    try:
        model = message("Model").FromString(content)
    except DecodeError as e:
        raise ArtifactError(f"The ONNX file could not be read ({type(e).__name__}): export the model again.") from e
    if any(opset.domain not in _DOMAINS for opset in model.opset_import):
        raise forged("operators of a domain that is not known here")
    if model.functions:
        raise forged("functions of its own")
    graphs = list(_graphs(model.graph, 0))
    for graph in graphs:
        tensors = [*graph.initializer, *(a.t for node in graph.node for a in node.attribute)]
        tensors += [t for node in graph.node for a in node.attribute for t in a.tensors]
        sparse = [*graph.sparse_initializer, *(a.sparse_tensor for node in graph.node for a in node.attribute)]
        tensors += [t for of in sparse for t in (of.values, of.indices)]
        if any(tensor.external_data or tensor.data_location == _EXTERNAL for tensor in tensors):
            raise ArtifactError(
                "The ONNX file keeps numbers in other files, which are not opened here: export it as one file "
                "(save_as_external_data=False)."
            )
    for graph in graphs:
        for node in graph.node:
            if (check := _CHECKS.get(node.op_type)) is not None:
                check({attribute.name: attribute for attribute in node.attribute})


def _graphs(graph: Any, depth: int) -> Iterator[Any]:
    if depth > _MAX_NESTING:
        raise forged(f"graphs that are nested deeper than {_MAX_NESTING}")
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                yield from _graphs(inner, depth + 1)


def _check_named(attributes: dict[str, Any]) -> None:
    """TreeEnsembleClassifier and -Regressor: a node is named by its tree and its number in it."""
    trees, numbers = _ints(attributes, "nodes_treeids"), _ints(attributes, "nodes_nodeids")
    left, right = _ints(attributes, "nodes_truenodeids"), _ints(attributes, "nodes_falsenodeids")
    feature = _ints(attributes, "nodes_featureids")
    modes = attributes["nodes_modes"].strings if "nodes_modes" in attributes else []
    if len({len(trees), len(numbers), len(left), len(right), len(feature), len(modes)}) > 1 or not len(trees):
        raise forged("trees of uneven length")
    of_tree, of_number = np.unique(trees, return_inverse=True)[1], np.unique(numbers)
    names = of_tree * len(of_number) + np.searchsorted(of_number, numbers)
    order = np.argsort(names, kind="stable")
    ordered = names[order]
    if (np.diff(ordered) == 0).any():
        raise forged("a tree with two nodes of one number")
    leaf = np.array(list(modes), dtype=object) == b"LEAF"

    def place(child: Array) -> Array:
        at = np.searchsorted(of_number, child).clip(max=len(of_number) - 1)
        name = of_tree * len(of_number) + at
        found = np.searchsorted(ordered, name).clip(max=len(ordered) - 1)
        is_there = (of_number[at] == child) & (ordered[found] == name)
        return np.where(leaf, -1, np.where(is_there, order[found], len(trees)))

    left_at, right_at = place(left), place(right)
    children = np.concatenate([left_at[~leaf], right_at[~leaf]])
    # ONNX Runtime begins each tree at its first node
    roots = np.unique(trees, return_index=True)[1]
    if not np.array_equal(np.sort(roots), np.setdiff1d(np.arange(len(trees)), children)):
        raise forged("a tree whose nodes do not form a tree")
    check_trees(left_at, right_at, feature, _MAX_FEATURES, roots)


def _check_counted(attributes: dict[str, Any]) -> None:
    """TreeEnsemble: branches and leaves are counted apart, and a tree that is a leaf hangs twice on its branch."""
    left, right = _ints(attributes, "nodes_truenodeids"), _ints(attributes, "nodes_falsenodeids")
    left_leaf, right_leaf = _ints(attributes, "nodes_trueleafs"), _ints(attributes, "nodes_falseleafs")
    feature, roots = _ints(attributes, "nodes_featureids"), _ints(attributes, "tree_roots")
    targets = _ints(attributes, "leaf_targetids")
    n = len(left)
    if len({n, len(right), len(left_leaf), len(right_leaf), len(feature)}) > 1 or not n or not len(roots):
        raise forged("trees of uneven length")
    if not np.isin(np.concatenate([left_leaf, right_leaf]), (0, 1)).all():
        raise forged("a mark that is neither 0 nor 1")
    leaves = np.concatenate([left[left_leaf == 1], right[right_leaf == 1]])
    if (leaves < 0).any() or (leaves >= len(targets)).any() or (targets < 0).any():
        raise forged("a tree whose nodes lie outside of it")
    # leaves become nodes of their own behind the branches, one for each side of a branch that has one
    sides = []
    for i, (side, mark) in enumerate(((left, left_leaf), (right, right_leaf))):
        if ((side < 0) | (side >= n))[mark == 0].any():
            raise forged("a tree whose nodes lie outside of it")
        sides.append(np.where(mark == 1, n + i * n + np.arange(n), side))
    none = np.full(2 * n, -1)
    if (roots < 0).any() or (roots >= n).any():
        raise forged("a tree whose root lies outside of it")
    check_trees(
        np.concatenate([sides[0], none]),
        np.concatenate([sides[1], none]),
        np.concatenate([feature, none]),
        _MAX_FEATURES,
        np.unique(roots),
    )


_CHECKS = {
    "TreeEnsembleClassifier": _check_named,
    "TreeEnsembleRegressor": _check_named,
    "TreeEnsemble": _check_counted,
}


def _ints(attributes: dict[str, Any], name: str) -> Array:
    return np.array(attributes[name].ints if name in attributes else [], dtype=np.int64)
