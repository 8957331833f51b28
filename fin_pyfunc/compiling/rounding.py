"""Where a converter's ONNX graph rounds: what is computed in float32, and which values are compared after rounding.

A graph may be off by a rounding error where its estimator is continuous, and by a whole class where it is not: behind
a threshold, a bin's edge, a category. There a value has to be equal to the estimator's to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Any

import numpy as np

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.tree_nodes import OWN
from fin_pyfunc.model.backends.onnx import INPUT

#: Whole numbers to this size are exact in float32 (IEEE 754, 24 bits).
_MOST_WHOLE = float(1 << 24)
#: Operators that answer small whole numbers, or truth values, whatever they are given.
_ANSWER_WHOLE = frozenset(
    {"And", "ArgMax", "ArgMin", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual"}
    | {"NonZero", "Not", "OneHot", "OneHotEncoder", "Or", "Shape", "Sign", "Size", "Xor"}
)
#: Operators that hand on values as they are.
_HAND_ON = frozenset(
    {"ArrayFeatureExtractor", "Cast", "Concat", "Constant", "ConstantOfShape", "Expand", "Flatten", "Gather"}
    | {"GatherElements", "GatherND", "Identity", "LabelEncoder", "Max", "Min", "Pad", "ReduceMax", "ReduceMin"}
    | {"Relu", "Reshape", "Slice", "Split", "Squeeze", "Tile", "TopK", "Transpose", "Unsqueeze", "Where"}
)
#: Operators whose result IEEE 754 defines to the last bit; of whole numbers the first ones make whole numbers.
_KEEP_WHOLE = frozenset({"Abs", "Add", "Ceil", "Clip", "Floor", "Mul", "Neg", "Round", "Sub"})
_DEFINED = _KEEP_WHOLE | {"Div", "Sqrt"}
#: Operators that add up, in an order of their own.
_ADD_UP = frozenset({"Gemm", "MatMul", "ReduceSum", "Sum"})
#: Operators that answer in steps, however little their input differs, and have no constant to be tried out at.
_STEPS = frozenset(
    {"ArgMax", "ArgMin", "Ceil", "Floor", "Hardmax", "LabelEncoder", "OneHotEncoder", "Round", "TopK"}
    | {"TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor"}
)
_COMPARE = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})


class Grade(IntEnum):
    """How far a value of a graph is the estimator's own."""

    WHOLE = 0  #: small whole numbers, exact in float32 and in sums of any order
    EXACT = 1  #: equal to the last bit
    ROUNDED = 2  #: equal but for rounding


def grades(model: Any, computes_in: str) -> dict[str, Grade]:
    """Grade every value of a graph.

    Parameters
    ----------
    model : onnx.ModelProto
        Of `graph.to_contract`.
    computes_in : str
        Name of the estimator, for the reason.

    Returns
    -------
    dict of str to Grade
        By name of the value.

    Raises
    ------
    NotCompilable
        A converter's node computes in float32, or what is rounded is then compared.
    """
    types = _types(model)
    found = {INPUT: Grade.EXACT}
    for tensor in model.graph.initializer:
        found[tensor.name] = _constant(tensor, "a constant", computes_in)
    for node in model.graph.node:
        is_own = node.name.startswith(OWN)
        given = [found.get(name, Grade.ROUNDED) for name in node.input if name]
        if not is_own:
            _check_attributes(node, computes_in)
        grade = _grade(node, given, types, computes_in)
        if grade is not Grade.WHOLE and not is_own and any(_is_single(types.get(name)) for name in node.output if name):
            raise _in_float32(node.op_type, computes_in)
        if max(given, default=Grade.WHOLE) is Grade.ROUNDED and _is_step(node, types):
            raise NotCompilable(f"{computes_in} decides on numbers that are rounded on the way ({node.op_type})")
        found.update(dict.fromkeys(node.output, grade))
    return found


def _grade(node: Any, given: list[Grade], types: dict[str, int], computes_in: str) -> Grade:
    op, worst = node.op_type, max(given, default=Grade.WHOLE)
    if any(attribute.HasField("g") for attribute in node.attribute):
        return Grade.ROUNDED  # of a Loop, Scan or If
    if op in _ANSWER_WHOLE or (op == "Cast" and _name_of(types.get(node.output[0])) == "BOOL"):
        return Grade.WHOLE
    tensors = [a.t for a in node.attribute if a.HasField("t")]
    if op in _HAND_ON:
        return max([worst, *(_constant(tensor, op, computes_in) for tensor in tensors)])
    if op in _DEFINED:
        if worst is Grade.WHOLE:
            return Grade.WHOLE if op in _KEEP_WHOLE else Grade.EXACT
        return worst
    if op in _ADD_UP and worst is Grade.WHOLE:
        return Grade.WHOLE
    if op == "TreeEnsembleRegressor" and worst is not Grade.ROUNDED:
        weights = next(np.array(a.floats) for a in node.attribute if a.name == "target_weights")
        return Grade.WHOLE if (weights == np.round(weights)).all() else Grade.ROUNDED
    return Grade.ROUNDED


def _check_attributes(node: Any, computes_in: str) -> None:
    """Numbers in attributes are float32; a tensor is of its own type."""
    for attribute in node.attribute:
        if not _are_whole(np.array([attribute.f, *attribute.floats])):
            raise _in_float32(node.op_type, computes_in)
        if attribute.HasField("g"):
            for inner in _within(attribute.g):
                if inner.op_type in _STEPS | _COMPARE:
                    raise NotCompilable(f"{computes_in} decides within a loop of its ONNX form ({inner.op_type})")
            if any(map(_is_single, _types_within(attribute.g))):
                raise _in_float32(node.op_type, computes_in)


def _is_step(node: Any, types: dict[str, int]) -> bool:
    return node.op_type in _STEPS or (
        node.op_type == "Cast" and (_name_of(types.get(node.output[0])) or "").startswith(("INT", "UINT"))
    )


def _in_float32(op: str, computes_in: str) -> NotCompilable:
    return NotCompilable(f"its ONNX form has {op} in float32, and {computes_in} computes in float64")


def _constant(tensor: Any, op: str, computes_in: str) -> Grade:
    from onnx import numpy_helper

    value = numpy_helper.to_array(tensor)
    if value.dtype.kind not in "fiu" or _are_whole(value):
        return Grade.WHOLE
    if _is_single(tensor.data_type):
        raise _in_float32(op, computes_in)
    return Grade.EXACT


def _are_whole(value: np.ndarray[Any, Any]) -> bool:
    value = value[np.isfinite(value)]  # infinities and NaN are the same in every type
    return bool((abs(value) <= _MOST_WHOLE).all() and (value == np.round(value)).all())


def _types(model: Any) -> dict[str, int]:
    """Element type by value, as far as it can be told."""
    from onnx import shape_inference

    graph = shape_inference.infer_shapes(model).graph
    return {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}


def _types_within(graph: Any) -> Iterator[int]:
    for value in (*graph.input, *graph.value_info, *graph.output):
        yield value.type.tensor_type.elem_type
    for tensor in graph.initializer:
        yield tensor.data_type
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name == "to":
                yield attribute.i
            if attribute.HasField("t"):
                yield attribute.t.data_type
            if attribute.HasField("g"):
                yield from _types_within(attribute.g)


def _within(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _within(attribute.g)


def _name_of(elem_type: int | None) -> str | None:
    from onnx import TensorProto

    return None if not elem_type else str(TensorProto.DataType.Name(elem_type))


def _is_single(elem_type: int | None) -> bool:
    """Whether a type has fewer bits than float64; one that is not known may have."""
    name = _name_of(elem_type)
    return name is None or (name != "DOUBLE" and "FLOAT" in name)
