"""A tree ensemble with the arithmetic of the library that grew it, to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fin_pyfunc.model.backends import tree_walk
from fin_pyfunc.model.backends.compiled import CompiledBackend
from fin_pyfunc.model.decision import Probabilities
from fin_pyfunc.model.form import Form
from fin_pyfunc.model.tree_file import Arithmetic, Trees, read

Array = np.ndarray[Any, Any]
_Link = Callable[[Array, int, bool], None]

#: Numbers of the links in `_trees.c`.
SIGMOID, SOFTMAX = 0, 1


class TreesBackend(CompiledBackend):
    """Scores with the trees of a form "trees"; made as any `CompiledBackend`.

    Raises
    ------
    ArtifactError
        The file cannot be read, or its numbers do not fit together.
    """

    name = "trees"

    def open(self, folder: Path, form: Form) -> None:
        """Read the form's file; see `CompiledBackend.open`."""
        trees = read((folder / form.file).read_bytes(), len(self._classes))
        self.expect_features(trees.n_features)
        self._run = runner(trees)

    def run(self, matrix: np.ndarray[Any, np.dtype[np.float64]]) -> Probabilities:
        """The trees' scores; see `CompiledBackend.run`."""
        return self._run(matrix)


def runner(trees: Trees) -> Callable[[Array], Probabilities]:
    """What makes probabilities, of shape (n_rows, k), of a matrix (n_rows, n_features) of float64.

    The module in C computes where it can be imported; where not, NumPy does, with the same bits.

    Raises
    ------
    ValueError
        The trees' numbers do not fit together, which `tree_file.read` would have said.
    """
    n_scores, (add, link) = len(trees.base), _engine(trees)
    finish = _finish(trees.arithmetic, link)

    def run(matrix: Array) -> Probabilities:
        scores = np.empty((len(matrix), n_scores))
        add(np.ascontiguousarray(matrix), scores)
        return scores if finish is None else finish(scores)

    return run


def _finish(how: Arithmetic, link: _Link) -> Callable[[Array], Probabilities] | None:
    """What makes probabilities of scores, which it may change; None where they are."""
    if how.link == "identity":
        return None
    is_single, which = how.sums == "float32", SOFTMAX if how.link == "softmax" else SIGMOID
    by_numpy, by_column = how.link == "softmax" and how.exp != "c", how.exp == "numpy by column"
    is_binary, is_steep, slope = how.link == "sigmoid", how.slope != 1.0, how.slope

    def finish(scores: Array) -> Probabilities:
        if is_steep:
            scores *= slope
        if by_numpy:
            given: Array = scores.astype(np.float32) if is_single else scores
            return _softmax(np.asfortranarray(given) if by_column else given).astype(np.float64, copy=False)
        link(scores, which, is_single)
        if not is_binary:
            return scores
        first = (np.float32(1) - scores.astype(np.float32)).astype(np.float64) if is_single else 1 - scores
        return np.concatenate((first, scores), axis=1)

    return finish if how.link != "votes" else lambda scores: _softmax(_decisions(scores))


def _engine(trees: Trees) -> tuple[Callable[[Array, Array], None], _Link]:
    """What adds the leaves up, and what makes probabilities of the sums."""
    try:
        from fin_pyfunc.model.backends import _trees
    except ImportError:  # it was not built, or for another machine
        return tree_walk.sums(trees), tree_walk.link
    how = trees.arithmetic
    made = _trees.Trees(
        trees.n_features, trees.width, how.rounds, how.sums == "float32",
        np.nan if how.missing is None else how.missing, how.divisor, tuple(trees.arrays().values()),
    )  # fmt: skip
    return made.score, _trees.link


def _softmax(scores: Array) -> Array:
    """As `softmax` in sklearn/utils/extmath.py, in place."""
    scores -= scores.max(axis=1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=1, keepdims=True)
    return scores


def _decisions(scores: Probabilities) -> Array:
    """As `_compute_proba_from_decision` of `decision_function` in sklearn/ensemble/_weight_boosting.py."""
    if scores.shape[1] > 2:
        return np.asfortranarray(scores / (scores.shape[1] - 1))
    decision = scores[:, 1] - scores[:, 0]
    return np.vstack([-decision, decision]).T / 2
