"""Every comparison that an ONNX graph makes, and the constants it compares with, read off the graph itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fin_pyfunc.compiling.graph import IR_VERSION, needed
from fin_pyfunc.compiling.rounding import Grade
from fin_pyfunc.compiling.trees import Array
from fin_pyfunc.model.backends.onnx import INPUT
from fin_pyfunc.model.backends.onnx_session import open_session

_COMPARE = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})
#: Operators that change their answer at whole numbers, and at the halves between them.
_AT_WHOLE, _AT_HALVES = frozenset({"Cast", "Ceil", "Floor"}), frozenset({"Round"})
_AT_ZERO = frozenset({"Relu", "Sign"})
_KEYS = frozenset({"cats_int64s", "keys_floats", "keys_int64s", "keys_tensor"})


class Comparison(NamedTuple):
    """One value of a graph, and what it is compared with.

    Parameters
    ----------
    value : str
    other : str or None
        The value that it is compared with, where that is no constant: their difference is compared with 0.
    constant : ndarray, float64, or None
        Of a shape that is broadcast to the value's; or, with `column`, one constant an entry. None for every whole
        number that the value comes near.
    column : ndarray of int64, or None, default None
        Which column of the value each constant belongs to.
    is_rounded : bool, default False
        Whether the value is the estimator's own but for rounding.
    is_tree : bool, default False
    shift : float, default 0.0
        Added to whole numbers.
    """

    value: str
    other: str | None
    constant: Array | None
    column: Array | None = None
    is_rounded: bool = False
    is_tree: bool = False
    shift: float = 0.0


def comparisons(model: Any, grades: Mapping[str, Grade]) -> list[Comparison]:
    """Read a graph's comparisons.

    Parameters
    ----------
    model : onnx.ModelProto
    grades : mapping of str to Grade
        Of `rounding.grades`.
    """
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    held = [node for node in model.graph.node if node.op_type == "Constant"]
    tensors |= {node.output[0]: node.attribute[0].t for node in held if node.attribute[0].HasField("t")}
    constants = {name: numpy_helper.to_array(tensor) for name, tensor in tensors.items()}
    known = {name: value for name, value in constants.items() if value.dtype.kind in "fiu"}
    # what compares whole numbers that a comparison made is tried out where that one is
    return [
        found._replace(is_rounded=grades.get(found.value) is Grade.ROUNDED)
        for node in model.graph.node
        if node.op_type == "Cast" or grades.get(node.input[0] if node.input else "") is not Grade.WHOLE
        for found in _of(node, known)
        if found.value not in constants and grades.get(found.value) is not Grade.WHOLE
    ]


def compared_values(model: Any, found: Sequence[Comparison]) -> Callable[[Array], Sequence[Array]]:
    """What runs the part of a graph that its comparisons need: rows to the value of each of them."""
    if not found:
        return lambda _: []
    from onnx import ModelProto, TensorProto, helper

    part = ModelProto(ir_version=IR_VERSION)
    part.opset_import.extend(model.opset_import)
    part.graph.name = "compared"
    part.graph.input.extend(model.graph.input)
    wanted = [name for each in found for name in (each.value, each.other) if name is not None]
    part.graph.node.extend(needed(model.graph.node, wanted))
    outputs = []
    for i, each in enumerate(found):
        name = f"compared_{i}"
        sides = [each.value, *([each.other] if each.other is not None else [])]
        for j, side in enumerate(sides):
            part.graph.node.append(helper.make_node("Cast", [side], [f"{name}_{j}"], to=TensorProto.DOUBLE))
        last = ("Sub", [f"{name}_0", f"{name}_1"]) if len(sides) > 1 else ("Identity", [f"{name}_0"])
        part.graph.node.append(helper.make_node(*last, [name]))
        part.graph.output.append(helper.make_tensor_value_info(name, TensorProto.DOUBLE, None))
        outputs.append(name)
    used = {name for node in part.graph.node for name in node.input}
    # the body of a Loop or Scan reads names of the graph around it
    used |= {
        n for node in part.graph.node for a in node.attribute if a.HasField("g") for i in a.g.node for n in i.input
    }
    part.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in used)
    session = open_session(part.SerializeToString())

    def run(rows: Array) -> Sequence[Array]:
        values: Sequence[Array] = session.run(outputs, {INPUT: rows})
        return values

    return run


def _of(node: Any, known: Mapping[str, Array]) -> Iterator[Comparison]:
    op, value = node.op_type, node.input[0] if node.input else ""
    if op.startswith("TreeEnsemble"):
        yield _tree(node)
    elif op in _COMPARE or op in ("Max", "Min", "Clip"):
        inputs = [name for name in node.input if name]
        values = [name for name in inputs if name not in known]
        if len(values) == 2 and op != "Clip":
            yield Comparison(values[0], values[1], np.zeros(1))
        elif len(values) == 1:
            yield from (Comparison(values[0], None, known[name].astype(np.float64)) for name in inputs if name in known)
    elif op in _AT_ZERO:
        yield Comparison(value, None, np.zeros(1))
    elif op in _AT_HALVES:
        yield Comparison(value, None, None, shift=0.5)
    elif op in _AT_WHOLE and not (op == "Cast" and _to_float(node)):
        yield Comparison(value, None, None)
    elif keys := [a for a in node.attribute if a.name in _KEYS]:
        yield Comparison(value, None, _keys(keys[0]).astype(np.float64).reshape(-1, 1))


def _tree(node: Any) -> Comparison:
    from onnx import numpy_helper

    attributes = {attribute.name: attribute for attribute in node.attribute}
    feature = np.array(attributes["nodes_featureids"].ints, dtype=np.int64)
    if "nodes_splits" in attributes:
        threshold = numpy_helper.to_array(attributes["nodes_splits"].t).astype(np.float64)
    else:
        threshold = np.array(attributes["nodes_values"].floats)
        inner = np.array([mode != b"LEAF" for mode in attributes["nodes_modes"].strings])
        feature, threshold = feature[inner], threshold[inner]
    return Comparison(node.input[0], None, threshold, feature, is_tree=True)


def _keys(attribute: Any) -> Array:
    from onnx import numpy_helper

    if attribute.HasField("t"):
        keys: Array = numpy_helper.to_array(attribute.t)
        return keys
    return np.array([*attribute.ints, *attribute.floats])


def _to_float(node: Any) -> bool:
    from onnx import TensorProto

    to = next(a.i for a in node.attribute if a.name == "to")
    return "FLOAT" in TensorProto.DataType.Name(to) or to == TensorProto.DOUBLE
