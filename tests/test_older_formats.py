"""Models logged by earlier versions keep loading, and answer as they did."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest

import fin_pyfunc
from fin_pyfunc.model import artifact
from tests.test_artifact import FIXTURES, folder


@pytest.mark.parametrize(("version", "backends"), [(1, ["native"]), (2, ["forest", "native"])])
def test_a_model_of_an_earlier_format_keeps_loading_and_answers_as_it_did(version: int, backends: list[str]) -> None:
    """A logistic regression (format 1) and a forest with its compiled forms (format 2) by fin_pyfunc 0.1.0; the wheel
    and the machine's paths in MLmodel were taken out.
    """
    path = FIXTURES / f"artifact-v{version}"
    assert json.loads((folder(path) / artifact.MANIFEST).read_bytes())["format"] == version
    model = fin_pyfunc.load_model(str(path))
    assert model.manifest is not None
    assert model.manifest.format == artifact.FORMAT
    assert [backend.name for backend in model.dispatch.backends] == backends
    recorded = model.manifest.example
    for backend in [*backends, *(form.backend for form in model.manifest.forms)]:
        answer = fin_pyfunc.load_model(str(path), backend=backend).predict_one(recorded.features)
        assert answer["prediction"] == recorded.prediction
        assert recorded.probabilities is not None
        np.testing.assert_allclose(list(answer["probabilities"].values()), recorded.probabilities, rtol=0, atol=1e-9)
        assert list(answer["probabilities"]) == ["-1", "0", "1"]
    assert model.thresholds.high == 0.7
    assert model.predict(pd.DataFrame([recorded.features]))["prediction"].tolist() == [recorded.prediction]


def test_the_fixtures_name_no_path_of_the_machine_they_were_made_on() -> None:
    for file in FIXTURES.rglob("*"):
        if file.is_file() and file.suffix not in (".skops", ".onnx", ".treelite", ".pyc"):
            assert not re.search(r"file:/|: *['\"]?/", file.read_text())
