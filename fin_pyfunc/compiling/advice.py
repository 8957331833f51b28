"""What to use instead of what keeps a model from being compiled: for `inspect`, and for the log when it is logged."""

from __future__ import annotations

import re
from collections.abc import Mapping

from fin_pyfunc.model.form import Form

#: What a compiled form takes for a row, in words, as benchmarks/results has it for forests, boosting and linear models.
COMPILED = "less than 0.2 ms"
#: A pattern in the clause that says why there is no form, and what to do about it; the first that fits is taken. What
#: is named as a way out must be compiled.
ADVICE: tuple[tuple[str, str], ...] = (
    (
        r"\bFunctionTransformer\b",
        "compute that column before the model, and log the model with it as a feature",
    ),
    (
        r"\b(Tfidf|Count|Hashing)Vectorizer\b",
        "free text is not compiled: turn it into numbers or categories before the model",
    ),
    (
        r"\bQuantileTransformer\b",
        "StandardScaler and RobustScaler are compiled, and trees need no scaling",
    ),
    (
        r"\b(KNN|Iterative)Imputer\b",
        "SimpleImputer(add_indicator=True) is compiled, and boosted trees take missing values as they are",
    ),
    (
        r"\b(Kernel|Sparse|Incremental|MiniBatchSparse)PCA\b|\b(Nystroem|RBFSampler|Isomap|FastICA|NMF)\b",
        "PCA before a linear classifier is compiled",
    ),
    (
        r"\b(SVC|NuSVC|KNeighborsClassifier|RadiusNeighborsClassifier|GaussianProcessClassifier|NearestCentroid|"
        r"LabelPropagation|LabelSpreading)\b",
        "LogisticRegression, HistGradientBoostingClassifier and RandomForestClassifier are compiled",
    ),
    (r"in float32, as its features are|mix float32", "fit it on float64 columns: X.astype('float64')"),
    (
        r"is category, not a number|it takes categories|splits on categories",
        "encode the categories before the model, and log it with their codes as features",
    ),
    (r"is (string|datetime), not a number", "encode that column before the model, and log it with numbers as features"),
    (r"takes a number for a missing value", "fit it with missing=nan, and NaN in the columns"),
    (
        r"counts votes|neither probabilities nor decision values",
        "VotingClassifier with voting='soft' has probabilities",
    ),
    (r"leaves are linear models", "linear_tree=False is compiled"),
    (r"\(init\)", "boosting without init= is compiled"),
    (
        r"is no estimator of a library that can be compiled",
        "classifiers of scikit-learn, LightGBM and XGBoost are compiled",
    ),
    (r"it needs \w+, which is not installed", "install that package, and log the model again"),
)


def advise(clause: str) -> str | None:
    """What to use instead, in a clause; None where nothing is known.

    Parameters
    ----------
    clause : str
        Why there is no compiled form, as `Compiled.dropped` has it.
    """
    return next((advice for pattern, advice in ADVICE if re.search(pattern, clause)), None)


def why_native(forms: list[Form], dropped: Mapping[str, str]) -> str | None:
    """Which step keeps a model from being compiled, and what to use instead; None for a model with a compiled form.

    Parameters
    ----------
    forms : list of Form
    dropped : mapping of str to str
        By backend, why there is no such form.
    """
    if forms or not dropped:
        return None
    clauses = list(dict.fromkeys(dropped.values()))
    # the row program says which step it was, and ONNX for whom it converts; others only that it is no tree
    named = [clause for clause in clauses if re.search(r"\bstep\b", clause)]
    known = [clause for clause in clauses if advise(clause) is not None]
    clause = (named or known or clauses)[0]
    advice = advise(clause)
    return clause if advice is None else f"{clause}; {advice}"


def slow_line(why: str, seconds: float) -> str:
    """The one line about a model that only the estimator itself answers.

    Parameters
    ----------
    why : str
        As `why_native` has it.
    seconds : float
        What it takes for a row.
    """
    return f"the estimator itself answers, in {spoken(seconds)} a row where a compiled form takes {COMPILED}: {why}"


def spoken(seconds: float) -> str:
    """A duration as people say it, such as "17 ms" or "15 µs"."""
    scaled, unit = (seconds * 1e6, "µs") if seconds < 1e-3 else (seconds * 1e3, "ms")
    return f"{scaled:.2g} {unit}" if scaled < 100 else f"{scaled:.0f} {unit}"
