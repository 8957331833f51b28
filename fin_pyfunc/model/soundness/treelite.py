"""A treelite checkpoint, read as data before treelite itself opens it: treelite trusts every number in it.

Source: `include/treelite/tree.h` and `detail/serializer.h` of treelite 4.7, whose format this is; little-endian.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fin_pyfunc.model.soundness.trees import Array, check_trees, forged

_BAD = "a treelite model that is cut off or damaged"
#: treelite's numbers of its types, for thresholds and leaves.
_TYPES = {2: "<f4", 3: "<f8"}
#: Most trees; beyond, something else than a model is meant.
_MAX_TREES = 1_000_000
_BRANCH, _CATEGORICAL, _LEAF = 1, 2, 0


class Tree(NamedTuple):
    """One tree, an item a node: `comparison` is 3 for "at most", `vector` the leaves' rows from `begin` on."""

    left: Array
    right: Array
    feature: Array
    threshold: Array
    nan_left: Array
    is_categorical: Array
    comparison: Array
    begin: Array
    vector: Array


class Checkpoint(NamedTuple):
    """What a checkpoint holds, as far as it is looked at here.

    Parameters
    ----------
    n_features : int
        How many columns the matrix must have that it is given.
    width : int
        How many scores a leaf has, or 1.
    averages : bool
        Whether scores are means over the trees, not sums.
    postprocessor : str
        What makes probabilities of them.
    base : ndarray of shape (n_scores,), float64
    trees : list of Tree
    """

    n_features: int
    width: int
    averages: bool
    postprocessor: str
    base: Array
    trees: list[Tree]


def check_treelite(content: bytes, n_classes: int) -> Checkpoint:
    """Check a checkpoint, and read it.

    Parameters
    ----------
    content : bytes
    n_classes : int
        How many scores a row it must answer; for two, one of them is enough.

    Returns
    -------
    Checkpoint

    Raises
    ------
    ArtifactError
    """
    reader = _Reader(content)
    for _ in range(3):  # its version: treelite checks that itself
        reader.one("<i4")
    types = reader.one("u1"), reader.one("u1")
    if any(kind not in _TYPES for kind in types):
        raise forged(_BAD)
    threshold, leaf = (_TYPES[kind] for kind in types)
    n_trees = int(reader.one("<u8"))
    n_features = int(reader.one("<i4"))
    reader.one("u1")  # the task
    averages = reader.flag()
    n_targets = reader.one("<i4")
    classes, shape = reader.array("<i4"), reader.array("<i4")
    targets, of_class = reader.array("<i4"), reader.array("<i4")
    postprocessor = reader.array("u1").tobytes().decode("latin-1")
    reader.one("<f4")
    reader.one("<f4")
    base = reader.array("<f8")
    reader.array("u1")  # attributes, a text
    reader.no_more_fields()
    scores = int(classes[0]) if len(classes) == 1 else 0
    if n_targets != 1 or scores not in (n_classes, 1 if n_classes == 2 else n_classes):
        raise forged("a treelite model of another number of classes")
    width = scores if shape.tolist() == [1, scores] and scores > 1 else 1
    if shape.tolist() not in ([1, 1], [1, scores]) or len(base) != scores or not 0 < n_trees <= _MAX_TREES:
        raise forged(_BAD)
    if (
        len(targets) != n_trees or len(of_class) != n_trees or ((targets != 0) & (targets != -1)).any()
    ):  # -1: all there are
        raise forged(_BAD)
    if width == 1 and ((of_class < 0) | (of_class >= scores)).any():
        raise forged("a treelite tree of a class that there is not")
    if width > 1 and (of_class != -1).any():
        raise forged(_BAD)
    trees = [_tree(reader, threshold, leaf, width, n_features) for _ in range(n_trees)]
    if reader.left:
        raise forged(_BAD)
    return Checkpoint(n_features, width, averages, postprocessor, base, trees)


def _tree(reader: _Reader, threshold: str, leaf: str, width: int, n_features: int) -> Tree:
    n_nodes = int(reader.one("<i4"))
    reader.flag()
    if n_nodes < 1:
        raise forged(_BAD)

    def each(dtype: str) -> Array:
        values = reader.array(dtype)
        if len(values) != n_nodes:
            raise forged("trees of uneven length")
        return values

    kind, left, right, feature = each("i1"), each("<i4"), each("<i4"), each("<i4")
    flags = [each("u1")]
    each(leaf)
    thresholds = each(threshold)
    comparison = each("i1")
    flags.append(each("u1"))
    vector = reader.array(leaf)
    begin = each("<u8")
    _check_spans(begin, each("<u8"), len(vector), kind == _LEAF, width if width > 1 else 0)
    categories = reader.array("<u4")
    _check_spans(each("<u8"), each("<u8"), len(categories), kind == _CATEGORICAL, None)
    for dtype in ("<u8", "<f8", "<f8"):  # what training counted: not needed to predict, so it may be left out
        counted, known = reader.array(dtype), reader.array("u1")
        flags.append(known)
        if len(counted) not in (0, n_nodes) or len(known) not in (0, n_nodes):
            raise forged("trees of uneven length")
    reader.no_more_fields()
    reader.no_more_fields()
    if any((flag > 1).any() for flag in flags):
        raise forged(_BAD)
    if not np.isin(kind, (_LEAF, _BRANCH, _CATEGORICAL)).all() or (left[kind == _LEAF] >= 0).any():
        raise forged(_BAD)
    if (left[kind != _LEAF] < 0).any() or not np.isin(comparison[kind == _BRANCH], (1, 2, 3, 4, 5)).all():
        raise forged(_BAD)
    check_trees(left, right, feature, n_features)
    return Tree(left, right, feature, thresholds, flags[0], kind == _CATEGORICAL, comparison, begin, vector)


def _check_spans(begin: Array, end: Array, length: int, used: Array, width: int | None) -> None:
    """Parts of a common array, as its nodes have them; of `width` items each at nodes that use theirs."""
    begin, end = begin.astype(np.float64), end.astype(np.float64)  # no sum here overflows
    if (begin > end).any() or (end > length).any():
        raise forged("a tree whose nodes lie outside of it")
    if width is not None and ((end - begin)[used] != width).any():
        raise forged(_BAD)


class _Reader:
    """Where it is in some bytes."""

    def __init__(self, content: bytes) -> None:
        self._content, self._position = content, 0

    @property
    def left(self) -> int:
        """Bytes that have not been read."""
        return len(self._content) - self._position

    def one(self, dtype: str) -> Any:
        """The next number."""
        return self._take(dtype, 1)[0]

    def flag(self) -> bool:
        """The next boolean: a byte that is neither 0 nor 1 is none, and C++ does with it as it likes."""
        if (value := self.one("u1")) > 1:
            raise forged(_BAD)
        return bool(value)

    def array(self, dtype: str) -> Array:
        """The next array: how many there are, and those."""
        return self._take(dtype, int(self.one("<u8")))

    def no_more_fields(self) -> None:
        """The mark that no fields of a later version follow."""
        if self.one("<i4") != 0:
            raise forged(_BAD)

    def _take(self, dtype: str, count: int) -> Array:
        size = count * np.dtype(dtype).itemsize
        if size > self.left:
            raise forged(_BAD)
        values = np.frombuffer(self._content, dtype, count, self._position)
        self._position += size
        return values
