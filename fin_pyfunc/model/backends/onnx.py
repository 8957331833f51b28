"""A classifier in an ONNX file, through ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from fin_pyfunc.model.decision import Label, Scores
from fin_pyfunc.model.errors import ArtifactError, ScoringError
from fin_pyfunc.model.features import Feature, FeatureSpec, Table

_NUMPY = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(int64)": "int64", "tensor(int32)": "int32"}


class OnnxBackend:
    """Scores with an ONNX graph as skl2onnx and onnxmltools write classifiers.

    Its first output is the label; the second, where there is one, the probabilities: a tensor (n, k), or one map of
    label to probability a row (`zipmap`). Inputs are one tensor (n, n_features), or one column (n, 1) a feature.

    Parameters
    ----------
    path : Path
        The ``.onnx`` file.

    Raises
    ------
    ArtifactError
        ONNX Runtime cannot read it, or it is no such classifier.
    """

    name = "onnx"
    device: Literal["cpu", "gpu"] = "cpu"

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # the server has threads of its own, and one row has no work to share out
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        except Exception as e:  # its exceptions share no base of their own
            raise ArtifactError(f"The ONNX file could not be read ({type(e).__name__}): export the model again.") from e
        self._inputs = self._session.get_inputs()
        if not 1 <= len(self._session.get_outputs()) <= 2:
            raise ArtifactError("The ONNX file is no classifier: expected outputs label and, perhaps, probabilities.")

    @property
    def features(self) -> FeatureSpec | None:
        """One feature an input where the graph names them; None where it takes one matrix."""
        if len(self._inputs) == 1 and (self._inputs[0].shape or [0])[-1] != 1:
            return None
        features = [
            Feature(name=i.name, kind="string", dtype="object")
            if i.type == "tensor(string)"
            else Feature(name=i.name, kind="number", dtype=_NUMPY.get(i.type, "float32"), nullable=True)
            for i in self._inputs
        ]
        return FeatureSpec(features=features)

    def score(self, table: Table) -> Scores:
        """Class and probabilities of each row; see `Backend.score`."""
        try:
            label, *rest = self._session.run(None, self._feed(table))
            labels = np.asarray(label).reshape(-1)
            classes, probabilities = _probabilities(rest[0], labels) if rest else (np.unique(labels).tolist(), None)
            position = {known: i for i, known in enumerate(classes)}
            index = np.array([position[known] for known in labels.tolist()], dtype=np.intp)
        except Exception as e:
            raise ScoringError(f"ONNX Runtime raised {type(e).__name__}") from e
        return Scores(classes=classes, index=index, probabilities=probabilities)

    def _feed(self, table: Table) -> dict[str, Any]:
        if self.features is None:
            dtype = _NUMPY.get(self._inputs[0].type, "float32")
            return {self._inputs[0].name: np.ascontiguousarray(np.asarray(table), dtype=dtype)}
        frame = self.features.restore(table) if isinstance(table, np.ndarray) else table
        return {name: frame[name].to_numpy().reshape(-1, 1) for name in self.features.names}


def _probabilities(answered: Any, labels: np.ndarray[Any, Any]) -> tuple[Sequence[Label], Any]:
    if isinstance(answered, list):  # zipmap: one dict a row
        classes = list(answered[0]) if answered else np.unique(labels).tolist()
        return classes, pd.DataFrame(answered, columns=classes).to_numpy(dtype=np.float64)
    probabilities = np.asarray(answered, dtype=np.float64)
    # a plain tensor does not carry the labels: they are 0 … k-1 in this case, as skl2onnx numbers them
    return list(range(probabilities.shape[1])), probabilities
