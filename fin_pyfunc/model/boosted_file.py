"""A boosted ensemble of trees as a file: its arrays, one after the other, behind a head that says what they mean."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from fin_pyfunc.model.soundness.trees import check_trees, forged

Array = np.ndarray[Any, Any]

#: The arrays in their order, and what each item is, little-endian.
_DTYPES = {
    "roots": "<i8", "left": "<i4", "right": "<i4", "feature": "<i4", "threshold": "<f8", "nan_left": "?",
    "value": "<f8", "target": "<i4", "base": "<f8",
}  # fmt: skip
#: Most scores of a row.
MAX_SCORES = 4096


class Arithmetic(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a library makes probabilities of its trees.

    Parameters
    ----------
    rounds : bool
        Features are rounded to float32 before they are compared.
    sums : {"float64", "float32"}
        What leaves are added up in, and probabilities are made in.
    link : {"identity", "sigmoid", "softmax", "sigmoids"}
        The scores themselves, one sigmoid for two classes, a softmax, or a sigmoid for each class (LightGBM's
        ``multiclassova``).
    exp : {"c", "numpy"}
        Whose exp a softmax calls: they differ in the last bit.
    slope : float, default 1.0
        What a score is multiplied with before its link.
    """

    rounds: bool
    sums: Literal["float64", "float32"]
    link: Literal["identity", "sigmoid", "softmax", "sigmoids"]
    exp: Literal["c", "numpy"]
    slope: float = 1.0


class BoostedTrees(NamedTuple):
    """A boosted ensemble, its trees laid one after the other.

    Parameters
    ----------
    n_features : int
    arithmetic : Arithmetic
    roots : ndarray of shape (n_trees,), int64
    left, right, feature : ndarray of shape (n_nodes,), int32
        Children by their position, negative at a leaf.
    threshold : ndarray of shape (n_nodes,), float64
        A row goes left unless its feature is greater.
    nan_left : ndarray of shape (n_nodes,), bool
    value : ndarray of shape (n_nodes,), float64
        What a leaf adds.
    target : ndarray of shape (n_trees,), int32
        The score that each tree adds to.
    base : ndarray of shape (n_scores,), float64
        Where the scores start.
    """

    n_features: int
    arithmetic: Arithmetic
    roots: Array
    left: Array
    right: Array
    feature: Array
    threshold: Array
    nan_left: Array
    value: Array
    target: Array
    base: Array


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    n_features: int
    arithmetic: Arithmetic
    arrays: dict[str, bytes]


def written(trees: BoostedTrees) -> bytes:
    """The file's content."""
    arrays = {
        name: np.ascontiguousarray(getattr(trees, name), dtype=dtype).tobytes() for name, dtype in _DTYPES.items()
    }
    return msgspec.msgpack.encode(_File(n_features=trees.n_features, arithmetic=trees.arithmetic, arrays=arrays))


def read(content: bytes, n_classes: int) -> BoostedTrees:
    """Read a file, and check it: nothing later looks whether a child or a feature is there.

    Parameters
    ----------
    content : bytes
    n_classes : int
        How many scores a row it must answer; a sigmoid makes two of one.

    Raises
    ------
    ArtifactError
    """
    try:
        file = msgspec.msgpack.decode(content, type=_File)
        arrays = {name: np.frombuffer(file.arrays[name], dtype=dtype) for name, dtype in _DTYPES.items()}
    except (msgspec.MsgspecError, KeyError, ValueError) as e:
        raise forged("boosted trees that are cut off or damaged") from e
    trees = BoostedTrees(file.n_features, file.arithmetic, **arrays)
    n_nodes, n_scores = len(trees.left), len(trees.base)
    if any(len(array) != n_nodes for array in (trees.threshold, trees.nan_left, trees.value)):
        raise forged("trees of uneven length")
    if n_scores != (1 if trees.arithmetic.link == "sigmoid" else n_classes) or not 0 < n_scores <= MAX_SCORES:
        raise forged("boosted trees of another number of classes")
    if trees.arithmetic.link == "sigmoid" and n_classes != 2:
        raise forged("boosted trees of another number of classes")
    if len(trees.target) != len(trees.roots) or ((trees.target < 0) | (trees.target >= n_scores)).any():
        raise forged("a tree of a class that there is not")
    if (trees.nan_left.view(np.uint8) > 1).any() or np.isnan(trees.threshold[trees.left >= 0]).any():
        raise forged("a tree that splits on nothing")
    if not 0 < trees.n_features < 1 << 30:
        raise forged("boosted trees without features")
    check_trees(trees.left, trees.right, trees.feature, trees.n_features, trees.roots)
    return trees
