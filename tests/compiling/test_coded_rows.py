"""Rows that forms of text and categories are compared on."""

from __future__ import annotations

import msgspec
import numpy as np
import pandas as pd
import pytest

from fin_pyfunc.compiling import forms
from fin_pyfunc.compiling.rows import challenge
from fin_pyfunc.model.encoders import with_codes
from fin_pyfunc.model.feature import Feature
from fin_pyfunc.model.features import FeatureSpec, infer
from tests.coded import desk


def spec() -> FeatureSpec:
    return with_codes(infer(desk().train), desk().estimator)


@pytest.mark.parametrize("has_sample", [True, False])
def test_every_code_is_tried_and_every_row_is_one_that_a_client_could_send(has_sample: bool) -> None:
    features = spec()
    sample = features.encode(features.check(desk().train)) if has_sample else None
    plain, made = challenge(desk().estimator, features, sample)
    for rows in (plain, made):
        np.testing.assert_array_equal(features.encode(features.restore(rows)), rows)
        assert not np.signbit(rows[:, :3][~np.isnan(rows[:, :3])]).any()
    tried = [set(made[~np.isnan(made[:, i]), i].tolist()) for i in range(3)]
    assert tried == [{0, 1, 2, 3}, {0, 1, 2}, {0, 1, 2}]  # of a text the last one has no code; a category has none such
    assert np.isnan(made[:, :3]).any(axis=0).tolist() == [feature.nullable for feature in features.features[:3]]


def test_more_codes_than_rows_are_compared_are_all_tried() -> None:
    codes: list[str | int | float | bool] = [f"t{i}" for i in range(6000)]
    text = Feature(name="x", kind="string", dtype="object", codes=codes)
    _, made = challenge(desk().estimator, FeatureSpec(features=[text]), np.zeros((10, 1)))
    assert set(range(6001)) <= set(made[:, 0].tolist())


def test_no_row_has_a_text_that_the_estimators_encoder_refuses() -> None:
    text = Feature(name="x", kind="string", dtype="object", codes=["a", "none", "b"], known=["a", "b"])
    features = FeatureSpec(features=[text])
    plain, made = challenge(desk().estimator, features, None)
    assert set(np.vstack([plain, made])[:, 0].tolist()) == {0, 2}


def test_a_form_that_knows_no_codes_is_not_made(tmp_path: pytest.TempPathFactory) -> None:
    found = forms.compile_estimator(desk().estimator, spec(), [-1, 0, 1], tmp_path, backends=["onnx", "treelite"])  # type: ignore[arg-type]
    assert found.forms == []
    assert set(found.dropped.values()) == {"a feature is category, not a number"}


def test_codes_are_kept_only_for_forms_that_compute_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    form = forms.Form(backend="onnx", file="model.onnx")
    assert forms.coded_for([form], spec()) is None
    monkeypatch.setattr(forms, "CODED", frozenset({"onnx"}))
    monkeypatch.setattr(forms, "backends_of", lambda *_: ("onnx",))
    assert forms.coded_for([form], spec()) == spec()
    assert forms.coded_for([], spec()) is None
    assert forms.why_not(desk().estimator, spec()) is None
    assert forms.why_not(desk().estimator, infer(desk().train)) is not None
    mixed = msgspec.structs.replace(spec(), features=[*spec().features, *infer(pd.DataFrame({"t": ["a"]})).features])
    assert forms.why_not(desk().estimator, mixed) is not None
