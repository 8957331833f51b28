"""Whether an estimator's class follows from its probabilities, so that `predict` need not be asked as well."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fin_pyfunc.model.backends.nameless import NEIGHBOURS, counts_alike, type_name
from fin_pyfunc.model.decision import Probabilities

#: How far apart two probabilities must be for the greater to be of the greater score, where `predict` compares scores
#: and a probability is a function of them that never falls: far beyond the rounding of exp in float64, and in float32.
CLEAR, CLEAR_IN_FLOAT32 = 1e-9, 1e-5

#: By class: the gap between the two highest probabilities beyond which `predict` is the first maximum of
#: `predict_proba`, by the source of scikit-learn 1.9, LightGBM 4 and XGBoost 3; 0 where `predict` is made of
#: `predict_proba` itself. Any other class is asked (SVC's probabilities come from a model of their own).
_GAPS: Mapping[str, float] = {
    "fin_pyfunc.model.foreign.boosters.BoosterClassifier": 0.0,
    "lightgbm.sklearn.LGBMClassifier": 0.0,
    "sklearn.calibration.CalibratedClassifierCV": 0.0,
    "sklearn.discriminant_analysis.LinearDiscriminantAnalysis": CLEAR,
    "sklearn.discriminant_analysis.QuadraticDiscriminantAnalysis": CLEAR,
    "sklearn.ensemble._bagging.BaggingClassifier": 0.0,
    "sklearn.ensemble._forest.ExtraTreesClassifier": 0.0,
    "sklearn.ensemble._forest.RandomForestClassifier": 0.0,
    "sklearn.ensemble._gb.GradientBoostingClassifier": CLEAR,
    "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.HistGradientBoostingClassifier": CLEAR,
    "sklearn.ensemble._voting.VotingClassifier": 0.0,
    "sklearn.ensemble._weight_boosting.AdaBoostClassifier": CLEAR,
    "sklearn.linear_model._logistic.LogisticRegression": CLEAR,
    "sklearn.linear_model._logistic.LogisticRegressionCV": CLEAR,
    "sklearn.linear_model._stochastic_gradient.SGDClassifier": CLEAR,
    "sklearn.naive_bayes.BernoulliNB": CLEAR,
    "sklearn.naive_bayes.CategoricalNB": CLEAR,
    "sklearn.naive_bayes.ComplementNB": CLEAR,
    "sklearn.naive_bayes.GaussianNB": CLEAR,
    "sklearn.naive_bayes.MultinomialNB": CLEAR,
    "sklearn.neural_network._multilayer_perceptron.MLPClassifier": CLEAR,
    "sklearn.tree._classes.DecisionTreeClassifier": 0.0,
    "sklearn.tree._classes.ExtraTreeClassifier": 0.0,
    "xgboost.sklearn.XGBClassifier": CLEAR_IN_FLOAT32,
}
#: By class: the estimator that gets the same rows, and whose answers are its own.
HANDS_ON: Mapping[str, Callable[[Any], Any]] = {
    "sklearn.frozen._frozen.FrozenEstimator": lambda e: e.estimator,
    "sklearn.model_selection._search.GridSearchCV": lambda e: e.best_estimator_,
    "sklearn.model_selection._search.RandomizedSearchCV": lambda e: e.best_estimator_,
    "sklearn.model_selection._search_successive_halving.HalvingGridSearchCV": lambda e: e.best_estimator_,
    "sklearn.model_selection._search_successive_halving.HalvingRandomSearchCV": lambda e: e.best_estimator_,
    # `base_estimator_` before scikit-learn 1.6
    "sklearn.semi_supervised._self_training.SelfTrainingClassifier": lambda e: (
        e.estimator_ if hasattr(e, "estimator_") else e.base_estimator_
    ),
}
#: Where `predict` is that of a part, and so is `predict_proba`; some of these get other rows.
_PARTS: Mapping[str, Callable[[Any], Any]] = {
    **HANDS_ON,
    "sklearn.ensemble._stacking.StackingClassifier": lambda e: e.final_estimator_,
    "sklearn.pipeline.Pipeline": lambda e: e.steps[-1][1],
}


def gap(estimator: Any, is_given_frames: bool) -> float | None:
    """How far apart the two highest probabilities have to be for the class to be the first of the highest.

    Parameters
    ----------
    estimator : object with `predict_proba`
        Fitted.
    is_given_frames : bool
        Whether it is given DataFrames, rather than matrices.

    Returns
    -------
    float or None
        0 where it always is; None where `predict` has to be asked about every row.
    """
    last = deciding_part(estimator)
    if last is None:
        return None
    name = type_name(last)
    if name == NEIGHBOURS:  # both count the same neighbours
        same_neighbours = counts_alike(last) or (last is estimator and is_given_frames)
        return 0.0 if last.weights == "uniform" and not last.outputs_2d_ and same_neighbours else None
    if getattr(last, "out_activation_", "") == "logistic" and last.n_outputs_ > 1:
        return None  # a network of several labels a row
    if name.startswith("lightgbm.") and callable(last._objective):
        return None
    if name.startswith("xgboost.") and last.objective not in ("binary:logistic", "multi:softprob"):
        return None
    return _GAPS.get(name)


def deciding_part(estimator: Any) -> Any | None:
    """The part whose `predict` and `predict_proba` are the estimator's; None where somebody gave it methods."""
    last = estimator
    while not _has_its_own(last):
        if (part := _PARTS.get(type_name(last))) is None:
            return last
        last = part(last)
    return None


def _has_its_own(estimator: Any) -> bool:
    """Whether somebody gave this very object a method."""
    return not {"predict", "predict_proba"}.isdisjoint(getattr(estimator, "__dict__", ()))


def unclear(probabilities: Probabilities, gap: float) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Rows, by position, whose two highest probabilities are no further apart than `gap`, which is not 0."""
    best, second = highest_two(probabilities)
    return np.flatnonzero(~(best - second > gap))  # NaN is no distance from anything


def highest_two(scores: Probabilities) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The highest and the second score of each row, of shape (n,): minus infinity where there is but one; NaN where
    any is.
    """
    # column by column: along rows of a few numbers NumPy takes ten times as long
    best, second = scores[:, 0], np.full(len(scores), -np.inf)
    for column in scores.T[1:]:
        second = np.maximum(second, np.minimum(best, column))
        best = np.maximum(best, column)
    return best, second
