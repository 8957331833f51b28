"""Encoders, vectorizers, clusters, neighbours and support vectors whose numbers do not fit together, out of a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import VotingClassifier
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsTransformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder
from sklearn.svm import SVC, SVR, NuSVC, OneClassSVM
from sklearn.tree import DecisionTreeClassifier

from fin_pyfunc.model.errors import ArtifactError
from fin_pyfunc.model.soundness.estimator import check_estimator
from tests.authoring.estimators import lightgbm
from tests.models import bars, labels, quotes
from tests.security.skops_files import read

Y = labels(-1, 0, 1)


def words(vectorizer: Any) -> tuple[Any, Any]:
    frame = quotes()[["venue"]]
    pipeline = make_pipeline(ColumnTransformer([("words", vectorizer, "venue")]), LogisticRegression())
    pipeline.fit(frame, Y)
    return pipeline, pipeline[0].named_transformers_["words"]


def encoder(**options: Any) -> tuple[Any, Any]:
    pipeline = make_pipeline(OneHotEncoder(**options), LogisticRegression())
    pipeline.fit(quotes()[["venue", "hour"]], Y)
    return pipeline, pipeline[0]


def step(transformer: Any) -> tuple[Any, Any]:
    pipeline = make_pipeline(transformer, LogisticRegression()).fit(bars(), Y)
    return pipeline, pipeline[0]


def member(estimator: Any, y: Any = Y, X: Any = None) -> tuple[Any, Any]:
    """An estimator among those of a vote, which asks it to predict whatever it is."""
    vote = VotingClassifier([("one", LogisticRegression())]).fit(bars(), Y)
    fitted = estimator.fit(bars().to_numpy() if X is None else X, y)
    vote.estimators_ = [fitted]
    return vote, fitted


def sparse(estimator: Any) -> tuple[Any, Any]:
    return member(estimator, Y, scipy.sparse.csr_matrix(bars().to_numpy()))


MOVES = np.linspace(0, 1, len(Y))
SOUND: dict[str, Callable[[], tuple[Any, Any]]] = {
    "words": lambda: words(CountVectorizer()),
    "weighted words": lambda: words(TfidfVectorizer()),
    "hashed words": lambda: words(HashingVectorizer(n_features=8)),
    "categories": encoder,
    "categories less one": lambda: encoder(drop="if_binary"),
    "categories less the first": lambda: encoder(drop="first"),
    "rare categories": lambda: encoder(min_frequency=10, handle_unknown="infrequent_if_exist"),
    "few categories": lambda: encoder(max_categories=3, drop="first", sparse_output=False),
    "bins": lambda: step(KBinsDiscretizer(3, quantile_method="averaged_inverted_cdf")),
    "clusters": lambda: member(KMeans(3, n_init=1)),
    "clusters of batches": lambda: step(MiniBatchKMeans(3, n_init=1)),
    "a graph of neighbours": lambda: step(KNeighborsTransformer()),
    "regression of support vectors": lambda: member(SVR(), MOVES),
    "one class of support vectors": lambda: member(OneClassSVM()),
    "support vectors, nu": lambda: member(NuSVC(nu=0.1)),
    "sparse support vectors": lambda: sparse(SVC()),
    "sparse regression": lambda: sparse(SVR()),
    "sparse coefficients": lambda: member(LogisticRegression(), Y),
    "a kernel computed before": lambda: member(SVC(kernel="precomputed"), Y, bars().to_numpy() @ bars().to_numpy().T),
}


@pytest.mark.parametrize("case", SOUND)
@pytest.mark.filterwarnings("ignore")
def test_what_scikit_learn_fitted_is_sound(case: str, tmp_path: Path) -> None:
    read(SOUND[case]()[0], tmp_path)


def put(name: str, change: Callable[[Any], Any]) -> Callable[[Any], None]:
    def forge(estimator: Any) -> None:
        vars(estimator)[name] = change(getattr(estimator, name))

    return forge


def beyond(array: Any) -> Any:
    changed = array.copy()
    changed[0] = 10**7
    return changed


def forge_column(matrix: Any) -> None:
    matrix.indices[0] = 10**7


FORGED: dict[str, tuple[str, Callable[[Any], None]]] = {
    "a word beyond the columns": ("words", put("vocabulary_", lambda v: dict.fromkeys(v, 10**8))),
    "a word before them": ("weighted words", put("vocabulary_", lambda v: {**v, "ebs": -1})),
    "a word of no column": ("words", put("vocabulary_", lambda v: {**v, "ebs": "0"})),
    "words of another kind": ("words", put("vocabulary_", list)),
    "a hash of no columns": ("hashed words", put("n_features", lambda n: 0)),
    "a hash of too many": ("hashed words", put("n_features", lambda n: 2**40)),
    "fewer columns than categories": ("categories", put("_n_features_outs", lambda n: [1, 1])),
    "columns of one feature": ("categories", put("_n_features_outs", lambda n: n[:1])),
    "categories out of order": ("categories", put("categories_", lambda c: [c[0], c[1][::-1].copy()])),
    "a dropped one before the first": (
        "categories less the first", put("_drop_idx_after_grouping", lambda d: np.array([-5, 0], dtype=object)),
    ),
    "none dropped": ("categories less the first", put("_drop_idx_after_grouping", lambda d: None)),
    "a rare one beyond the columns": (
        "rare categories", put("_default_to_infrequent_mappings", lambda m: [m[0], beyond(m[1])]),
    ),
    "no rare ones": ("rare categories", put("_infrequent_enabled", lambda e: False)),
    "the rare one is none": (
        "few categories", put("_infrequent_indices", lambda of: [i if i is None else i + 10**7 for i in of]),
    ),
    "bins of other categories": (
        "bins", lambda bins: put("_n_features_outs", lambda n: [1] * len(n))(bins._encoder),
    ),
    "centers of fewer features": ("clusters", put("cluster_centers_", lambda c: c[:, :1].copy())),
    "centers of more": ("clusters of batches", put("cluster_centers_", lambda c: np.hstack([c, c]))),
    "a graph of fewer rows": ("a graph of neighbours", put("n_samples_fit_", lambda n: 1)),
    "fewer coefficients": ("regression of support vectors", put("_dual_coef_", lambda c: c[:, :1].copy())),
    "more vectors than there are": ("one class of support vectors", put("_n_support", lambda n: n * 1000)),
    "fewer vectors": ("support vectors, nu", put("support_vectors_", lambda v: v[:2].copy())),
    "fewer sparse coefficients": ("sparse support vectors", put("_dual_coef_", lambda c: c * 0)),
    "sparse only in part": ("sparse support vectors", put("_dual_coef_", lambda c: c.toarray())),
    "sparse not at all": ("sparse regression", put("_sparse", lambda s: False)),
    "a column beyond sparse vectors": ("sparse support vectors", lambda of: forge_column(of.support_vectors_)),
    "a column beyond sparse coefficients": ("sparse coefficients", lambda of: forge_column(of.sparsify().coef_)),
    "a vector beyond the kernel": ("a kernel computed before", put("support_", beyond)),
}  # fmt: skip


@pytest.mark.parametrize("case", FORGED)
@pytest.mark.filterwarnings("ignore")
def test_steps_whose_numbers_do_not_fit_together_are_refused(case: str, tmp_path: Path) -> None:
    kind, forge = FORGED[case]
    estimator, part = SOUND[kind]()
    forge(part)
    if case == "fewer sparse coefficients":
        part._dual_coef_.eliminate_zeros()
    with pytest.raises(ArtifactError, match="which no library writes"):
        read(estimator, tmp_path)


def test_sparse_coefficients_are_read(tmp_path: Path) -> None:
    estimator = LogisticRegression().fit(bars(), Y).sparsify()
    assert read(estimator, tmp_path).predict(bars()).tolist() == estimator.predict(bars()).tolist()


def test_a_tree_that_no_estimator_holds_is_refused() -> None:
    tree = DecisionTreeClassifier().fit(bars(), Y)
    check_estimator(tree)
    vote = VotingClassifier([("one", LogisticRegression())]).fit(bars(), Y)
    vote.estimators_ = [tree.tree_]
    with pytest.raises(ArtifactError, match="a tree that no estimator holds"):
        check_estimator(vote)
    vote.estimators_ = [tree, tree.tree_]
    check_estimator(vote)


@pytest.mark.parametrize("said", ["null", "0", "[]"])
def test_lightgbm_is_not_given_an_address_of_nothing(said: str, tmp_path: Path) -> None:
    def forge(node: dict[str, Any]) -> None:
        if node.get("__class__") == "Booster":
            node["content"]["content"]["_handle"]["content"] = said

    estimator = lightgbm().fit(bars(), Y)
    assert read(estimator, tmp_path).predict(bars()).tolist() == estimator.predict(bars()).tolist()
    with pytest.raises(ArtifactError, match="which no library writes"):
        read(estimator, tmp_path, forge)
