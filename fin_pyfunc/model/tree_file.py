"""A tree ensemble as a file: its arrays, behind a head that says how probabilities are made of its leaves."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from fin_pyfunc.model.soundness.trees import check_trees, forged

Array = np.ndarray[Any, Any]

#: The arrays in the order in which `_trees.c` takes them, and what each item is, little-endian.
DTYPES = {
    "roots": "<i8", "left": "<i4", "right": "<i4", "feature": "<i4", "threshold": "<f8", "flags": "u1", "item": "<i4",
    "target": "<i4", "values": "<f8", "base": "<f8", "category_starts": "<i8", "categories": "u1",
    "linear_starts": "<i8", "linear_feature": "<i4", "linear_slope": "<f8", "linear_missing": "<f8", "zeros": "u1",
    "code_starts": "<i8", "codes": "<f8",
}  # fmt: skip
#: Bits of `Trees.flags`.
NAN_LEFT, CATEGORICAL, LOW_LEFT, HIGH_LEFT = 1, 2, 4, 8
#: What `Trees.zeros` says of a feature: a value next to 0 is taken as it is, as missing, or as 0.
AS_IT_IS, AS_MISSING, AS_ZERO = 0, 1, 2
#: Most scores of a row, and features.
MAX_SCORES, MAX_FEATURES = 4096, 1 << 28


class Arithmetic(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a library makes probabilities of its leaves.

    Parameters
    ----------
    rounds : bool
        Features are rounded to float32 before they are compared.
    sums : {"float64", "float32"}
        What leaves are added up in, and probabilities are made in.
    divisor : float, default 1.0
        What sums are divided by, such as the number of trees of a forest.
    slope : float, default 1.0
        What a score is multiplied with before its link.
    link : {"identity", "sigmoid", "softmax", "sigmoids", "votes"}
        Sums that are probabilities; one sigmoid for two classes; a softmax; a sigmoid for each class (LightGBM's
        ``multiclassova``); or AdaBoost's, of two classes as of more.
    exp : {"c", "numpy", "numpy by column"}, default "c"
        Whose exp a softmax calls, which differ in the last bit; "by column" where NumPy adds up an array in Fortran's
        order, which it does in another order than one in C's.
    missing : float or None, default None
        A value that is taken as missing.
    """

    rounds: bool
    sums: Literal["float64", "float32"] = "float64"
    divisor: float = 1.0
    slope: float = 1.0
    link: Literal["identity", "sigmoid", "softmax", "sigmoids", "votes"]
    exp: Literal["c", "numpy", "numpy by column"] = "c"
    missing: float | None = None


_NONE = np.zeros(0)
_NO_SPANS = np.zeros(1, dtype=np.int64)


class Trees(NamedTuple):
    """A tree ensemble, its trees laid one after the other.

    Parameters
    ----------
    n_features : int
    arithmetic : Arithmetic
    roots : ndarray of shape (n_trees,), int64
    left, right, feature : ndarray of shape (n_nodes,), int32
        Children by their position, negative at a leaf.
    threshold : ndarray of shape (n_nodes,), float64
        A row goes left unless its feature is greater. Where a node splits on categories, a value that is not greater is
        below all of them.
    flags : ndarray of shape (n_nodes,), uint8
        `NAN_LEFT`: a missing value goes left. `CATEGORICAL`: the node splits on categories; `LOW_LEFT`, `HIGH_LEFT`:
        there, a value below or beyond all categories goes left.
    item : ndarray of shape (n_nodes,), int32
        At a leaf its row of `values`; where a node splits on categories, which of them.
    target : ndarray of shape (n_trees,), int32
        The first of the scores that each tree adds to.
    values : ndarray of shape (n_values, width), float64
        What a leaf adds.
    base : ndarray of shape (n_scores,), float64
        Where the scores start.
    category_starts : ndarray of shape (n_splits + 1,), int64
        Where the bits of each split's categories begin in `categories`.
    categories : ndarray of shape (n_bytes,), uint8
        A bit for each category from 0 on, the lowest one first: whether it goes left.
    linear_starts : ndarray of shape (n_values + 1,) or (0,), int64
        Where each leaf's linear terms begin; without any, leaves are constants.
    linear_feature, linear_slope : ndarray of shape (n_terms,), int32 and float64
    linear_missing : ndarray of shape (n_values,) or (0,), float64
        What a leaf adds where one of its features is missing.
    zeros : ndarray of shape (n_features,) or (0,), uint8
        `AS_IT_IS`, `AS_MISSING` or `AS_ZERO`.
    code_starts : ndarray of shape (n_features + 1,) or (0,), int64
        Where each feature's categories begin in `codes`; a feature without any is a number.
    codes : ndarray of shape (n_codes,), float64
        In ascending order: a value is taken as its position among its feature's, and as missing where it is none.
    """

    n_features: int
    arithmetic: Arithmetic
    roots: Array
    left: Array
    right: Array
    feature: Array
    threshold: Array
    flags: Array
    item: Array
    target: Array
    values: Array
    base: Array
    category_starts: Array = _NO_SPANS
    categories: Array = _NONE
    linear_starts: Array = _NONE
    linear_feature: Array = _NONE
    linear_slope: Array = _NONE
    linear_missing: Array = _NONE
    zeros: Array = _NONE
    code_starts: Array = _NONE
    codes: Array = _NONE

    @property
    def width(self) -> int:
        """How many scores a leaf adds to."""
        return int(self.values.shape[1])

    def arrays(self) -> dict[str, Array]:
        """Every array with its own dtype, one-dimensional and contiguous."""
        return {
            name: np.ascontiguousarray(getattr(self, name), dtype=dtype).reshape(-1) for name, dtype in DTYPES.items()
        }


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    n_features: int
    width: int
    arithmetic: Arithmetic
    arrays: dict[str, bytes]


def written(trees: Trees) -> bytes:
    """The file's content."""
    arrays = {name: array.tobytes() for name, array in trees.arrays().items()}
    file = _File(n_features=trees.n_features, width=trees.width, arithmetic=trees.arithmetic, arrays=arrays)
    return msgspec.msgpack.encode(file)


def read(content: bytes, n_classes: int) -> Trees:
    """Read a file, and check it: nothing later looks whether a child or a feature is there.

    Parameters
    ----------
    content : bytes
    n_classes : int
        How many probabilities a row it must answer.

    Raises
    ------
    ArtifactError
    """
    try:
        file = msgspec.msgpack.decode(content, type=_File)
        arrays = {name: np.frombuffer(file.arrays[name], dtype=dtype) for name, dtype in DTYPES.items()}
        if len(file.arrays) != len(DTYPES):
            raise ValueError
        arrays["values"] = arrays["values"].reshape(-1, file.width)
    except (msgspec.MsgspecError, KeyError, ValueError) as e:
        raise forged("trees that are cut off or damaged") from e
    trees = Trees(file.n_features, file.arithmetic, **arrays)
    check(trees, n_classes)
    return trees


def check(trees: Trees, n_classes: int) -> None:
    """Check that every number leads to a place that there is.

    Raises
    ------
    ArtifactError
    """
    n_nodes, how = len(trees.left), trees.arithmetic
    if not 0 < trees.n_features < MAX_FEATURES:
        raise forged("trees without features")
    if any(len(array) != n_nodes for array in (trees.threshold, trees.flags, trees.item)):
        raise forged("trees of uneven length")
    _check_scores(trees, n_classes)
    if how.divisor == 0 or not np.isfinite([how.divisor, how.slope]).all():
        raise forged("trees whose sums are divided by nothing")
    check_trees(trees.left, trees.right, trees.feature, trees.n_features, trees.roots)
    leaf, by_category = trees.left < 0, (trees.flags & CATEGORICAL) > 0
    if (trees.flags > 15).any() or np.isnan(trees.threshold[~leaf]).any():
        raise forged("a tree that splits on nothing")
    n_splits = len(trees.category_starts) - 1
    for at, n in ((leaf, len(trees.values)), (~leaf & by_category, n_splits)):
        if ((trees.item[at] < 0) | (trees.item[at] >= n)).any():
            raise forged("a tree of values that there are not")
    _check_spans(trees.category_starts, n_splits, len(trees.categories))
    _check_linear(trees)
    if len(trees.zeros) and (len(trees.zeros) != trees.n_features or (trees.zeros > AS_ZERO).any()):
        raise forged("trees of other features")
    if len(trees.codes) or len(trees.code_starts):
        _check_spans(trees.code_starts, trees.n_features, len(trees.codes))


def _check_scores(trees: Trees, n_classes: int) -> None:
    link, n_scores = trees.arithmetic.link, len(trees.base)
    n_trees = len(trees.roots)
    if n_scores != (1 if link == "sigmoid" else n_classes) or (link == "sigmoid" and n_classes != 2):
        raise forged("trees of another number of classes")
    if not 0 < n_scores <= MAX_SCORES or not 0 < trees.width <= n_scores:
        raise forged("trees of another number of classes")
    if len(trees.target) != n_trees or ((trees.target < 0) | (trees.target > n_scores - trees.width)).any():
        raise forged("a tree of a class that there is not")


def _check_linear(trees: Trees) -> None:
    if not len(trees.linear_starts):
        return
    if trees.width != 1 or trees.arithmetic.sums != "float64":
        raise forged("linear leaves of more than one number")
    _check_spans(trees.linear_starts, len(trees.values), len(trees.linear_feature))
    if len(trees.linear_slope) != len(trees.linear_feature) or len(trees.linear_missing) != len(trees.values):
        raise forged("linear leaves of uneven length")
    if ((trees.linear_feature < 0) | (trees.linear_feature >= trees.n_features)).any():
        raise forged("a tree that asks for a feature that a row does not have")


def _check_spans(starts: Array, count: int, length: int) -> None:
    """Check that `count` spans lie one after the other in an array of `length` items."""
    if count < 0 or len(starts) != count + 1 or starts[0] != 0 or starts[-1] != length or (np.diff(starts) < 0).any():
        raise forged("trees whose parts do not fit together")
