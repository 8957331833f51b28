"""A fitted estimator that was read from a file: its arrays fit together, wherever compiled code trusts that they do.

Python and NumPy check every index themselves. What does not is scikit-learn's own compiled code: trees, histogram
trees, neighbour trees, libsvm, k-means; and SciPy's, for sparse matrices, among them those that encoders and
vectorizers make of positions in the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fin_pyfunc.model.soundness.trees import check_trees, forged
from fin_pyfunc.model.splines import restore_splines

#: Rows of a bitset of 256 categories, as HistGradientBoosting has them.
_BITSET_WORDS = 8
_TREE = "sklearn.tree._classes.BaseDecisionTree"
#: Most columns that a hasher makes: it counts them in an int32.
_MAX_HASHED = 2**31 - 1


def check_estimator(estimator: Any) -> None:
    """Check an estimator and everything it is made of.

    Parameters
    ----------
    estimator : object
        As it was read; nothing of it has been used.

    Raises
    ------
    ArtifactError
    """
    parts = list(_parts(estimator))
    owned = {id(getattr(part, "tree_", None)) for part in parts if _TREE in map(_name, type(part).__mro__)}
    for part in parts:
        if _name(type(part)) == "sklearn.tree._tree.Tree" and id(part) not in owned:
            raise forged("a tree that no estimator holds")
        for kind in type(part).__mro__:
            fitted, check = _CHECKS.get(_name(kind), ("", None))
            if check is not None and hasattr(part, fitted):  # an unfitted one cannot predict
                try:
                    check(part)
                except (AttributeError, TypeError, ValueError, IndexError, OverflowError, KeyError) as e:
                    raise forged(f"a {type(part).__name__} with a part missing or of another kind") from e


def _parts(estimator: Any) -> Iterator[Any]:
    """Everything that is reachable from an estimator and is no plain value; each once."""
    pending, seen = [estimator], set()
    while pending:
        part = pending.pop()
        if part is None or isinstance(part, str | bytes | int | float) or id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, dict):
            pending += [*part.keys(), *part.values()]
        elif isinstance(part, list | tuple | set | frozenset):
            pending += part
        elif isinstance(part, np.ndarray):
            if part.dtype == object:
                pending += part.ravel().tolist()
        elif not isinstance(part, type):
            yield part
            pending += vars(part).values() if hasattr(part, "__dict__") else ()


def _check_tree_of(owner: Any) -> None:
    """A decision tree: its node arrays, and that it asks for no more features than its owner lets through."""
    tree, n_features = owner.tree_, _n_features(owner)
    # `__setstate__` takes the number of nodes from the file, whatever the length of the arrays beside it
    if not 0 < tree.node_count <= tree.capacity or tree.n_features != n_features:
        raise forged("a tree whose nodes lie outside of it")
    if tree.n_outputs != owner.n_outputs_ or (tree.n_classes < 1).any() or tree.max_n_classes < tree.n_classes.max():
        raise forged("a tree of another number of classes than its estimator")
    check_trees(tree.children_left, tree.children_right, tree.feature, n_features)


def _check_members(owner: Any) -> None:
    """A forest or gradient boosting, which looks at a row once for all its trees."""
    n_features = _n_features(owner)
    for member in np.asarray(owner.estimators_, dtype=object).ravel():
        if _TREE not in map(_name, type(member).__mro__) or not hasattr(member, "tree_"):
            raise forged("an ensemble of trees with something else among them")
        if _n_features(member) != n_features:
            raise forged("a tree of another number of features than its ensemble")


def _check_stages(owner: Any) -> None:
    """Gradient boosting adds tree k of a stage to column k, in an array of as many columns as it has classes."""
    n_classes = len(owner.classes_)
    columns = 1 if n_classes == 2 else n_classes
    stages = owner.estimators_
    if stages.ndim != 2 or stages.shape[1] != columns or owner.n_trees_per_iteration_ != columns:
        raise forged("stages of another number of trees than classes")
    if getattr(owner._loss, "n_classes", n_classes) not in (n_classes, columns):
        raise forged("a loss of another number of classes")
    if any(member.tree_.n_outputs != 1 or member.tree_.max_n_classes != 1 for member in stages.ravel()):
        raise forged("a tree of another number of outputs than its ensemble")


def _check_histogram_trees(owner: Any) -> None:
    n_features = _n_features(owner)
    is_categorical = np.asarray(owner._bin_mapper.is_categorical_).astype(bool)
    if is_categorical.shape != (n_features,):
        raise forged("categories of another number of features")
    for predictor in [predictor for stage in owner._predictors for predictor in stage]:
        nodes, bitsets = predictor.nodes, predictor.raw_left_cat_bitsets
        if nodes.ndim != 1 or not len(nodes) or bitsets.ndim != 2 or bitsets.shape[1] != _BITSET_WORDS:
            raise forged("trees of uneven length")
        leaf = nodes["is_leaf"].astype(bool)
        # children are unsigned, and a leaf's are of no meaning
        left, right = (np.where(leaf, -1, nodes[side].astype(np.int64)) for side in ("left", "right"))
        check_trees(left, right, nodes["feature_idx"], n_features)
        split = nodes[nodes["is_categorical"].astype(bool) & ~leaf]
        if (split["bitset_idx"].astype(np.int64) >= len(bitsets)).any() or (split["bitset_idx"] < 0).any():
            raise forged("a tree whose categories lie outside of it")
        if not is_categorical[split["feature_idx"]].all():
            raise forged("a tree that takes a number for a category")


def _check_neighbour_tree(tree: Any) -> None:
    """A k-d tree or ball tree: node i has its children at 2 i + 1 and 2 i + 2."""
    data, index, nodes, bounds, _leaf_size, n_levels, n_nodes, *_, metric, weight = tree.__getstate__()
    n_rows, n_features = data.shape
    starts, ends = nodes["idx_start"], nodes["idx_end"]
    if len(nodes) != n_nodes or n_nodes != 2**n_levels - 1 or bounds.shape[1:] != (n_nodes, n_features):
        raise forged("a neighbour tree of uneven length")
    if bounds.shape[0] != (2 if "KDTree" in type(tree).__name__ else 1):
        raise forged("a neighbour tree of uneven length")
    if index.shape != (n_rows,) or ((index < 0) | (index >= n_rows)).any():
        raise forged("a neighbour tree whose rows lie outside of it")
    if (starts < 0).any() or (starts > ends).any() or (ends > n_rows).any():
        raise forged("a neighbour tree whose rows lie outside of it")
    inner = np.flatnonzero(nodes["is_leaf"] == 0)
    if (2 * inner + 2 >= n_nodes).any():
        raise forged("a neighbour tree whose nodes lie outside of it")
    if weight is not None and len(weight) != n_rows:
        raise forged("a neighbour tree of uneven length")
    _check_metric(metric, n_features)


def _check_metric(metric: Any, n_features: int) -> None:
    _p, vector, matrix, *_ = metric.__getstate__()
    if np.asarray(vector).size not in (0, 1, n_features) or np.asarray(matrix).size not in (0, 1, n_features**2):
        raise forged("a distance of another number of features")


def _check_neighbours(owner: Any) -> None:
    fitted = owner._fit_X
    if fitted.ndim != 2 or fitted.shape[1] != _n_features(owner) or owner.n_samples_fit_ != fitted.shape[0]:
        raise forged("neighbours of uneven length")
    if owner._tree is not None and owner._tree.__getstate__()[0].shape != fitted.shape:
        raise forged("neighbours of uneven length")


def _check_labels(owner: Any) -> None:
    n_rows = owner._fit_X.shape[0]
    if np.shape(owner._y)[:1] != (n_rows,):
        raise forged("neighbours of uneven length")
    classes = owner.classes_ if owner.outputs_2d_ else [owner.classes_]
    labels = np.reshape(owner._y, (n_rows, -1))
    if labels.shape[1] != len(classes) or labels.dtype.kind not in "iu":
        raise forged("neighbours of uneven length")
    if any(((of < 0) | (of >= len(names))).any() for of, names in zip(labels.T, classes, strict=True)):
        raise forged("a neighbour of a class that there is not")


def _check_support_vectors(owner: Any) -> None:
    """Support vectors by class; where there is one value to predict, libsvm has two, and all vectors in the first."""
    is_classifier = hasattr(owner, "classes_")
    n_classes = len(owner.classes_) if is_classifier else 2
    vectors, coef, support = owner.support_vectors_, owner._dual_coef_, np.asarray(owner.support_)
    counts, n_vectors, pairs = np.asarray(owner._n_support), len(support), n_classes * (n_classes - 1) // 2
    total = counts.sum() if is_classifier else counts[0]
    if counts.shape != (n_classes,) or (counts < 0).any() or total != n_vectors or support.ndim != 1:
        raise forged("support vectors of uneven length")
    if np.size(owner._intercept_) != pairs or coef.shape != (n_classes - 1, n_vectors):
        raise forged("support vectors of uneven length")
    if np.size(owner._probA) != np.size(owner._probB) or np.size(owner._probA) not in (0, pairs):
        raise forged("support vectors of uneven length")
    if bool(owner._sparse) != hasattr(vectors, "indptr") or hasattr(coef, "indptr") != hasattr(vectors, "indptr"):
        raise forged("support vectors of another kind than their coefficients")
    if hasattr(coef, "indptr") and coef.data.size != (n_classes - 1) * n_vectors:
        raise forged("support vectors of uneven length")
    n_features = _n_features(owner)
    if owner.kernel == "precomputed":
        if hasattr(vectors, "indptr") or ((support < 0) | (support >= n_features)).any():
            raise forged("support vectors that lie outside of the kernel")
    elif vectors.shape != (n_vectors, n_features):
        raise forged("support vectors of another number of features")


def _check_centers(owner: Any) -> None:
    if np.ndim(owner.cluster_centers_) != 2 or np.shape(owner.cluster_centers_)[1] != _n_features(owner):
        raise forged("clusters of another number of features")


def _check_vocabulary(owner: Any) -> None:
    """A word's number is a column of a sparse matrix, which nothing compares with its width."""
    vocabulary = owner.vocabulary_
    if type(vocabulary) is not dict:
        raise forged("a vocabulary of another kind")
    if not all(_is_index(column, len(vocabulary)) for column in vocabulary.values()):
        raise forged("a word whose column lies outside of the matrix")


def _check_hashed(owner: Any) -> None:
    if not _is_index(owner.n_features, _MAX_HASHED + 1) or owner.n_features == 0:
        raise forged("a hash of no columns, or of more than there can be")


def _check_one_hot(owner: Any) -> None:
    """A category's number is a column of a sparse matrix, too, less the columns of all features before it."""
    categories, columns = owner.categories_, owner._n_features_outs
    n_features = _n_features(owner)
    drops = owner._drop_idx_after_grouping
    is_grouped = bool(owner._infrequent_enabled)
    mappings = owner._default_to_infrequent_mappings if is_grouped else [None] * n_features
    infrequent = owner._infrequent_indices if is_grouped else [None] * n_features
    drops = [None] * n_features if drops is None else drops
    if type(columns) is not list or {len(of) for of in (categories, columns, mappings, infrequent, drops)} != {
        n_features
    }:
        raise forged("categories of another number of features")
    for names, n_columns, mapping, grouped, drop in zip(categories, columns, mappings, infrequent, drops, strict=True):
        known = names[~np.isnan(names)] if names.dtype.kind == "f" else names
        if names.ndim != 1 or (names.dtype.kind in "biuf" and not np.array_equal(known, np.sort(known))):
            raise forged("categories that are not in order")
        n_groups = len(names)
        if (mapping is None) != (grouped is None):
            raise forged("categories that lie outside of their feature")
        if mapping is not None:
            if np.shape(mapping) != (n_groups,) or mapping.dtype.kind not in "iu" or np.shape(grouped)[0] < 1:
                raise forged("categories that lie outside of their feature")
            if (mapping < 0).any() or (grouped < 0).any() or (grouped >= n_groups).any():
                raise forged("categories that lie outside of their feature")
            n_groups = int(mapping.max()) + 1
        if drop is not None and not _is_index(drop, n_groups):
            raise forged("categories that lie outside of their feature")
        if not _is_index(n_columns, n_groups + 1) or n_columns != n_groups - (drop is not None):
            raise forged("categories of another number than their columns")


def _is_index(value: Any, end: int) -> bool:
    is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return is_integer and 0 <= value < end


def _check_sparse(matrix: Any) -> None:
    if hasattr(matrix, "check_format"):
        matrix.check_format(full_check=True)
    else:
        matrix.tocsr().check_format(full_check=True)


def _n_features(owner: Any) -> int:
    # without it scikit-learn does not compare a row's width with anything
    n_features = owner.n_features_in_
    if isinstance(n_features, bool) or not isinstance(n_features, int | np.integer) or n_features < 1:
        raise forged("an estimator that does not say how many features it takes")
    return int(n_features)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


#: By class: what it has once it is fitted, and the check.
_CHECKS: dict[str, tuple[str, Callable[[Any], None]]] = {
    _TREE: ("tree_", _check_tree_of),
    "sklearn.ensemble._forest.BaseForest": ("estimators_", _check_members),
    "sklearn.ensemble._gb.BaseGradientBoosting": ("estimators_", _check_members),
    "sklearn.ensemble._gb.GradientBoostingClassifier": ("estimators_", _check_stages),
    "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.BaseHistGradientBoosting": (
        "_predictors", _check_histogram_trees,
    ),
    **{f"sklearn.neighbors._{module}.{kind}{bits}": ("get_arrays", _check_neighbour_tree)
       for module, kind in (("kd_tree", "KDTree"), ("ball_tree", "BallTree")) for bits in ("", "32", "64")},
    "sklearn.cluster._kmeans._BaseKMeans": ("cluster_centers_", _check_centers),
    "sklearn.feature_extraction._hash.FeatureHasher": ("n_features", _check_hashed),
    "sklearn.feature_extraction.text.CountVectorizer": ("vocabulary_", _check_vocabulary),
    "sklearn.feature_extraction.text.HashingVectorizer": ("n_features", _check_hashed),
    "sklearn.neighbors._base.NeighborsBase": ("_fit_X", _check_neighbours),
    "sklearn.neighbors._classification.KNeighborsClassifier": ("_fit_X", _check_labels),
    "sklearn.neighbors._classification.RadiusNeighborsClassifier": ("_fit_X", _check_labels),
    "sklearn.preprocessing._encoders.OneHotEncoder": ("categories_", _check_one_hot),
    "sklearn.preprocessing._polynomial.SplineTransformer": ("bsplines_", restore_splines),
    "sklearn.svm._base.BaseLibSVM": ("support_vectors_", _check_support_vectors),
    "scipy.sparse._base._spbase": ("shape", _check_sparse),
}  # fmt: skip
