"""What tests ask of a model in a host."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd

from fin_pyfunc.model.errors import ModelUnavailableError
from fin_pyfunc.serving.hosts.hosted_model import HostedModel
from tests.hosts.processes import wait_for

SECRET = "s3cret-of-the-server"
FRAME = pd.DataFrame({"x": [1.0, -1.0]})


def rows_that(number: int) -> pd.DataFrame:
    return pd.DataFrame({"x": [float(number)]})


def labels_of(model: HostedModel, table: Any) -> list[Any]:
    scores = model.backend.score(table)
    return [scores.classes[i] for i in scores.index]


def pid_of(model: HostedModel) -> int:
    """The host's."""
    return int(surroundings(model)["pid"])


def surroundings(model: HostedModel) -> dict[str, Any]:
    seen: dict[str, Any] = json.loads("".join(labels_of(model, pd.DataFrame({"x": np.zeros(20)}))))
    return seen


def answers_again(model: HostedModel, seconds: float = 30.0) -> None:
    """It is back; how soon is for `benchmarks.outage` to say."""

    def answers() -> bool:
        try:
            return labels_of(model, FRAME) == ["up", "down"]
        except ModelUnavailableError:
            return False

    wait_for(answers, seconds)
