"""Made-up URIs, bodies and files: an answer or one of our errors, never anything else, never the end of the process.

What once went wrong, or is likely to, is kept in `seeds/`, one file a kind, and is tried each time.
"""

from __future__ import annotations

import base64
import contextlib
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fin_pyfunc.model import artifact
from fin_pyfunc.model.errors import FeatureError, FinPyfuncError, ModelUriError
from fin_pyfunc.serving.decode import open_batch_envelope, open_envelope, read_row, read_rows
from fin_pyfunc.serving.errors import RequestError
from fin_pyfunc.serving.model_folder import classify
from fin_pyfunc.serving.snapshot import describe
from fin_pyfunc.serving.uris import parse
from tests.test_artifact import FIXTURES, folder, record, sign

SEEDS = Path(__file__).with_name("seeds")


def seeds(name: str) -> list[str]:
    return [json.loads(line) for line in (SEEDS / f"{name}.jsonl").read_text().splitlines()]


# --- URIs

hostile = st.sampled_from(seeds("uris"))
pieces = st.sampled_from(
    ["/", "..", ".", "%2e", "%", "\\", "#", "?", ";", "@", ":", "//", "\0", "\n", " ", "models", "é"]
)


def assert_strict(text: str) -> None:
    try:
        uri = parse(text)
    except ModelUriError:
        return
    assert str(uri) == text
    assert not set("\\%#?;") & set(text)
    assert text.isprintable()
    assert text.split(":")[0] in ("runs", "models", "file")
    assert not {".", ".."} & set(text.split("/"))
    assert "//" not in text.removeprefix("file://")


@pytest.mark.parametrize("text", seeds("uris"))
def test_a_kept_uri_is_refused(text: str) -> None:
    with pytest.raises(ModelUriError):
        parse(text)


@given(hostile, st.lists(st.tuples(st.integers(0, 80), pieces), max_size=4), st.text(max_size=8))
def test_whatever_becomes_of_a_uri_it_is_read_strictly(text: str, inserted: list[tuple[int, str]], end: str) -> None:
    for place, piece in inserted:
        text = text[:place] + piece + text[place:]
    assert_strict(text)
    assert_strict(text + end)


# --- bodies


@pytest.fixture(scope="module")
def model() -> Any:
    from fin_pyfunc.model.classifier import Classifier

    opened = Classifier()
    opened.open(folder(FIXTURES / "artifact-v2"), "native")
    return opened


def read(body: bytes, model: Any) -> None:
    for what in (
        lambda: read_row(open_envelope(body), model, 100),
        lambda: read_rows(open_batch_envelope(body), model, 100, 100),
    ):
        with contextlib.suppress(RequestError, FeatureError):
            what()


@pytest.mark.parametrize("text", seeds("bodies"))
def test_a_kept_body_is_read_or_refused(text: str, model: Any) -> None:
    body = base64.b64decode(text)
    read(body, model)
    for cut in range(0, len(body), max(1, len(body) // 40)):
        read(body[:cut], model)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["return_1", "order_flow_imbalance", "features", "features_list", "model_uri", "x"])
BODIES = st.dictionaries(NAMES, VALUES | st.dictionaries(NAMES, VALUES) | st.lists(st.dictionaries(NAMES, VALUES)))


@given(
    st.binary(max_size=200) | BODIES.map(lambda body: json.dumps(body).encode()),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=3),
)
def test_whatever_a_body_holds_it_is_read_or_refused(model: Any, body: bytes, changes: list[tuple[int, int]]) -> None:
    changed = bytearray(body)
    for place, octet in changes:
        if place < len(changed):
            changed[place] = octet
    read(bytes(body), model)
    read(bytes(changed), model)


# --- files

#: Opens an artifact once for each damage, each signed anew, and scores a row: in a process of its own, so that what
#: ends a process ends that one alone.
PROGRAM = """
import sys
from tests.security.test_fuzz import damage_many
damage_many(*sys.argv[1:])
"""


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Some bytes changed, cut out, doubled, or numbers put to where they hurt."""
    changed = bytearray(content)
    for _ in range(chance.randrange(1, 4)):
        place = chance.randrange(len(changed))
        match chance.randrange(4):
            case 0:
                changed[place] = chance.randrange(256)
            case 1:
                del changed[place : place + chance.randrange(1, 9)]
            case 2:
                changed[place:place] = changed[place : place + chance.randrange(1, 9)]
            case _:
                number = chance.choice([-1, 0, 1, 2**31 - 1, -(2**31), 2**40])
                width = chance.choice([4, 8])
                changed[place : place + width] = (number % 2 ** (8 * width)).to_bytes(width, "little")
    return bytes(changed)


def damage_many(source: str, name: str, backend: str, first: str, count: str) -> None:
    """What `PROGRAM` does."""
    from fin_pyfunc.model.classifier import Classifier

    where = folder(Path(source))
    file = where / name if name != "MLmodel" else Path(source) / name
    whole = file.read_bytes()
    row = json.loads((where / artifact.MANIFEST).read_bytes())["example"]["features"]
    for seed in range(int(first), int(first) + int(count)):
        file.write_bytes(damaged(whole, random.Random(seed)))
        try:
            if name == "MLmodel":
                classify(describe(Path(source)))
                continue
            (record if name == artifact.MANIFEST else sign)(Path(source))
            model = Classifier()
            model.open(where, backend)
            model.decide([row, {**row, "return_1": 1e300}])
        except FinPyfuncError:
            pass
        except Exception as e:
            raise AssertionError(f"damage {seed} of {name} raised {type(e).__name__}: {e}") from e
    file.write_bytes(whole)


def run_damage(source: Path, name: str, backend: str, first: int, count: int) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, str(source), name, backend, str(first), str(count)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-2000:]}"


FILES = [
    ("artifact-v2", "model.onnx", "onnx"),
    ("artifact-v2", "trees.treelite", "treelite"),
    ("artifact-v2", "trees.treelite", "forest"),
    ("artifact-v2", "estimator.skops", "native"),
    ("artifact-v2", "manifest.json", "auto"),
    ("artifact-v1", "estimator.skops", "native"),
    ("artifact-v2", "MLmodel", "auto"),
]


@pytest.mark.parametrize(("fixture", "name", "backend"), FILES)
def test_a_damaged_file_with_right_digests_is_an_error_and_never_a_crash(
    fixture: str, name: str, backend: str, tmp_path: Path
) -> None:
    source = tmp_path / "model"
    shutil.copytree(FIXTURES / fixture, source)
    for seed in seeds("damages"):
        kind, _, number = seed.partition(" ")
        if kind == name:
            run_damage(source, name, backend, int(number), 1)
    run_damage(source, name, backend, 0, 40)


@pytest.mark.long
@pytest.mark.parametrize(("fixture", "name", "backend"), FILES)
def test_thousands_of_damaged_files_are_errors_and_never_a_crash(
    fixture: str, name: str, backend: str, tmp_path: Path
) -> None:
    source = tmp_path / "model"
    shutil.copytree(FIXTURES / fixture, source)
    run_damage(source, name, backend, 1000, 1000)
