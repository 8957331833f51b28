"""Trees as arrays: every child is a node, every walk from a root ends, every feature is one of a row's."""

from __future__ import annotations

from typing import Any

import numpy as np

from fin_pyfunc.model.errors import ArtifactError

Array = np.ndarray[Any, Any]

#: Deepest tree that is taken: native libraries walk a tree by recursion when they open it, and end with the process
#: where their stack does (ONNX Runtime 1.32 at some 100,000).
MAX_DEPTH = 4096


def forged(what: str) -> ArtifactError:
    """The one sentence about a file whose numbers do not fit together.

    Parameters
    ----------
    what : str
        Such as "a tree whose nodes do not form a tree".
    """
    return ArtifactError(
        f"The model's file holds {what}, which no library writes: fetch the model again, or log it again."
    )


def unsupported(what: str, instead: str) -> ArtifactError:
    """The one sentence about a model that is whole, but of a kind that is not served.

    Parameters
    ----------
    what : str
        Such as "a LightGBM model with linear trees, which cannot be checked in a skops file".
    instead : str
        What to do, such as "train it with linear_tree=False".
    """
    return ArtifactError(f"The model's file holds {what}: {instead}.")


def check_trees(left: Array, right: Array, feature: Array, n_features: int, roots: Array | None = None) -> None:
    """Check binary trees that lie in common arrays.

    Parameters
    ----------
    left, right : ndarray of shape (n_nodes,)
        Children by their position; negative at a leaf, in both.
    feature : ndarray of shape (n_nodes,)
        What a branch looks at; not looked at at a leaf.
    n_features : int
        How many features a row has.
    roots : ndarray of shape (n_trees,), optional
        Where trees begin; default one, at 0.

    Raises
    ------
    ArtifactError
        A child outside the arrays, a node of two parents, a root below a node, a tree deeper than `MAX_DEPTH`, or a
        feature that a row does not have.
    """
    left, right = np.asarray(left).astype(np.int64), np.asarray(right).astype(np.int64)
    starts = np.zeros(1, dtype=np.int64) if roots is None else np.asarray(roots).astype(np.int64)
    n_nodes = len(left)
    if not len(starts) or len(right) != n_nodes or len(feature) != n_nodes:
        raise forged("trees of uneven length")
    branch = left >= 0
    children = np.concatenate([left[branch], right[branch]])
    if (right[~branch] >= 0).any() or (children < 0).any() or (children >= n_nodes).any():
        raise forged("a tree whose nodes lie outside of it")
    if (starts < 0).any() or (starts >= n_nodes).any():
        raise forged("a tree whose root lies outside of it")
    # no node below two others, and no root below any: a walk from a root meets no node twice
    if (np.bincount(np.concatenate([children, starts]), minlength=n_nodes) > 1).any():
        raise forged("a tree whose nodes do not form a tree")
    asked = np.asarray(feature)[branch].astype(np.int64)
    if (asked < 0).any() or (asked >= n_features).any():
        raise forged("a tree that asks for a feature that a row does not have")
    _check_depth(left, right, starts)


def _check_depth(left: Array, right: Array, roots: Array) -> None:
    level, depth = roots, 0
    while len(level := level[left[level] >= 0]):
        depth += 1
        if depth > MAX_DEPTH:
            raise forged(f"a tree that is deeper than {MAX_DEPTH} nodes")
        level = np.concatenate([left[level], right[level]])
