"""An estimator that knows nothing of codes, beside compiled forms that compute with them."""

from __future__ import annotations

from typing import Literal

from fin_pyfunc.model.backends import Backend
from fin_pyfunc.model.decision import Scores
from fin_pyfunc.model.features import FeatureSpec, Table


class DecodedBackend:
    """Scores with another backend, which is given values in place of codes.

    Parameters
    ----------
    backend : Backend
    features : FeatureSpec
        With the codes.
    """

    def __init__(self, backend: Backend, features: FeatureSpec) -> None:
        self.name = backend.name
        self.device: Literal["cpu", "gpu"] = backend.device
        self._backend, self._features = backend, features

    def score(self, table: Table) -> Scores:
        """Class and probabilities of each row; see `Backend.score`."""
        return self._backend.score(self._features.decode(table))
