"""Which compiled forms are opened, and what their times are taken to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fin_pyfunc
from fin_pyfunc.model.backends.forms import open_forms
from fin_pyfunc.model.backends.native import LazyNative, NativeBackend
from fin_pyfunc.model.decision import Thresholds
from fin_pyfunc.model.dispatch import Dispatch
from fin_pyfunc.model.plan import Times
from tests import models
from tests.test_plan import Clocked


def test_a_form_that_is_never_the_faster_one_is_opened_only_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fin_pyfunc.model.backends.forest.is_forest", lambda _: False)
    fitted = models.small_forest()
    fin_pyfunc.save_model(fitted.estimator, fitted.train, tmp_path / "model", input_example=None, backend="onnx")
    manifest = fin_pyfunc.load_model(str(tmp_path / "model")).manifest
    assert manifest is not None
    folder = tmp_path / "model" / "artifacts" / "fin_pyfunc"
    native = LazyNative(lambda: NativeBackend(fitted.estimator, manifest.features))
    assert {form.backend for form in manifest.forms} == {"onnx", "treelite"}
    forms = sorted(manifest.forms, key=lambda form: form.backend)  # onnx is the one to prefer

    def opened(of_treelite: Times, wanted: str = "auto") -> list[str]:
        times: dict[str, Times] = {"onnx": {1: 1.0, 100: 50.0}, "treelite": of_treelite}
        found = open_forms(folder, forms, times, manifest.classes, Thresholds(), native, wanted)  # type: ignore[union-attr]
        return [backend.name for backend in found]

    assert opened({1: 2.0, 100: 45.0}) == ["onnx"]  # a tenth may be noise
    assert opened({1: 2.0, 100: 20.0}) == ["onnx", "treelite"]
    assert opened({1: 2.0, 100: 90.0}, "treelite") == ["treelite"]
    assert opened({1: 2.0, 100: 20.0}, "native") == []


def test_beyond_what_is_measured_times_follow_those_of_when_it_was_logged() -> None:
    """Two backends that are alike on few rows: which is the better one for many was measured when there was time."""
    one, other = Clocked("onnx", 0.0, 1e-4), Clocked("treelite", 0.0, 1e-4)
    few = {1: 1e-4, 10: 1e-3}
    dispatch = Dispatch([one, other], logged={"onnx": few | {1000: 9.0}, "treelite": few | {1000: 0.1}})
    dispatch.measure(np.zeros((10, 1)))
    assert dispatch.choose(1000) is other
