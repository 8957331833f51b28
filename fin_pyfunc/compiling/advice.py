"""What to use instead of what keeps a model from being compiled: for `inspect`, and for the log when it is logged."""

from __future__ import annotations

import re
from collections.abc import Mapping

from fin_pyfunc.model.features import FeatureSpec
from fin_pyfunc.model.form import Form

#: What a compiled form takes for a row, in words, as benchmarks/results has it.
COMPILED = "less than 0.2 ms"
#: A pattern in the clause that says why there is no form, and what to do about it; the first that fits is taken. What
#: is named as a way out must be compiled.
ADVICE: tuple[tuple[str, str], ...] = (
    (
        r"\bFunctionTransformer\b",
        "functions of NumPy and scipy.special by name are compiled; compute anything else before the model, and log "
        "the model with it as a feature",
    ),
    (
        r"\b(Tfidf|Count|Hashing)Vectorizer\b",
        "free text is not compiled: turn it into numbers or categories before the model",
    ),
    (
        r"\b(KNN|Iterative)Imputer\b",
        "SimpleImputer(add_indicator=True) is compiled, and boosted trees take missing values as they are",
    ),
    (
        r"\b(Kernel|Sparse|MiniBatchSparse)PCA\b|\b(Nystroem|Isomap|NMF|MiniBatchNMF)\b",
        "PCA and TruncatedSVD are compiled",
    ),
    (
        r"\b(SVC|NuSVC|KNeighborsClassifier|RadiusNeighborsClassifier|GaussianProcessClassifier|NearestCentroid|"
        r"LabelPropagation|LabelSpreading)\b",
        "LogisticRegression, HistGradientBoostingClassifier and RandomForestClassifier are compiled",
    ),
    (r"in float32, as|mix float32", "fit it on float64 columns: X.astype('float64')"),
    (r"is datetime, not a number", "compute numbers of it before the model, and log the model with these as features"),
    (
        r"is string, not a number|given text or categories",
        "encode that column by OneHotEncoder, OrdinalEncoder or TargetEncoder, which are compiled",
    ),
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


def unused_line(spec: FeatureSpec) -> str | None:
    """The one line about text and times that an estimator with a compiled form does not use; None where it uses all.

    Parameters
    ----------
    spec : FeatureSpec
    """
    unused = [repr(feature.name) for feature in spec.features if feature.codes == []]
    if not unused:
        return None
    return (
        f"the estimator does not use {', '.join(unused)}: leave that out of X and name it in identifiers=[…], and a "
        "row takes a tenth of the time (it has to be kept as it was sent otherwise)"
    )


def spoken(seconds: float) -> str:
    """A duration as people say it, such as "17 ms" or "15 µs"."""
    scaled, unit = (seconds * 1e6, "µs") if seconds < 1e-3 else (seconds * 1e3, "ms")
    return f"{scaled:.2g} {unit}" if scaled < 100 else f"{scaled:.0f} {unit}"
