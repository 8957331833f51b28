"""One file a way of computing probabilities, and the protocol they share."""

from __future__ import annotations

from typing import Literal, Protocol

from fin_pyfunc.model.decision import Scores
from fin_pyfunc.model.features import Table


class Backend(Protocol):
    """A way of computing a model's scores on this machine."""

    @property
    def name(self) -> str:
        """What `backend=` calls it and `X-Model-Backend` says, such as "native"."""

    @property
    def device(self) -> Literal["cpu", "gpu"]:
        """Where it computes."""

    def score(self, table: Table) -> Scores:
        """Class and probabilities of each row.

        Parameters
        ----------
        table : ndarray of shape (n_rows, n_features), float64, or DataFrame
            What `FeatureSpec` made of the rows.

        Raises
        ------
        ScoringError
            The estimator raised, or answered something that is not a prediction.
        """


def asks_for(wanted: str, name: str, device: str) -> bool:
    """Whether `backend=wanted` means a backend: by its device, by its name, or by the part of it before a device's."""
    return wanted in ("auto", device, name, name.removesuffix(f"-{device}"))
