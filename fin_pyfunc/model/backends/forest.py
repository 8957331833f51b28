"""A random forest in treelite's form, as models that were logged before there was the form "trees" have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fin_pyfunc.model.backends.compiled import CompiledBackend
from fin_pyfunc.model.backends.trees import runner
from fin_pyfunc.model.decision import Probabilities
from fin_pyfunc.model.form import Form
from fin_pyfunc.model.soundness.treelite import Checkpoint, check_treelite
from fin_pyfunc.model.tree_file import NAN_LEFT, Arithmetic, Trees

#: treelite's number of the comparison "at most", and its name of doing nothing with the mean of a forest's leaves.
_AT_MOST, _AS_IT_IS = 3, "identity_multiclass"

Array = np.ndarray[Any, Any]


def is_forest(form: Form) -> bool:
    """Whether a form is that of a forest, equal to it to the last bit."""
    return form.backend == "treelite" and form.casts and not form.band


def float32_below(threshold: Array) -> Array:
    """The greatest float32 at most each threshold: a float32 is at most the one just where at most the other."""
    rounded = threshold.astype(np.float32)
    lower: Array = np.where(rounded > threshold, np.nextafter(rounded, np.float32(-np.inf)), rounded)
    return lower


class ForestBackend(CompiledBackend):
    """Scores with the trees of a treelite form; made as any `CompiledBackend`, from one that `is_forest`.

    Raises
    ------
    ArtifactError
        The file cannot be read.
    NotAForestError
        It can, and holds something that scores are made of in another way.
    """

    name = "forest"

    def open(self, folder: Path, form: Form) -> None:
        """Read the form's file; see `CompiledBackend.open`."""
        self._run = runner(_read(check_treelite((folder / form.file).read_bytes(), len(self._classes))))

    def run(self, matrix: np.ndarray[Any, np.dtype[np.float64]]) -> Probabilities:
        """The trees' scores; see `CompiledBackend.run`."""
        return self._run(matrix)


class NotAForestError(Exception):
    """A form that this backend is not made for; another one runs it."""


def trees_that_vote(read: Checkpoint) -> int:
    """The number of trees of a forest whose leaves each name one class for certain, as those of a forest grown to pure
    leaves do; 0 for any other ensemble.

    Its scores are then whole numbers of votes divided by the number of trees, whatever order they are added up in.
    """
    values = (_rows(tree, read.width) for tree in read.trees)
    return len(read.trees) if _is_plain(read) and all(map(_are_votes, values)) else 0


def _are_votes(values: Array) -> bool:
    return bool(np.isin(values, (0.0, 1.0)).all() and (values.sum(axis=1) == 1).all())


def _is_plain(read: Checkpoint) -> bool:
    return read.averages and read.width > 1 and read.postprocessor == _AS_IT_IS and not read.base.any()


def _read(read: Checkpoint) -> Trees:
    def joined(name: str, dtype: Any) -> Array:
        return np.concatenate([getattr(tree, name) for tree in read.trees]).astype(dtype, copy=False)

    sizes = [len(tree.left) for tree in read.trees]
    roots = np.cumsum([0, *sizes[:-1]])
    if sum(sizes) > np.iinfo(np.int32).max:
        raise NotAForestError("it has too many nodes")
    start = np.repeat(roots, sizes).astype(np.int32)
    leaf = joined("left", np.int32) < 0
    threshold = joined("threshold", np.float64)
    if (
        not _is_plain(read)
        or (joined("comparison", np.int8)[~leaf] != _AT_MOST).any()
        or joined("is_categorical", bool).any()
        or np.isnan(threshold[~leaf]).any()
    ):
        raise NotAForestError("it is no mean of trees that split on numbers")
    left, right = (np.where(leaf, -1, joined(side, np.int32) + start) for side in ("left", "right"))
    values, item = _values(read, leaf)
    how = Arithmetic(rounds=True, divisor=float(len(roots)), link="identity")
    return Trees(
        read.n_features, how, roots, left, right, joined("feature", np.int32), threshold,
        np.where(joined("nan_left", bool), NAN_LEFT, 0), item, np.zeros(len(roots)), values, np.zeros(read.width),
    )  # fmt: skip


def _values(read: Checkpoint, leaf: Array) -> tuple[Array, Array]:
    """What leaves add, as rows of scores, and which of them each node adds (0 at a branch)."""
    values = np.concatenate([_rows(tree, read.width) for tree in read.trees])
    item = np.zeros(len(leaf), dtype=np.int32)
    if _are_votes(values):  # few rows stay in the nearest cache
        item[leaf] = values.argmax(axis=1)
        return np.eye(read.width), item
    item[leaf] = np.arange(len(values))
    return values, item


def _rows(tree: Any, width: int) -> Array:
    """The leaves' rows, in the order of the leaves."""
    starts = tree.begin[tree.left < 0].astype(np.int64)
    rows: Array = tree.vector[starts[:, None] + np.arange(width)].astype(np.float64)
    return rows
