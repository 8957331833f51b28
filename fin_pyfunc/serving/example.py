"""Whether a model still answers as it did when it was logged: it carries one row, and the estimator's answer to it."""

from __future__ import annotations

import numpy as np

from fin_pyfunc.model.backends.native import LazyNative
from fin_pyfunc.model.classifier import Classifier
from fin_pyfunc.model.errors import ExampleError, FeatureError, ScoringError

#: How far a probability may be off on another machine with other versions of libraries, by rounding alone.
ROUNDING = 1e-6


def check_example(model: Classifier) -> None:
    """Ask every backend in memory about the recorded row.

    Parameters
    ----------
    model : Classifier
        One that was not logged by this project has no such row, and passes.

    Raises
    ------
    ExampleError
        A backend answers another class, or a probability that is off by more than the model's tolerance; or none.
    """
    manifest = model.manifest
    if manifest is None:
        return
    expected, within = manifest.example, max(ROUNDING, manifest.tolerance)
    try:
        table = model.table([expected.features])
        for backend in model.dispatch.backends:
            if isinstance(backend, LazyNative) and not backend.is_loaded:
                continue
            scores = backend.score(table)
            same = scores.classes[scores.index[0]] == expected.prediction
            if expected.probabilities is not None and scores.probabilities is not None:
                same = same and np.allclose(scores.probabilities[0], expected.probabilities, rtol=0, atol=within)
            if not same:
                raise ExampleError(
                    "The model does not answer its recorded example as it did when it was logged: install the versions "
                    "of its libraries that 'fin-pyfunc inspect' lists, or log the model again."
                )
    except (FeatureError, ScoringError) as e:
        raise ExampleError("The model cannot score the example that was recorded in it: log the model again.") from e
