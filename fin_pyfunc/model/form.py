"""A compiled form of an estimator: what another backend computes in its place, and how far it may be trusted."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import numpy as np

#: The module that runs a form, which the model's requirements name; a GPU's is an extra of the machine's.
LIBRARIES = {"onnx": "onnxruntime", "treelite": "treelite"}
#: The class is taken from a compiled form only where it does not hang on less than this many times the greatest
#: difference seen; any other row is asked of the estimator itself.
BAND_PER_ERROR = 100.0
#: The narrowest such band, for a form that was never seen to differ but is not known to be equal to the last bit.
LEAST_BAND = 1e-9


class Cut(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a class follows from one of two scores (FixedThresholdClassifier), rather than from the higher one.

    Parameters
    ----------
    column : {0, 1}
        The class whose score is compared.
    least : float
        From which score on it is predicted; the other class below.
    """

    column: Literal[0, 1]
    least: float

    def index(self, scores: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.intp]]:
        """Position of each row's class, of scores (n_rows, 2)."""
        return np.where(scores[:, self.column] >= self.least, self.column, 1 - self.column)


class Form(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One compiled form, as the manifest records it.

    Parameters
    ----------
    backend : {"trees", "program", "onnx", "treelite", "cuml"}
        What runs it; treelite's is run by nvForest, too, and was run by `forest` before there was "trees".
    file : str
        Its file in the artifact's folder.
    batch_file : str or None, default None
        The same model laid out for many rows, where that is a file of its own.
    batch_from : int, default 0
        From how many rows `batch_file` is the faster one, as measured when it was made.
    output : {"probabilities", "decision"}, default "probabilities"
        What its scores are: `predict_proba`, or, where the estimator has none, one decision value a class.
    casts : bool, default False
        Features are rounded to float32 before it sees them, as the estimator itself does ("treelite" only; an ONNX
        graph does so by itself).
    band : float, default 0.0
        Rows whose two highest scores are no further apart, or whose probability is no further from a confidence
        threshold, are asked of the estimator itself. 0 for a form that is equal to the estimator to the last bit.
    error : float, default 0.0
        The greatest difference from the estimator's scores that was seen when it was made.
    seconds : dict of int to float
        Seconds that this many rows took when it was made.
    parts : dict of str to str
        scikit-learn class to the cuML class that computes in its place ("cuml" only).
    cut : Cut or None, default None
        Where the class does not follow from the highest score.
    """

    backend: Literal["trees", "program", "onnx", "treelite", "cuml"]
    file: str
    batch_file: str | None = None
    batch_from: int = 0
    output: Literal["probabilities", "decision"] = "probabilities"
    casts: bool = False
    band: float = 0.0
    error: float = 0.0
    seconds: dict[int, float] = {}
    parts: dict[str, str] = {}
    cut: Cut | None = None

    @property
    def files(self) -> list[str]:
        """Every file of this form."""
        return [self.file] if self.batch_file is None else [self.file, self.batch_file]


def band_of(error: float) -> float:
    """The band of a form that differs from its estimator by up to `error`."""
    return max(LEAST_BAND, BAND_PER_ERROR * error)
