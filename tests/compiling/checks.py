"""Compiling an estimator in a test, and asking its forms through the backends that serve them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from fin_pyfunc.compiling.forms import Compiled, compile_estimator
from fin_pyfunc.model.backends.compiled import CompiledBackend
from fin_pyfunc.model.backends.forest import ForestBackend, is_forest
from fin_pyfunc.model.backends.native import NativeBackend, labels_of
from fin_pyfunc.model.backends.onnx import OnnxBackend
from fin_pyfunc.model.backends.program import ProgramBackend
from fin_pyfunc.model.backends.treelite import TreeliteBackend
from fin_pyfunc.model.backends.trees import TreesBackend
from fin_pyfunc.model.decision import Thresholds
from fin_pyfunc.model.features import FeatureSpec, infer
from fin_pyfunc.model.form import Form
from tests.models import Fitted

#: What LightGBM just takes for 0.
ZERO = float(np.float32(1e-35))
RUNS: dict[str, type[CompiledBackend]] = {
    "trees": TreesBackend, "program": ProgramBackend, "onnx": OnnxBackend, "treelite": TreeliteBackend,
    "forest": ForestBackend,
}  # fmt: skip


class Made(NamedTuple):
    """What came of compiling a model, and where."""

    compiled: Compiled
    native: NativeBackend
    spec: FeatureSpec
    folder: Path

    @property
    def kept(self) -> list[str]:
        """Backends of the forms that were kept, by name."""
        return sorted(form.backend for form in self.compiled.forms)

    def form(self, backend: str) -> Form:
        """The form of a backend."""
        found = [form for form in self.compiled.forms if form.backend == backend]
        assert found, self.compiled.dropped
        return found[0]

    def open(self, form: Form, backend: str | None = None) -> CompiledBackend:
        """The backend that serves a form, or the one of that name."""
        of = RUNS[backend or form.backend]
        return of(self.folder, form, labels_of(self.native.estimator), Thresholds(), self.native)

    def opened(self, forms: Sequence[Form]) -> Iterator[tuple[Form, CompiledBackend]]:
        """Every backend that serves one of these forms."""
        for form in forms:
            yield form, self.open(form)
            if is_forest(form):
                yield form, self.open(form, "forest")


def compiled(model: Fitted, folder: Path, sample: bool = True, **options: Any) -> Made:
    """Compile a model into a folder, with its training data as the sample or without any."""
    spec = infer(model.train)
    rows = matrix(model.train, spec) if sample and spec.is_numeric else None
    found = compile_estimator(model.estimator, spec, labels_of(model.estimator), folder, rows, **options)
    return Made(found, NativeBackend(model.estimator, spec), spec, folder)


def matrix(frame: pd.DataFrame, spec: FeatureSpec) -> np.ndarray[Any, Any]:
    """A frame as the features hand it to a backend."""
    table = spec.check(frame)
    assert isinstance(table, np.ndarray)
    return table


def assert_same(made: Made, rows: np.ndarray[Any, Any], forms: Sequence[Form] | None = None) -> None:
    """Every form answers every row as the estimator does: the same class, and probabilities within its error."""
    own = made.native.score(rows)
    for form, backend in made.opened(made.compiled.forms if forms is None else forms):
        got = backend.score(rows)
        np.testing.assert_array_equal(got.index, own.index, err_msg=backend.name)
        if form.output == "decision":
            assert got.probabilities is None
        elif form.band == 0:
            np.testing.assert_array_equal(got.probabilities, own.probabilities, err_msg=backend.name)
        else:
            # rows that were not compared may be off by more than those that were, but not by a tenth of the band
            assert got.probabilities is not None
            assert own.probabilities is not None
            np.testing.assert_allclose(
                got.probabilities, own.probabilities, rtol=0, atol=form.band / 10, err_msg=backend.name
            )


def odd_rows(made: Made, frame: pd.DataFrame, seed: int = 0) -> np.ndarray[Any, Any]:
    """Rows with a frame's values mixed, rounded, far out, or missing where that is allowed."""
    rng = np.random.default_rng(seed)
    rows = matrix(frame, made.spec)
    mixed = np.column_stack([rng.permutation(rows[:, i]) for i in range(rows.shape[1])])
    far = np.where(rng.random(rows.shape) < 0.2, rng.choice([0.0, -1e30, 1e30, 1e-300, ZERO, -ZERO], rows.shape), mixed)
    rounded = np.round(mixed, rng.integers(0, 7))
    whole = [i for i, f in enumerate(made.spec.features) if f.kind != "number"]
    for i in whole:
        far[:, i] = mixed[:, i]
    made_up = [rows, mixed, rounded, far]
    gaps = mixed.copy()
    for i, feature in enumerate(made.spec.features):
        if feature.nullable:
            gaps[rng.random(len(gaps)) < 0.3, i] = np.nan
        else:
            for block in made_up:
                block[np.isnan(block[:, i]), i] = 0.0
    single = [i for i, f in enumerate(made.spec.features) if f.dtype == "float32"]
    every = np.vstack([*made_up, gaps])
    every[:, single] = np.clip(every[:, single], -3.4e38, 3.4e38).astype(np.float32)
    return every
