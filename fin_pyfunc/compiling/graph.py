"""ONNX graphs as this project runs them: one matrix in, one matrix of scores out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fin_pyfunc.compiling.linear import linear_scores
from fin_pyfunc.compiling.tree_nodes import ML_DOUBLE, ML_FLOAT, Nodes, add_ensemble
from fin_pyfunc.compiling.trees import Ensemble
from fin_pyfunc.model.backends.onnx import INPUT, OUTPUT

#: Versions of the operator set and of the file, which every ONNX Runtime since 1.20 reads.
OPSET, IR_VERSION = 18, 10


def ensemble_graph(ensemble: Ensemble, n_features: int, *, block: int | None, single: bool) -> Any:
    """The graph of a tree ensemble alone.

    Parameters
    ----------
    ensemble : Ensemble
    n_features : int
    block : int or None
        As in `add_ensemble`.
    single : bool
        Whether features are rounded to float32 first, as those of a DataFrame of float32 are.

    Returns
    -------
    onnx.ModelProto
    """
    nodes = Nodes("trees_")
    ml = ML_FLOAT if ensemble.kind == "forest" else ML_DOUBLE
    add_ensemble(nodes, ensemble, _rounded(nodes, INPUT) if single else INPUT, OUTPUT, ml, block)
    return model(nodes, n_features, ensemble.n_classes, ml)


def linear_graph(estimator: Any, n_features: int, *, single: bool) -> Any:
    """The graph of a linear classifier alone; parameters as in `ensemble_graph`."""
    nodes = Nodes("linear_")
    linear_scores(nodes, estimator, _rounded(nodes, INPUT) if single else INPUT, OUTPUT)
    return model(nodes, n_features, len(estimator.classes_), ML_FLOAT)


def _rounded(nodes: Nodes, features: str) -> str:
    return nodes.cast(nodes.cast(features, "float32"), "float64")


def model(nodes: Nodes, n_features: int, n_scores: int, ml: int) -> Any:
    """The file around a graph's nodes, an onnx.ModelProto."""
    from onnx import ModelProto, TensorProto, helper

    made = ModelProto(ir_version=IR_VERSION, producer_name="fin_pyfunc")
    made.opset_import.extend([helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ml)])
    made.graph.name = "classifier"
    made.graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.DOUBLE, [None, n_features]))
    made.graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.DOUBLE, [None, n_scores]))
    made.graph.node.extend(nodes.nodes)
    made.graph.initializer.extend(nodes.constants)
    return made


def to_contract(converted: Any, scores: str, n_features: int, n_scores: int, *, pair: bool) -> Any:
    """A converter's graph, made into one of ours.

    Parameters
    ----------
    converted : onnx.ModelProto
        Takes one float64 matrix. It is not modified.
    scores : str
        Its output that is wanted; whatever only the others need goes.
    n_features, n_scores : int
    pair : bool
        Whether the one column d of `scores` becomes two, [-d, d].

    Returns
    -------
    onnx.ModelProto
    """
    import numpy as np

    nodes = Nodes("fin_pyfunc_")
    source = converted.graph.input[0].name
    nodes.add("Identity", [INPUT], source) if source != INPUT else None
    nodes.nodes.extend(needed(converted.graph.node, [scores]))
    value = nodes.cast(scores, "float64")
    if pair:
        value = nodes.add("Mul", [value, nodes.constant(np.array([-1.0, 1.0]))])
    nodes.add("Identity", [value], OUTPUT)
    used = {name for node in nodes.nodes for name in node.input}
    nodes.constants.extend(c for c in converted.graph.initializer if c.name in used)
    ml = next((o.version for o in converted.opset_import if o.domain == "ai.onnx.ml"), ML_FLOAT)
    made = model(nodes, n_features, n_scores, ml)
    del made.opset_import[:]
    made.opset_import.extend(converted.opset_import)
    return made


def needed(nodes: Any, outputs: Iterable[str]) -> list[Any]:
    """Nodes that some values are made of, in their order; with outputs that nothing needs left where their node is."""
    makers = {name: node for node in nodes for name in node.output if name}
    wanted, found = list(outputs), set()
    while wanted:
        node = makers.get(wanted.pop())
        if node is not None and node.output[0] not in found:
            found.add(node.output[0])
            wanted += node.input
            # the body of a Loop or Scan reads names of the graph around it
            wanted += [n for a in node.attribute if a.HasField("g") for inner in a.g.node for n in inner.input]
    return [node for node in nodes if node.output[0] in found]
