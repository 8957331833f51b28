"""Files of trees, damaged and forged: each is refused, or answers numbers; nothing reaches beyond its arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fin_pyfunc.model.backends import tree_walk
from fin_pyfunc.model.backends.trees import runner
from fin_pyfunc.model.errors import ArtifactError
from fin_pyfunc.model.tree_file import CATEGORICAL, Trees, read, written
from tests.compiling.test_trees import WIDTH, fitted

Array = np.ndarray[Any, Any]


def test_a_file_is_read_as_it_was_written() -> None:
    _, X, trees = fitted("XGBoost", 3)
    again = read(written(trees), 3)
    np.testing.assert_array_equal(runner(again)(X), runner(trees)(X))


# --- what no library writes


def changed(trees: Trees, name: str, at: int, value: Any) -> Trees:
    array = getattr(trees, name).copy()
    array[at] = value
    return trees._replace(**{name: array})


def shortened(name: str) -> Callable[[Trees], Trees]:
    return lambda trees: trees._replace(**{name: getattr(trees, name)[:-1]})


def branch_of(trees: Trees) -> int:
    return int(np.flatnonzero(trees.left >= 0)[1])


#: What is wrong, of which estimator, and how it comes about.
FORGED: dict[str, tuple[str, Callable[[Trees], Trees]]] = {
    "a child beyond the nodes": ("", lambda t: changed(t, "left", branch_of(t), len(t.left))),
    "a child that is the root": ("", lambda t: changed(t, "right", branch_of(t), 0)),
    "a node below itself": ("", lambda t: changed(t, "left", branch_of(t), branch_of(t))),
    "a feature beyond the row": ("", lambda t: changed(t, "feature", branch_of(t), WIDTH)),
    "a negative feature": ("", lambda t: changed(t, "feature", branch_of(t), -1)),
    "a root beyond the nodes": ("", lambda t: changed(t, "roots", 0, len(t.left))),
    "a score that there is not": ("", lambda t: changed(t, "target", 0, 3)),
    "a negative score": ("", lambda t: changed(t, "target", 0, -1)),
    "a threshold that is none": ("", lambda t: changed(t, "threshold", branch_of(t), np.nan)),
    "scores of fewer classes": ("", shortened("base")),
    "no features": ("", lambda t: t._replace(n_features=0)),
    "too few targets": ("", shortened("target")),
    "a leaf beyond the values": ("", lambda t: changed(t, "item", leaf_of(t), len(t.values))),
    "a leaf before the values": ("", lambda t: changed(t, "item", leaf_of(t), -1)),
    **{f"too few items of {name}": ("", shortened(name))
       for name in ("left", "right", "feature", "threshold", "flags", "item", "values")},
    "a divisor of 0": ("", lambda t: t._replace(arithmetic=msgspec.structs.replace(t.arithmetic, divisor=0.0))),
    "flags that there are not": ("", lambda t: changed(t, "flags", branch_of(t), 16)),
    "categories that there are not": (", categories", lambda t: changed(t, "item", split_of(t), 10**6)),
    "categories below 0": (", categories", lambda t: changed(t, "threshold", split_of(t), -9.0)),
    "categories before the first": (", categories", lambda t: changed(t, "item", split_of(t), -1)),
    "categories beyond their bits": (", categories", shortened("categories")),
    "categories that go back": (", categories", lambda t: changed(t, "category_starts", 1, len(t.categories) + 1)),
    "no categories": (", categories", lambda t: t._replace(category_starts=t.category_starts[:0])),
    "terms beyond the leaves": (", linear leaves", shortened("linear_starts")),
    "terms that go back": (", linear leaves", lambda t: changed(t, "linear_starts", 1, len(t.linear_slope) + 1)),
    "terms without a slope": (", linear leaves", shortened("linear_slope")),
    "terms of a feature beyond the row": (", linear leaves", lambda t: changed(t, "linear_feature", 0, WIDTH)),
    "terms of a negative feature": (", linear leaves", lambda t: changed(t, "linear_feature", 0, -1)),
    "leaves without what stands for them": (", linear leaves", shortened("linear_missing")),
    "zeros of fewer features": (", linear leaves", shortened("zeros")),
    "codes beyond the features": ("hist", shortened("code_starts")),
    "codes that go back": ("hist", lambda t: changed(t, "code_starts", 1, len(t.codes) + 1)),
    "too few codes": ("hist", shortened("codes")),
}  # fmt: skip
#: What leads the module itself nowhere.
HARMLESS = {
    "a threshold that is none", "scores of fewer classes", "a node below itself", "a divisor of 0",
    "flags that there are not", "categories below 0",
}  # fmt: skip


def leaf_of(trees: Trees) -> int:
    return int(np.flatnonzero(trees.left < 0)[1])


def split_of(trees: Trees) -> int:
    return int(np.flatnonzero(trees.flags & CATEGORICAL)[0])


def forged(what: str) -> Trees:
    of, forge = FORGED[what]
    name = "hist gradient boosting, categories" if of == "hist" else f"LightGBM{of}"
    return forge(fitted(name, 3)[2])


@pytest.mark.parametrize("what", FORGED)
def test_a_file_whose_numbers_do_not_fit_together_is_refused(what: str) -> None:
    with pytest.raises(ArtifactError, match="which no library writes"):
        read(written(forged(what)), 3)


@given(
    name=st.sampled_from(["hist gradient boosting, categories", "LightGBM, linear leaves", "XGBoost", "forest"]),
    cut=st.floats(0, 0.999),
    flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=8),
)
@settings(max_examples=200, deadline=None)
def test_a_damaged_file_is_refused_or_answers_numbers(name: str, cut: float, flips: list[tuple[float, int]]) -> None:
    _, X, trees = fitted(name, 3)
    content = bytearray(written(trees))
    for where, value in flips:
        content[int(where * len(content))] = value
    if cut > 0.8:
        content = content[: int(cut * len(content))]
    try:
        damaged = read(bytes(content), 3)
    except ArtifactError:
        return
    if damaged.n_features == WIDTH:
        with np.errstate(all="ignore"):
            assert runner(damaged)(X).shape == (len(X), 3)
            tree_walk.sums(damaged)(X, np.empty((len(X), len(damaged.base))))


def made_by_the_module(trees: Trees) -> Any:
    from fin_pyfunc.model.backends._trees import Trees as Made

    arrays = tuple(trees.arrays().values())
    return Made(trees.n_features, trees.width, trees.arithmetic.rounds, False, np.nan, 1.0, arrays)


@pytest.mark.parametrize("what", sorted(FORGED.keys() - HARMLESS))
def test_the_module_itself_refuses_what_would_reach_beyond_its_arrays(what: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        made_by_the_module(forged(what))


@pytest.mark.parametrize("what", sorted(HARMLESS))
def test_the_module_ends_with_whatever_else_it_is_given(what: str) -> None:
    _, X, _ = fitted("LightGBM", 3)
    trees = forged(what)
    try:
        made = made_by_the_module(trees)
    except ValueError:
        return
    made.score(X, np.empty((len(X), len(trees.base))))


@pytest.mark.parametrize(
    ("X", "out", "error"),
    [
        (np.zeros((1, 3)), np.zeros((1, 3)), ValueError),
        (np.zeros((2, 6)), np.zeros((1, 3)), ValueError),
        (np.zeros((1, 6)), np.zeros((1, 2)), ValueError),
        (np.zeros((1, 6), dtype=np.float32), np.zeros((1, 3)), TypeError),
        (np.zeros((1, 6), dtype=">f8"), np.zeros((1, 3)), TypeError),
        (np.zeros(6), np.zeros((1, 3)), TypeError),
        (np.zeros((6, 12)).T[:, ::2], np.zeros((12, 3)), (ValueError, BufferError)),
        (np.zeros((1, 6)), np.broadcast_to(np.zeros(3), (1, 3)), (ValueError, BufferError)),
        ([[0.0] * 6], np.zeros((1, 3)), TypeError),
    ],
)
def test_rows_and_answers_of_another_shape_or_kind_are_refused(X: Any, out: Any, error: Any) -> None:
    made = made_by_the_module(fitted("LightGBM", 3)[2])
    with pytest.raises(error):
        made.score(X, out)


def test_a_head_of_another_kind_is_refused() -> None:
    _, _, trees = fitted("LightGBM", 2)
    for content in (b"", b"\x80", msgspec.msgpack.encode({"n_features": 6}), written(trees) + b"\x00"):
        with pytest.raises(ArtifactError, match="cut off or damaged"):
            read(content, 2)
    with pytest.raises(ArtifactError, match="another number of classes"):
        read(written(trees), 3)
