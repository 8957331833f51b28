"""CalibratedClassifierCV (sklearn/calibration.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.program.values import Builder, Value
from fin_pyfunc.model.backends.nameless import type_name
from fin_pyfunc.model.program.calibration import Isotonic, Platt, Temperature
from fin_pyfunc.model.program.links import Link
from fin_pyfunc.model.program.node import Node
from fin_pyfunc.model.program.votes import Average

if TYPE_CHECKING:
    from fin_pyfunc.compiling.program.classifiers import Answers


def calibrated(answers: Answers, estimator: Any, value: Value) -> Value:
    """Add the mean of all calibrated classifiers' probabilities."""
    of = estimator.calibrated_classifiers_
    each = [_calibrated(answers, part, len(estimator.classes_), value) for part in of]
    return answers.builder.add(Average(weights=np.empty(0), divisor=float(len(of))), *each)


def _calibrated(answers: Answers, part: Any, k: int, value: Value) -> Value:
    builder, inner = answers.builder, part.estimator
    if len(inner.classes_) != k:
        raise NotCompilable("a part of the CalibratedClassifierCV has seen fewer classes")
    is_proba = not hasattr(inner, "decision_function")
    scores = answers.probabilities(inner, value) if is_proba else answers.decisions(inner, value)
    if k == 2 and is_proba:
        scores = builder.select(scores, [1])
    if scores.width != (1 if k == 2 else k):
        raise NotCompilable("a part of the CalibratedClassifierCV answers scores that are not one a class")
    if part.method == "temperature":
        if is_proba and answers.is_float32(part.estimator):
            raise NotCompilable("the CalibratedClassifierCV computes in float32, as the probabilities of XGBoost are")
        if k == 2:
            scores = builder.add(Link(how="complement" if is_proba else "pair"), scores)
        return builder.add(Temperature(beta=float(part.calibrators[0].beta_), is_proba=is_proba), scores)
    scores = builder.add(_calibrator(part.calibrators, scores), scores)
    if k == 2:
        return _complement(builder, scores)
    return builder.add(Link(how="shared"), scores)


def _complement(builder: Builder, scores: Value) -> Value:
    made = builder.add(Link(how="complement"), scores)
    return made._replace(is_rounded=scores.is_rounded)  # it is exact


def _calibrator(calibrators: Any, scores: Value) -> Node:
    names = {type_name(each) for each in calibrators}
    if len(calibrators) != scores.width or len(names) != 1:
        raise NotCompilable("a part of the CalibratedClassifierCV has seen fewer classes")
    if names == {"sklearn.calibration._SigmoidCalibration"}:
        slope, intercept = (np.array([getattr(c, name) for c in calibrators], dtype=float) for name in ("a_", "b_"))
        return Platt(slope=slope, intercept=intercept)
    if names != {"sklearn.isotonic.IsotonicRegression"}:
        raise NotCompilable(f"the CalibratedClassifierCV calibrates with {min(names)}")
    if any(each.out_of_bounds != "clip" for each in calibrators):
        raise NotCompilable("the CalibratedClassifierCV refuses scores out of bounds")
    x, y = ([getattr(each, name) for each in calibrators] for name in ("X_thresholds_", "y_thresholds_"))
    kinds = {of.dtype for of in (*x, *y)}
    if len(kinds) != 1:
        raise NotCompilable("the CalibratedClassifierCV mixes float32 with float64")
    return Isotonic(
        sizes=np.array([len(of) for of in x], dtype=np.int64),
        x=np.concatenate(x).astype(np.float64),
        y=np.concatenate(y).astype(np.float64),
        ends=np.array([[each.X_min_, each.X_max_] for each in calibrators], dtype=np.float64),
        is_single=kinds == {np.dtype(np.float32)},
        is_rounded=scores.is_rounded,
    )
