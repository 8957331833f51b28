"""A classifier in an ONNX file, through ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from fin_pyfunc.model.backends.native import ROUNDING
from fin_pyfunc.model.backends.onnx_graph import class_labels
from fin_pyfunc.model.backends.onnx_session import open_session
from fin_pyfunc.model.decision import Label, Probabilities, Scores
from fin_pyfunc.model.errors import ArtifactError, ScoringError
from fin_pyfunc.model.feature import Feature, Kind
from fin_pyfunc.model.features import FeatureSpec, Table
from fin_pyfunc.model.foreign.features import features_by_position

#: ONNX Runtime's input types -> what a client may send, and the dtype the graph gets. Its integers have no NaN.
_INPUT_TYPES: dict[str, tuple[Kind, str]] = {
    "tensor(float)": ("number", "float32"), "tensor(double)": ("number", "float64"),
    "tensor(int64)": ("integer", "int64"), "tensor(int32)": ("integer", "int32"),
    "tensor(bool)": ("boolean", "bool"), "tensor(string)": ("string", "object"),
}  # fmt: skip
_LABEL_TYPES = ("tensor(int64)", "tensor(int32)", "tensor(string)", "tensor(bool)")
#: How far from 1 the float32 probabilities of a row may add up; scores that are no probabilities are further off.
_SUM_ROUNDING = 1e-3


class OnnxFileBackend:
    """Scores with an ONNX graph as skl2onnx and onnxmltools write classifiers.

    Its first output is the label; the second, where there is one, the probabilities: a tensor (n, k), or one map of
    label to probability a row (`zipmap`). Inputs are one tensor (n, n_features), or one column (n, 1) a feature.

    Parameters
    ----------
    path : Path
        The ``.onnx`` file.

    Attributes
    ----------
    features : FeatureSpec or None
        One feature an input where the graph has one a column; features by position where it takes one matrix, and None
        where that may be of any width.
    classes : list of Label
        Labels of the probabilities' columns; empty for a graph that answers no probabilities.

    Raises
    ------
    ArtifactError
        ONNX Runtime cannot read it, or it is no such classifier.
    """

    name = "onnx"
    device: Literal["cpu", "gpu"] = "cpu"

    def __init__(self, path: Path) -> None:
        content = path.read_bytes()
        self._session = open_session(content)
        outputs = self._session.get_outputs()
        if len(outputs) > 2 or outputs[0].type not in _LABEL_TYPES:
            raise ArtifactError(
                "The ONNX file is no classifier: expected as outputs a label (integer, text or boolean) and, perhaps, "
                "the probabilities in one tensor or map, as skl2onnx writes them."
            )
        self.features = _features(self._session.get_inputs())
        self._takes_matrix = self.features is None or self.features.naming == "positions"
        self.classes = _classes(content, outputs[0].type) if len(outputs) == 2 else []
        self._input = self._session.get_inputs()[0]

    @property
    def has_proba(self) -> bool:
        """Whether its scores have probabilities."""
        return bool(self.classes)

    def score(self, table: Table) -> Scores:
        """Class and probabilities of each row; see `Backend.score`."""
        if not len(table):  # some graphs cannot look at no rows at all
            none = np.empty((0, len(self.classes))) if self.classes else None
            return Scores(classes=self.classes, index=np.empty(0, dtype=np.intp), probabilities=none)
        try:
            label, *rest = self._session.run(None, self._feed(table))
        except Exception as e:
            raise ScoringError(f"ONNX Runtime raised {type(e).__name__}") from e
        labels = np.asarray(label).reshape(-1).tolist()
        probabilities = self._check(rest[0], len(table)) if rest else None
        classes = self.classes or sorted(set(labels))
        position = {known: i for i, known in enumerate(classes)}
        if len(labels) != len(table) or not position.keys() >= set(labels):
            raise ScoringError("the ONNX model answered labels that are not one of its classes a row")
        index = np.array([position[known] for known in labels], dtype=np.intp)
        return Scores(classes=classes, index=index, probabilities=probabilities)

    def _check(self, answered: Any, n_rows: int) -> Probabilities:
        if isinstance(answered, list):  # zipmap: one dict a row
            answered = pd.DataFrame(answered, columns=self.classes).to_numpy()
        p = np.asarray(answered, dtype=np.float64)
        if p.shape != (n_rows, len(self.classes)):
            raise ScoringError(
                f"the ONNX model answered probabilities of shape {p.shape}, expected {(n_rows, len(self.classes))}"
            )
        within = (p >= -ROUNDING) & (p <= 1 + ROUNDING)  # NaN is not
        if not within.all() or (abs(p.sum(axis=1) - 1) > _SUM_ROUNDING).any():
            raise ScoringError("the ONNX model answered scores that are not probabilities, which add up to 1")
        return p.clip(0, 1)

    def _feed(self, table: Table) -> dict[str, Any]:
        if self.features is None or self._takes_matrix:
            dtype = _INPUT_TYPES[self._input.type][1]
            return {self._input.name: np.ascontiguousarray(np.asarray(table), dtype=dtype)}
        frame = self.features.restore(table)
        return {name: frame[name].to_numpy().reshape(-1, 1) for name in self.features.names}


def _features(inputs: list[Any]) -> FeatureSpec | None:
    if not inputs or not all(i.type in _INPUT_TYPES for i in inputs):
        raise ArtifactError(
            "The ONNX file has an input of a type that no feature has: export it with float, double, int64, int32, "
            "bool or string inputs."
        )
    widths = [i.shape[1] if len(i.shape or ()) == 2 else None for i in inputs]
    if len(inputs) == 1 and widths[0] != 1:
        kind, dtype = _INPUT_TYPES[inputs[0].type]
        return features_by_position(widths[0], kind, dtype) if isinstance(widths[0], int) and widths[0] > 0 else None
    if not all(width == 1 for width in widths):
        raise ArtifactError(
            "The ONNX file takes several matrices: export it with one matrix of all features, or one input of width 1 "
            "a feature."
        )
    features = []
    for i in inputs:
        kind, dtype = _INPUT_TYPES[i.type]
        features.append(Feature(name=i.name, kind=kind, dtype=dtype, nullable=kind == "number"))
    return FeatureSpec(features=features)


def _classes(content: bytes, label_type: str) -> list[Label]:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped] # protobuf ships no types

    try:
        labels = class_labels(content)
    except (DecodeError, UnicodeDecodeError):
        labels = None
    if not labels or len(set(labels)) != len(labels):
        raise ArtifactError(
            "The ONNX file answers probabilities, but which label each of them belongs to could not be found in it: "
            "export the classifier with skl2onnx or onnxmltools."
        )
    return [bool(label) for label in labels] if label_type == "tensor(bool)" else labels
