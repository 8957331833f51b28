"""Lines that are made in C: the bytes that Python would make of the same, whatever a caller sends."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fin_pyfunc.model.decision import Decisions, Scores, Thresholds
from fin_pyfunc.serving.record import entries, lines, notes
from fin_pyfunc.serving.record.lines import START, Position, chained_in_python, digest
from fin_pyfunc.serving.record.notes import Note, bodies_in_python
from tests.record.chains import body

_lines = pytest.importorskip("fin_pyfunc.serving._lines", reason="the module in C was not built: no compiler")

FACTS = b'"model_uri":"models:/m/1","backend":"forest"'
#: JSON as clients send it: with blanks and line breaks between tokens, and with any text within.
SENT = st.builds(
    lambda features, is_ascii, indent: json.dumps(features, ensure_ascii=is_ascii, indent=indent).encode(),
    st.dictionaries(st.text(max_size=8), st.floats(allow_nan=False) | st.text(max_size=8) | st.none(), max_size=5),
    st.booleans(),
    st.sampled_from([None, 0, 1]),
)
DECISIONS = Decisions(
    Scores(classes=[0, 1], index=np.array([1]), probabilities=np.array([[0.25, 0.75]])), Thresholds(), "forest"
)
#: And the answer of each.
NOTES = st.lists(
    st.builds(
        lambda principal, ours, theirs, began, took, answer, sent: (
            (entries.around(principal, FACTS), ours, msgspec.json.encode(theirs), began, began + took, DECISIONS, sent),
            msgspec.json.encode(answer),
        ),
        st.sampled_from([None, "desk", 'a "quoted" name', "büro"]),
        st.text("0123456789abcdef", min_size=1, max_size=32),
        st.none() | st.text(max_size=10),
        st.floats(0, 1e6),
        st.floats(0, 100),
        st.dictionaries(st.sampled_from(["prediction", "probability"]), st.integers(-1, 1) | st.just("Käufe")),
        SENT | st.builds(msgspec.Raw, SENT),
    ),
    max_size=5,
)
#: Seconds since the epoch, of a clock that may be wrong.
OFFSETS = st.floats(-2e6, 4e9)


@given(NOTES, OFFSETS)
def test_bodies_are_those_that_python_makes(answered: list[tuple[Note, bytes]], offset: float) -> None:
    made, answers = [note for note, _ in answered], [answer for _, answer in answered]
    expected = bodies_in_python(made, answers, offset)
    is_ascii = all(bytes(note[-1]).isascii() for note in made)
    assert _lines.bodies(made, answers, offset) == (expected if is_ascii else None)
    assert [json.loads(b"{%b}" % each)["kind"] for each in expected.split(b"\n")[:-1]] == ["prediction"] * len(made)


#: Each with its line break, and none within.
BODIES = st.binary(max_size=200).map(lambda one: one.replace(b"\n", b"") + b"\n")


@given(st.lists(st.lists(BODIES, max_size=5).map(b"".join), max_size=5), st.integers(-1, 2**62))
def test_lines_are_those_that_python_makes(blocks: list[bytes], seq: int) -> None:
    after = Position(seq, digest(b"before"))
    assert lines.chained(after, blocks) == chained_in_python(after, blocks)


def test_openssl_is_found_where_hashlib_has_it() -> None:
    pytest.importorskip("_hashlib")
    assert lines._SHA256


@pytest.mark.parametrize(
    "made",
    [[()], [((b"",) * 7, "id")], [((b"",) * 6, "id", b"null", 0.0, 0.0, b"{}", b"{}")], [None], [("x" * 7,) * 7]],
)
def test_what_is_no_note_is_an_error(made: list[Any]) -> None:
    with pytest.raises(TypeError):
        _lines.bodies(made, [b"{}"], 0.0)


def test_each_note_has_one_answer() -> None:
    with pytest.raises(ValueError, match="one answer"):
        _lines.bodies([], [b"{}"], 0.0)
    with pytest.raises(TypeError):
        _lines.bodies([()], ["{}"], 0.0)


@pytest.mark.parametrize(
    ("position", "wrong"), [(0, 0), (2, b"short"), (3, [b"no line break"])], ids=["address", "digest", "line break"]
)
def test_what_cannot_be_chained_is_an_error(position: int, wrong: Any) -> None:
    arguments: list[Any] = [lines._SHA256, 0, START.sha256.encode(), [body(1) + b"\n"]]
    arguments[position] = wrong
    with pytest.raises(ValueError, match="64 digits"):
        _lines.chained(*arguments)


def test_without_the_module_records_are_made_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    note: Note = (entries.around(None, FACTS), "1f", b"null", 1.0, 1.5, DECISIONS, b'{"x":1}')
    made = notes.bodies([note])
    monkeypatch.setattr(notes, "_lines", None)
    monkeypatch.setattr(lines, "_SHA256", 0)
    record = json.loads(b"{%b}" % notes.bodies([note]))
    assert record["features"] == [{"x": 1}]
    assert record["answers"] == [DECISIONS.one()]
    assert chained_in_python(START, [made]) == lines.chained(START, [made])
