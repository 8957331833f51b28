"""A program out of a file whose numbers were changed is refused, or answers something; nothing else comes of it."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fin_pyfunc.model.errors import ArtifactError
from fin_pyfunc.model.program.node import from_builtins
from fin_pyfunc.model.program.program import read, written
from tests.program.test_numeric_steps import fitted

Array = np.ndarray[Any, Any]
#: Steps that together have every node of numbers.
CASES = (
    "KBinsDiscretizer, onehot, uniform", "MinMaxScaler, clipped", "Binarizer", "FeatureUnion, weighed",
    "FunctionTransformer, log1p", "Normalizer", "PolynomialFeatures, degree (2, 3), True, True", "PCA, whitened",
    "PowerTransformer", "PowerTransformer, Box-Cox", "QuantileTransformer, normal", "RBFSampler",
    "SplineTransformer, linear, degree 3", "SplineTransformer, periodic, degree 1",
    "SplineTransformer, error, degree 3", "MissingIndicator, strict",
)  # fmt: skip
NUMBERS = st.sampled_from([0, 1, -1, 2, 7, 1 << 31, -(1 << 40), (1 << 62)])
WORDS = st.sampled_from(
    ["", "os", "system", "log", "eval", "__import__", "sigmoid", "l2", "beyond", "numpy", "multiply"]
)
FLOATS = st.sampled_from([0.0, -1.0, 1e308, float("nan"), float("inf"), -float("inf")])


def arrays(own: Array) -> st.SearchStrategy[list[Any]]:
    """An array as a file has it: of other numbers, another shape, another type, or cut off."""
    shape = st.lists(st.sampled_from([0, 1, 2, 3, *own.shape, 1 << 39]), max_size=3)
    of_type = st.sampled_from(["<f8", "<i8", "|b1", "<f4", "|O", "<U1", "x"])

    def changed(at: int, value: float) -> list[Any]:
        made = np.array(own)
        if made.size:
            with np.errstate(invalid="ignore"):
                made.reshape(-1)[at % made.size] = np.array(value).astype(made.dtype)
        return [made.dtype.str, list(made.shape), made.tobytes()]

    def cast(dtype: str, dims: list[int], content: bytes) -> list[Any]:
        return [dtype, dims, content]

    content = st.sampled_from([own.tobytes(), own.tobytes()[:-1], b"", own.tobytes() * 2])
    by_value = st.builds(changed, st.integers(0, 10_000), st.one_of(FLOATS, NUMBERS.map(float)))
    return st.one_of(by_value, by_value, st.builds(cast, of_type, shape, content))


@pytest.mark.parametrize("case", CASES)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
@pytest.mark.filterwarnings("ignore")
def test_a_forged_step_is_refused_or_answers(case: str, data: st.DataObject) -> None:
    _, train, program = fitted(case)
    forged: Any = msgspec.msgpack.decode(written(program))
    step = data.draw(st.sampled_from(forged["steps"]))
    name = data.draw(st.sampled_from([*(key for key in step["node"] if key != "type"), "of"]))
    own = step["node"].get(name)
    if name == "of":
        step["of"] = data.draw(st.lists(st.integers(-2, 9), max_size=3))
    elif isinstance(own, list):
        step["node"][name] = data.draw(arrays(from_builtins(np.ndarray, own)))
    else:
        step["node"][name] = data.draw(st.one_of(WORDS, NUMBERS, FLOATS, st.booleans()))
    width = program.check()[-1]
    rows = np.vstack([train.to_numpy(dtype=np.float64)[:5], np.full((1, train.shape[1]), np.nan)])
    try:
        read_again = read(msgspec.msgpack.encode(forged), width)
    except ArtifactError:
        return
    with np.errstate(all="ignore"):
        assert read_again(rows).shape == (6, width)
        assert read_again(rows[:1]).shape == (1, width)
