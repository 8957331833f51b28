"""Files of XGBoost models with other bytes in them, and a process that opens them."""

from __future__ import annotations

import copy
import json
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from fin_pyfunc.model.soundness.ubjson import read_ubjson
from tests.test_artifact import folder, sign

MARKS = {">i1": b"i", "int8": b"i", "uint8": b"U", ">i4": b"l", ">i8": b"L", ">f4": b"d"}
#: Opens each model named on its input and asks it for the rows of its example, many times; a line of output for each.
PROGRAM = """
import json, sys
from pathlib import Path
from fin_pyfunc.model.errors import FinPyfuncError
from fin_pyfunc.model import artifact
from fin_pyfunc.model.classifier import Classifier
from tests.test_artifact import folder
for line in sys.stdin:
    where = folder(Path(line.strip()))
    try:
        model = Classifier()
        model.open(where, "native")
        row = json.loads((where / artifact.MANIFEST).read_bytes())["example"]["features"]
        model.decide([row, {**row, "return_1": 1e300}] * 50)
        said = "answered"
    except FinPyfuncError as e:
        said = f"refused: {e}"
    print(said.replace(chr(10), " "), flush=True)
"""


def encoded(value: Any) -> bytes:
    """UBJSON as XGBoost writes it."""
    if isinstance(value, dict):
        return b"{" + b"".join(encoded(name)[1:] + encoded(of) for name, of in value.items()) + b"}"
    if isinstance(value, np.ndarray):
        return b"[$" + MARKS[value.dtype.str if value.dtype.itemsize > 1 else value.dtype.name] + b"#" + count(
            len(value)
        ) + value.tobytes()  # fmt: skip
    if isinstance(value, list):
        return b"[#" + count(len(value)) + b"".join(map(encoded, value))
    if isinstance(value, str):
        return b"S" + count(len(value.encode())) + value.encode()
    if isinstance(value, bool):
        return b"T" if value else b"F"
    if isinstance(value, float):
        return b"d" + struct.pack(">f", value)
    for mark, size in ((b"i", 1), (b"I", 2), (b"l", 4)):
        if -(1 << 8 * size - 1) <= value < 1 << 8 * size - 1:
            return mark + int(value).to_bytes(size, "big", signed=True)
    return count(value)


def count(number: int) -> bytes:
    return b"L" + struct.pack(">q", number)


class Opener:
    """A process that opens models; one that ends is a failure."""

    def __init__(self, original: Path) -> None:
        self.model, self._file = original, folder(original) / "estimator.skops"
        with zipfile.ZipFile(self._file) as archive:
            self._parts = {name: archive.read(name) for name in archive.namelist()}
        self._name = next(name for name, part in self._parts.items() if part.startswith(b"{L"))
        self.content = self._parts[self._name]
        self._process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", PROGRAM],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def opened(self, content: bytes, schema: Callable[[str], str] = str) -> str:
        """What comes of the model with this in the place of XGBoost's bytes."""
        with zipfile.ZipFile(self._file, "w") as archive:
            for name, part in self._parts.items():
                part = schema(part.decode()).encode() if name == "schema.json" else part
                archive.writestr(name, content if name == self._name else part)
        sign(self.model)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{self.model}\n")
        self._process.stdin.flush()
        said = self._process.stdout.readline().strip()
        if not said:
            ended, self._process = self._process.wait(30), self._start()
            raise AssertionError(f"the process ended with {ended}")
        return said

    def close(self) -> None:
        self._process.communicate(timeout=30)


def boosters_changed(change: Callable[[dict[str, Any]], None]) -> Callable[[str], str]:
    """The schema of a skops file with every booster in it changed."""

    def schema(text: str) -> str:
        document = json.loads(text)
        pending = [document]
        while pending:
            node = pending.pop()
            if isinstance(node, dict):
                if node.get("__class__") == "Booster":
                    change(node)
                pending += node.values()
            elif isinstance(node, list):
                pending += node
        return json.dumps(document)

    return schema


class Damaged(bytes):
    """Bytes that say how they were damaged instead of what they are."""

    how: list[str]

    def __repr__(self) -> str:
        return f"{self.how}"


def places(of: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    for step, value in of.items() if isinstance(of, dict) else enumerate(of) if isinstance(of, list) else ():
        yield from places(value, (*path, step))


NUMBERS = st.sampled_from([-(2**31), -7, -1, 0, 1, 2, 3, 5, 100, 2**15, 2**24, 2**31 - 1])
TEXTS = st.sampled_from(
    ["", "-1", "0", "1", "2", "3", "4", "5", "1_0", " 3", "99", "4294967296", "1e9", "nan", "[nan]", "[1,2]", "cuda",
     "gbtree", "gblinear", "dart", "prune", "exact", "multi:softprob", "binary:logistic", "multi:softmax"]
)  # fmt: skip


@st.composite
def damage(draw: st.DrawFn, content: bytes) -> Damaged:
    """One to three values changed for others of their kind, left out or there twice, or bytes overwritten."""
    how: list[str] = []
    if draw(st.integers(0, 4)) == 0:
        changed = bytearray(content)
        for _ in range(draw(st.integers(1, 3))):
            place = draw(st.integers(0, len(content) - 1))
            changed[place] = draw(st.integers(0, 255))
            how.append(f"byte {place} is {changed[place]}")
        return damaged(bytes(changed), how)
    document = copy.deepcopy(read_ubjson(content))
    for _ in range(draw(st.integers(1, 3))):
        if not document:
            break
        path = draw(st.sampled_from(list(places(document))))
        of = document
        for step in path[:-1]:
            of = of[step]
        value = of[path[-1]]
        if draw(st.integers(0, 9)) == 0:
            del of[path[-1]]
        elif isinstance(value, np.ndarray) and len(value):
            with np.errstate(all="ignore"):
                value = value.copy()
                value[draw(st.integers(0, len(value) - 1))] = np.array(draw(NUMBERS)).astype(value.dtype)
            of[path[-1]] = value[: draw(st.sampled_from([len(value), len(value) - 1, 0]))]
        elif isinstance(value, list) and value:
            of[path[-1]] = draw(st.sampled_from([value[:-1], value[1:], [*value, value[0]], value[::-1]]))
        elif isinstance(value, int):
            of[path[-1]] = draw(NUMBERS)
        elif isinstance(value, str):
            of[path[-1]] = draw(TEXTS)
        how.append(f"{path}: {of.get(path[-1]) if isinstance(of, dict) else len(of)}")
    return damaged(encoded(document), how)


def damaged(content: bytes, how: list[str]) -> Damaged:
    made = Damaged(content)
    made.how = how
    return made
