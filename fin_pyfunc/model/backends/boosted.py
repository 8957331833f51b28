"""Boosted trees with the arithmetic of the library that grew them, to the last bit, through our own module in C."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from fin_pyfunc.model.backends.compiled import CompiledBackend
from fin_pyfunc.model.boosted_file import BoostedTrees, read
from fin_pyfunc.model.decision import Probabilities
from fin_pyfunc.model.form import Form

_MODULE = "fin_pyfunc.model.backends._boosted"
#: Numbers of the links in `_boosted.c`.
_SIGMOID, _SOFTMAX = 0, 1


def is_here() -> bool:
    """Whether the module was built, so that the form may be run."""
    return find_spec(_MODULE) is not None


class BoostedBackend(CompiledBackend):
    """Scores with the trees of a form "boosted"; made as any `CompiledBackend`.

    Raises
    ------
    ArtifactError
        The file cannot be read, or its numbers do not fit together.
    ImportError
        The module was not built, or for another machine.
    """

    name = "boosted"

    def open(self, folder: Path, form: Form) -> None:
        """Read the form's file; see `CompiledBackend.open`."""
        self._run = runner(read((folder / form.file).read_bytes(), len(self._classes)))

    def run(self, matrix: np.ndarray[Any, np.dtype[np.float64]]) -> Probabilities:
        """The trees' scores; see `CompiledBackend.run`."""
        return self._run(matrix)


def runner(trees: BoostedTrees) -> Callable[[np.ndarray[Any, Any]], Probabilities]:
    """What makes probabilities, of shape (n_rows, k), of a matrix (n_rows, n_features) of float64.

    Raises
    ------
    ImportError
        The module was not built, or for another machine.
    """
    from fin_pyfunc.model.backends import _boosted

    how, n_scores = trees.arithmetic, len(trees.base)
    is_single = how.sums == "float32"
    arrays = (np.ascontiguousarray(array) for array in trees[2:])
    add = _boosted.Boosted(trees.n_features, how.rounds, is_single, *arrays).score
    link, which = _boosted.link, _SOFTMAX if how.link == "softmax" else _SIGMOID

    def run(matrix: np.ndarray[Any, Any]) -> Probabilities:
        scores = np.empty((len(matrix), n_scores))
        add(np.ascontiguousarray(matrix), scores)
        if how.slope != 1.0:
            scores *= how.slope
        if how.link == "identity":
            return scores
        if how.link == "softmax" and how.exp == "numpy":
            return _softmax(scores)
        link(scores, which, is_single)
        if how.link != "sigmoid":
            return scores
        first = (np.float32(1) - scores.astype(np.float32)).astype(np.float64) if is_single else 1 - scores
        return np.concatenate((first, scores), axis=1)

    return run


def _softmax(scores: Probabilities) -> Probabilities:
    """As `softmax` in sklearn/utils/extmath.py, in place."""
    scores -= scores.max(axis=1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=1, keepdims=True)
    return scores
