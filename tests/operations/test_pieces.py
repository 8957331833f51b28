"""Lines of the log that are made in C: the bytes that Python would make, in pieces that a pipe takes whole."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fin_pyfunc.serving.logs import pieces
from fin_pyfunc.serving.logs.pieces import Around, pieces_in_python
from fin_pyfunc.serving.timestamps import timestamp

_lines = pytest.importorskip("fin_pyfunc.serving._lines", reason="the module in C was not built: no compiler")

#: Kind to what its lines have around what differs; one of them is not told.
KINDS: dict[str, Around | None] = {
    "predict": (b'{"time":"', b'","request_id":"', b'","seconds":', b',"rows":1}'),
    "bank": (b'{"time":"', '","route":"/büro","request_id":"'.encode(), b'","seconds":', b"}"),
    "probe": None,
}
REQUESTS = st.lists(
    st.tuples(
        st.floats(0, 4e9),
        st.text("0123456789abcdef-._", min_size=1, max_size=128),
        st.floats(0, 1e6) | st.floats(0, 1e-3),
        st.sampled_from(sorted(KINDS)),
    ),
    max_size=40,
)


@given(REQUESTS, st.integers(0, 1000), st.sets(st.sampled_from(sorted(KINDS))))
def test_they_are_those_that_python_makes(
    requests: list[tuple[float, str, float, str]], most: int, known: set[str]
) -> None:
    before = {kind: KINDS[kind] for kind in known}
    made = _lines.pieces(requests, before, KINDS.__getitem__, most)
    assert made == pieces_in_python(requests, before, KINDS.__getitem__, most)
    assert all(len(piece) <= most or piece.count(b"\n") == 1 for piece in made)
    found = [json.loads(line) for line in b"".join(made).splitlines()]
    told = [(timestamp(at), id_, float(f"{seconds:.6f}")) for at, id_, seconds, kind in requests if kind != "probe"]
    assert [(each["time"], each["request_id"], each["seconds"]) for each in found] == told


@pytest.mark.parametrize(
    "requests",
    [
        *([None], [()], [(0.0, "1f", 0.0)], [("now", "1f", 0.0, "predict")], [(0.0, b"1f", 0.0, "predict")]),
        *([(0.0, "1f", None, "predict")], [(0.0, "1f", 0.0, "short")], [(0.0, "1f", 0.0, "text")]),
        [(0.0, "1f", 0.0, [])],
    ],
)
def test_what_is_no_request_is_an_error(requests: list[Any]) -> None:
    kinds: Any = {**KINDS, "short": (b"",), "text": ("",) * 4}
    with pytest.raises(TypeError):
        _lines.pieces(requests, kinds, kinds.__getitem__, 4096)


def test_what_a_kind_is_made_of_may_fail() -> None:
    with pytest.raises(KeyError):
        _lines.pieces([(0.0, "1f", 0.0, "nothing")], {}, KINDS.__getitem__, 4096)


def test_without_the_module_lines_are_made_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [(1.5, "1f", 0.25, "predict")]
    made = pieces.pieces(requests, KINDS, KINDS.__getitem__, 4096)
    monkeypatch.setattr(pieces, "_lines", None)
    assert pieces.pieces(requests, KINDS, KINDS.__getitem__, 4096) == made
