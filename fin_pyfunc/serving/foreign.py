"""Classifiers that were not logged by this project, opened in this process."""

from __future__ import annotations

from typing import Any

from fin_pyfunc.model.backends.native import NativeBackend
from fin_pyfunc.model.classifier import Classifier
from fin_pyfunc.model.dispatch import Dispatch
from fin_pyfunc.model.features import FeatureSpec
from fin_pyfunc.model.foreign.estimator import ForeignClassifier, require_classifier


def from_estimator(estimator: Any, signed: FeatureSpec | None, backend: str | None) -> Classifier:
    """A bare estimator, checked against its signature, or against what it knows of its features itself.

    Raises
    ------
    ArtifactError
        It is no classifier.
    """
    return from_foreign(require_classifier(estimator, signed), backend)


def from_foreign(found: ForeignClassifier, backend: str | None) -> Classifier:
    """A foreign classifier with its features."""
    return Classifier.of(found.features, Dispatch([NativeBackend(found.estimator, found.features)], backend or "auto"))
