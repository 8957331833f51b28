"""What an ONNX file says of its classes. ONNX Runtime does not show the graph, so the little that is needed is read \
here, with protobuf, which comes with ONNX Runtime.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from fin_pyfunc.model.decision import Label

#: Operators that hand labels on, perhaps in another shape or width.
_PASS_ON = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
#: Operators that pick labels out of a list of them.
_PICK = frozenset({"ArrayFeatureExtractor", "Gather"})
#: As the ONNX-ML classifiers and ZipMap call the list.
_LABEL_ATTRIBUTES = ("classlabels_int64s", "classlabels_ints", "classlabels_strings")
_INT32, _INT64, _STRING = 6, 7, 8  # TensorProto.DataType

# message -> field -> (number, type, repeated), as in onnx.proto3; whatever else a file holds is skipped
_FIELDS: dict[str, dict[str, tuple[int, str, bool]]] = {
    "Model": {
        "graph": (7, "Graph", False), "opset_import": (8, "Opset", True), "functions": (25, "Function", True),
    },
    "Opset": {"domain": (1, "string", False)},
    "Function": {"name": (1, "string", False)},
    "Graph": {
        "node": (1, "Node", True), "initializer": (5, "Tensor", True), "output": (12, "Value", True),
        "sparse_initializer": (15, "Sparse", True),
    },
    "Sparse": {"values": (1, "Tensor", False), "indices": (2, "Tensor", False)},
    "Value": {"name": (1, "string", False)},
    "Node": {
        "input": (1, "string", True), "output": (2, "string", True),
        "op_type": (4, "string", False), "attribute": (5, "Attribute", True),
    },
    "Attribute": {
        "name": (1, "string", False), "t": (5, "Tensor", False), "g": (6, "Graph", False),
        "ints": (8, "int64", True), "strings": (9, "bytes", True), "tensors": (10, "Tensor", True),
        "graphs": (11, "Graph", True), "sparse_tensor": (22, "Sparse", False),
    },
    "Tensor": {
        "data_type": (2, "int32", False), "int32_data": (5, "int32", True), "string_data": (6, "bytes", True),
        "int64_data": (7, "int64", True), "name": (8, "string", False), "raw_data": (9, "bytes", False),
        "external_data": (13, "Entry", True), "data_location": (14, "int32", False),
    },
    "Entry": {"key": (1, "string", False)},
}  # fmt: skip


def class_labels(model: bytes) -> list[Label] | None:
    """Labels of the probabilities' columns, in their order.

    They are found by going back from the first output, the predicted label, to the node that makes it: an ONNX-ML
    classifier, which lists its labels, or one that picks from a constant list.

    Parameters
    ----------
    model : bytes
        A file that ONNX Runtime has read.

    Returns
    -------
    list of int or str, or None
        None where the graph makes its labels in some other way.
    """
    graph = message("Model").FromString(model).graph
    makers = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants |= {n.output[0]: n.attribute[0].t for n in graph.node if n.op_type == "Constant" and n.attribute}
    wanted = graph.output[0].name
    for _ in range(len(graph.node)):  # a graph has no cycle, but a file may say so
        if (node := makers.get(wanted)) is None:
            return None
        listed = [a for a in node.attribute if a.name in _LABEL_ATTRIBUTES and (a.ints or a.strings)]
        if listed:
            return _python(listed[0].ints, listed[0].strings) if node.output[0] == wanted else None
        if node.op_type in _PICK:
            tensor = constants.get(node.input[0])
            return None if tensor is None else _values(tensor)
        if node.op_type not in _PASS_ON:
            return None
        wanted = node.input[0]
    return None


def _values(tensor: Any) -> list[Label] | None:
    if tensor.data_type == _STRING:
        return _python((), tensor.string_data)
    if tensor.data_type not in (_INT32, _INT64):
        return None
    if tensor.raw_data:
        values: list[Label] = np.frombuffer(tensor.raw_data, "<i8" if tensor.data_type == _INT64 else "<i4").tolist()
        return values
    return _python(tensor.int64_data or tensor.int32_data, ())


def _python(ints: Any, strings: Any) -> list[Label]:
    return [text.decode() for text in strings] if strings else list(ints)


@cache
def message(name: str) -> Any:
    """The class of one message of `_FIELDS`, in a pool of our own: `onnx`, where it is installed, has its own."""
    # protobuf ships no types
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]

    field_type = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="fin_pyfunc/onnx.proto", package="fin_pyfunc", syntax="proto3")
    for message, fields in _FIELDS.items():
        described = file.message_type.add(name=message)
        for field, (number, kind, repeated) in fields.items():
            label = field_type.LABEL_REPEATED if repeated else field_type.LABEL_OPTIONAL
            described_field = described.field.add(name=field, number=number, label=label)
            if kind in _FIELDS:
                described_field.type, described_field.type_name = field_type.TYPE_MESSAGE, f".fin_pyfunc.{kind}"
            else:
                described_field.type = getattr(field_type, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"fin_pyfunc.{name}"))
