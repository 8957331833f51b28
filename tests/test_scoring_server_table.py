"""Requests to `/invocations` as MLflow's clients and its own tests have them: MLflow's answers are ours.

Where MLflow answers 200 the body is the same, byte for byte. Where it refuses, our status may be another one, and only
in the ways that docs/migration.md names.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import ModelSignature
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import Array, Object, Property
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

import fin_pyfunc
from fin_pyfunc.serving.record.export import export_parquet
from fin_pyfunc.serving.record.reading import entries
from tests.models import bars, labels
from tests.scoring_pair import CSV, JSON, PARQUET, Pair, pair

#: What a model may answer, by what the test asks it for.
ANSWERS: dict[str, Callable[[], Any]] = {
    "a number": lambda: 1,
    "a NumPy number": lambda: np.float32(0.5),
    "a text": lambda: "up",
    "nothing": lambda: None,
    "a boolean": lambda: np.bool_(True),
    "NaN": lambda: float("nan"),
    "a dict": lambda: {"class": 1, "scores": np.array([0.25, 0.75])},
    "a dict with predictions": lambda: {"predictions": [1]},
    "no rows": list,
    "a row too many": lambda: [1, 0, 1, 0],
    "lists of unlike lengths": lambda: [[1], [2, 3]],
    "a tuple": lambda: (1, 2),
    "dicts": lambda: [{"class": 1}, {"class": None}],
    "texts and numbers": lambda: ["up", 1],
    "a Series": lambda: pd.Series([1, 0]),
    "a named Series": lambda: pd.Series([1.5, None], name="score"),
    "a Series of times": lambda: pd.Series(pd.to_datetime(["2026-01-01", "2026-01-02"])),
    "a DataFrame": lambda: pd.DataFrame({"class": ["up", "down"], "p": [0.75, 0.5]}),
    "a DataFrame with an index": lambda: pd.DataFrame({"p": [0.75, 0.5]}, index=["a", "b"]),
    "an array": lambda: np.array([1, 0]),
    "an array of no dimension": lambda: np.array(3.5),
    "an array of three dimensions": lambda: np.zeros((2, 1, 2)),
    "an array of objects": lambda: np.array(["up", None], dtype=object),
    "a date": lambda: [datetime.date(2026, 1, 1)],
    "bytes": lambda: [b"ab"],
    "a set": lambda: {1, 2},
    "a Decimal": lambda: [Decimal("1.5")],
}
#: MLflow's encoder has no word for these: it fails with a 500, and so do we.
UNSPEAKABLE = ("a set", "a Decimal")
CAME = "what came"


class Told(mlflow.pyfunc.PythonModel):  # type: ignore[misc] # mlflow ships no types
    """Answers with what it is told to by the first text that it is sent; else with what came, and the parameters."""

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        plain = model_input.to_dict("records") if isinstance(model_input, pd.DataFrame) else model_input
        if isinstance(plain, dict):
            plain = {name: np.asarray(value).tolist() for name, value in plain.items()}
        if isinstance(plain, np.ndarray):
            plain = plain.tolist()
        first: Any = plain
        while isinstance(first, list | dict) and first:
            first = next(iter(first.values())) if isinstance(first, dict) else first[0]
        if first == "raise":
            raise RuntimeError(f"the input was {first}")
        if isinstance(first, str) and first in ANSWERS:
            return ANSWERS[first]()
        return {
            "type": type(model_input).__name__,
            "came": json.loads(json.dumps(plain, default=str)),
            "params": params,
        }


class Hinted(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Says by a type hint what it takes, which MLflow makes a signature of."""

    def predict(self, model_input: list[str]) -> list[str]:
        return [text.upper() for text in model_input]


class Types(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Answers with the types of the columns that it is given."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> list[list[str]]:
        return [[name, str(kind)] for name, kind in model_input.dtypes.items()]


COLUMNS = ["boolean", "integer", "long", "float", "double", "binary", "datetime", "string"]
MESSAGES = Schema([ColSpec(Array(Object([Property("role", "string"), Property("content", "string")])), "messages")])
SAMPLING = ParamSchema([ParamSpec("temperature", DataType.double, 0.5), ParamSpec("max_tokens", DataType.integer, 20)])
SINCE = ParamSchema([ParamSpec("since", DataType.datetime, np.datetime64("2023-07-01"))])
POINTS = np.random.default_rng(0).normal(size=(60, 2))


def save_python(python_model: Any, **more: Any) -> Callable[[Path], None]:
    return lambda path: mlflow.pyfunc.save_model(path, python_model=python_model, pip_requirements=["mlflow"], **more)


def neighbours() -> KNeighborsClassifier:
    return KNeighborsClassifier(3, algorithm="brute").fit(POINTS, (POINTS[:, 0] > 0).astype(int))


def save_neighbours(path: Path, params: ParamSchema | None = None) -> None:
    inputs = None if params is None else Schema([TensorSpec(np.dtype("float64"), (-1, 2))])
    signature = None if params is None else ModelSignature(inputs=inputs, params=params)
    mlflow.sklearn.save_model(neighbours(), path, signature=signature, pip_requirements=["scikit-learn"])


def save_own(path: Path) -> None:
    fin_pyfunc.save_model(LogisticRegression().fit(bars(), labels(-1, 0, 1)), bars(), path)


def of(inputs: Schema, params: ParamSchema | None = None) -> ModelSignature:
    return ModelSignature(inputs=inputs, params=params)


#: The models that are asked, by name.
MODELS: dict[str, Callable[[Path], None]] = {
    "told": save_python(Told()),
    "told, of two columns": save_python(
        Told(), signature=of(Schema([ColSpec("string", "do"), ColSpec("double", "x")]))
    ),
    "told, of tensors": save_python(
        Told(),
        signature=of(
            Schema([TensorSpec(np.dtype("float64"), (-1, 2), "a"), TensorSpec(np.dtype("int64"), (-1,), "b")])
        ),
    ),
    "told, of a text": save_python(Told(), signature=of(Schema([ColSpec("string")]))),
    "told, of one column": save_python(Told(), signature=of(Schema([ColSpec("string", "prompt")]), SAMPLING)),
    "chat": save_python(Told(), signature=of(MESSAGES, SAMPLING)),
    "hinted": save_python(Hinted()),
    "types": save_python(Types(), signature=of(Schema([ColSpec(name, name) for name in COLUMNS]))),
    "neighbours": save_neighbours,
    "neighbours, with a parameter": lambda path: save_neighbours(path, SINCE),
    "ours": save_own,
}


class Case(NamedTuple):
    """A request, and the status that each server answers it with."""

    model: str
    body: Any
    content_type: str = JSON
    theirs: int = 200
    ours: int = 200


def split(frame: pd.DataFrame, **more: Any) -> dict[str, Any]:
    return {"dataframe_split": json.loads(frame.to_json(orient="split")), **more}


def records(frame: pd.DataFrame, **more: Any) -> dict[str, Any]:
    return {"dataframe_records": json.loads(frame.to_json(orient="records")), **more}


TWO = pd.DataFrame(POINTS[:2])
OWN = bars().head(3)
TYPED = pd.DataFrame(
    {
        "boolean": [True, False], "integer": [1, 2], "long": [3, 4], "float": [0.5, 1.5], "double": [0.25, 2.5],
        "binary": ["AQID", "BAUG"], "datetime": ["2021-01-01T00:00:00", "2021-02-02T12:00:00"], "string": ["a", "b"],
    }
)  # fmt: skip
CHAT = {"messages": [{"role": "user", "content": "hello!"}], "temperature": 0.25, "max_tokens": 10, "other": 1}

#: As MLflow's own tests of its scoring server ask it, and others.
CASES: dict[str, Case] = {
    # what MLflow's tests refuse
    "no JSON": Case("neighbours", b"this is,,,, not valid json", theirs=400, ours=422),
    "a number for a body": Case("neighbours", 1, theirs=400, ours=422),
    "a text for a body": Case("neighbours", "1", theirs=400, ours=422),
    "a list for a body": Case("neighbours", [1], theirs=400, ours=422),
    "another key": Case("neighbours", {"not": "a serialized dataframe"}, theirs=400, ours=422),
    "two formats": Case("neighbours", {"dataframe_records": [], "dataframe_split": {"data": []}}, theirs=400, ours=422),
    "records that are an object": Case("neighbours", {"dataframe_records": {"data": [[1, 2]]}}, theirs=400, ours=422),
    "split that is a list": Case("neighbours", {"dataframe_split": [{"0": 1}]}, theirs=400, ours=422),
    "fewer in the index": Case(
        "neighbours", {"dataframe_split": {"index": [1, 2], "data": [[1], [2], [3]]}}, theirs=400, ours=422
    ),
    "one column for two": Case("neighbours", {"dataframe_split": {"data": [[1], [2]]}}, theirs=400, ours=500),
    "text for numbers": Case("neighbours", {"instances": [["a", "b"]]}, theirs=400, ours=500),
    "an empty CSV": Case("neighbours", b"", CSV, theirs=400, ours=422),
    "a signature name": Case("neighbours", {"instances": [[1, 2]], "signature_name": "x"}, ours=200),
    "no content type that there is": Case("neighbours", split(TWO), "not_a_content_type", theirs=415, ours=415),
    "an unknown parameter": Case("neighbours", split(TWO), f"{JSON}; something=something", theirs=415, ours=415),
    "MLflow 1's parameter": Case("neighbours", split(TWO), f"{JSON}; format=pandas-split", theirs=415, ours=415),
    "another charset": Case("neighbours", split(TWO), f"{JSON}; charset=utf-16", theirs=415, ours=415),
    # content types that MLflow compares letter by letter
    "capitals": Case("neighbours", split(TWO), "Application/JSON", theirs=415),
    "a quoted charset": Case("neighbours", split(TWO), f'{JSON};charset="UTF-8"', theirs=415),
    "a semicolon at the end": Case("neighbours", split(TWO), f"{JSON};", theirs=415),
    "a blank before the charset": Case("neighbours", split(TWO), f"{JSON} ; Charset=utf-8", theirs=415),
    # what MLflow's tests are answered
    "records": Case("neighbours", records(TWO)),
    "records in UTF-8": Case("neighbours", records(TWO), f"{JSON}; charset=UTF-8"),
    "split": Case("neighbours", split(TWO)),
    "split in UTF-8": Case("neighbours", split(TWO), f"{JSON}; charset=UTF-8"),
    "instances": Case("neighbours", {"instances": POINTS.tolist()}),
    "inputs": Case("neighbours", {"inputs": POINTS.tolist()}),
    "CSV": Case("neighbours", TWO.to_csv(index=False).encode(), CSV),
    "Parquet": Case("neighbours", TWO.rename(columns=str).to_parquet(), PARQUET),
    "JSON with a byte-order mark": Case("neighbours", json.dumps(split(TWO)).encode("utf-8-sig")),
    "JSON in UTF-16": Case("neighbours", json.dumps(split(TWO)).encode("utf-16")),
    "instances of tensors": Case("told, of tensors", {"instances": [{"a": [1, 2], "b": 3}, {"a": [3, 4], "b": 5}]}),
    "inputs of tensors": Case("told, of tensors", {"inputs": {"a": [[1, 2], [3, 4]], "b": [3, 5]}}),
    "every type, split": Case("types", split(TYPED[COLUMNS[::-1]])),
    "every type, records": Case("types", records(TYPED)),
    "every type, inputs": Case("types", {"inputs": TYPED.to_dict("list")}),
    "every type, instances": Case("types", {"instances": TYPED.to_dict("records")}),
    "a type that does not fit": Case("types", records(TYPED.assign(long="x")), theirs=400, ours=422),
    "a parameter left out": Case("neighbours, with a parameter", split(TWO)),
    "a parameter": Case("neighbours, with a parameter", split(TWO, params={"since": "2024-01-01"})),
    "a parameter of another type": Case(
        "neighbours, with a parameter", split(TWO, params={"since": "invalid"}), theirs=400, ours=422
    ),
    "a parameter that there is not": Case("neighbours, with a parameter", split(TWO, params={"other": "value"})),
    "parameters that are a list": Case("neighbours, with a parameter", split(TWO, params=[1]), theirs=400, ours=422),
    "paths for rows": Case("told", split(pd.DataFrame({"do": ["a number"] * 2, "url": ["http://foo.com", "aaa://b"]}))),
    "chat": Case("chat", CHAT),
    "chat without a signature": Case("told", CHAT),
    "chat that does not fit": Case("chat", {"messages": [{"role": "user"}]}, theirs=400, ours=422),
    "a completion": Case("told, of one column", {"prompt": "hello!", "temperature": 0.25, "max_tokens": 7}),
    "an embedding": Case("told", {"input": "hello!", "random": "test"}),
    # scalars, and parameters of models without a signature
    **{
        f"{key} of {json.dumps(value)}": Case("told", {key: value})
        for key in ("inputs", "instances")
        for value in (3, 0.5, "text", True, None, [], [1, 2], ["a", "b"], [[1], [2]], [None])
    },
    "inputs of one object": Case("told", {"inputs": {"a": 1}}),
    "inputs of an object and a number": Case("told", {"inputs": [{"a": 1}, 2]}),
    "instances of one object": Case("told", {"instances": {"a": 1}}, theirs=400, ours=422),
    "instances of an object and a number": Case("told", {"instances": [{"a": 1}, 2]}, theirs=400, ours=422),
    "inputs of columns": Case("told", {"inputs": {"a": [1, 2], "b": ["x", "y"]}}),
    "inputs of unlike columns": Case("told", {"inputs": {"a": [1, 2], "b": 3}}),
    "inputs nested": Case("told", {"inputs": [{"a": {"b": [1, {"c": None}]}}]}),
    "instances of unlike columns": Case("told", {"instances": {"a": [1, 2], "b": [3]}}, theirs=400, ours=422),
    "a text for a signature without names": Case("told, of a text", {"inputs": "a number"}),
    "texts for a signature without names": Case("told, of a text", {"inputs": ["a DataFrame", "b"]}),
    "columns for a signature without names": Case("told, of a text", {"inputs": {"a": ["b"]}}, theirs=400, ours=422),
    "parameters without a signature": Case("told", {"inputs": [1], "params": {"k": 1}}),
    "one value for one column": Case(
        "told, of one column", {"inputs": "hello", "params": {"max_tokens": 5}}, theirs=400, ours=422
    ),
    "values for one column": Case("told, of one column", {"inputs": ["a", "b"]}),
    "instances for one column": Case("told, of one column", {"instances": ["a", "b"]}),
    "a scalar for two columns": Case("told, of two columns", {"inputs": 3}, theirs=400, ours=422),
    "texts by a type hint": Case("hinted", {"inputs": ["a", "b"]}),
    "a scalar by a type hint": Case("hinted", {"inputs": "a"}, theirs=400, ours=422),
    "numbers by a type hint": Case("hinted", {"inputs": [1]}, theirs=400, ours=422),
    "records by a type hint": Case("hinted", {"dataframe_records": [{"a": "b"}]}, theirs=400, ours=422),
    # what models answer, to rows and to a single thing
    **{
        f"answers {name}": Case("told", split(pd.DataFrame({"do": [name] * 2, "x": [1.0, 2.0]})))
        for name in ANSWERS
        if name not in UNSPEAKABLE
    },
    **{f"answers {name} to a text": Case("told", {"inputs": name}) for name in ANSWERS if name not in UNSPEAKABLE},
    **{
        f"answers {name} to named columns": Case(
            "told, of two columns", split(pd.DataFrame({"do": [name] * 2, "x": [1.0, 2.0]}))
        )
        for name in ANSWERS
        if name not in UNSPEAKABLE
    },
    **{f"answers {name}": Case("told", {"inputs": [name]}, theirs=500, ours=500) for name in UNSPEAKABLE},
    "raises": Case("told", {"inputs": ["raise"]}, theirs=400, ours=500),
    # ours
    "ours, records": Case("ours", records(OWN)),
    "ours, split": Case("ours", split(OWN)),
    "ours, instances": Case("ours", {"instances": OWN.to_dict("records")}),
    "ours, inputs": Case("ours", {"inputs": OWN.to_dict("list")}),
    "ours, one record": Case("ours", {"inputs": OWN.to_dict("records")[0]}),
    "ours, a parameter": Case("ours", records(OWN, params={"return_proba": False})),
    "ours, a parameter that there is not": Case("ours", records(OWN, params={"other": 1})),
    "ours, CSV": Case("ours", OWN.to_csv(index=False).encode(), CSV),
    "ours, a scalar": Case("ours", {"inputs": 3}, theirs=400, ours=422),
    "ours, lists": Case("ours", {"inputs": OWN.to_numpy().tolist()}, theirs=400, ours=422),
}


class Pairs:
    """Each model behind both servers, started when it is first asked; what is answered is recorded."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._stack = folder, contextlib.ExitStack()
        self._pairs: dict[tuple[str, str], Pair] = {}

    def of(self, model: str, isolation: str = "process") -> Pair:
        if (model, isolation) not in self._pairs:
            folder = self.folder_of(model, isolation)
            folder.mkdir(parents=True)
            MODELS[model](folder / "model")
            record = {"FIN_PYFUNC__RECORD__FOLDER": str(folder / "record"), "FIN_PYFUNC__RECORD__SYNC": "always"}
            env = {"FIN_PYFUNC__MODELS__ISOLATION": isolation, **record}
            self._pairs[model, isolation] = self._stack.enter_context(contextlib.contextmanager(pair)(folder, env))
        return self._pairs[model, isolation]

    def folder_of(self, model: str, isolation: str = "process") -> Path:
        return self._folder / isolation / model

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pairs]:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    held = Pairs(tmp_path_factory.mktemp("pairs"))
    yield held
    held.close()


#: Starting a server for each model takes long: these are asked in every run, the others, and none in a host, in a long
#: one.
ALWAYS = ("neighbours", "told", "ours")


@pytest.mark.parametrize(
    ("isolation", "name"),
    [
        pytest.param(isolation, name, marks=[] if case.model in ALWAYS and isolation == "process" else pytest.mark.long)
        for isolation in ("process", "none")
        for name, case in CASES.items()
    ],
)
def test_what_mlflow_answers_is_what_we_answer(pairs: Pairs, isolation: str, name: str) -> None:
    case = CASES[name]
    body = case.body if isinstance(case.body, bytes) else json.dumps(case.body).encode()
    one = pairs.of(case.model, isolation)
    try:
        theirs = one.ask_mlflow(body, case.content_type)
        status = theirs.status_code
    except Exception:  # the test client raises what its app does
        status = 500
    ours = one.ask(body, case.content_type)
    assert (status, ours.status_code) == (case.theirs, case.ours), ours.text
    if status == 200:
        assert ours.content == theirs.content.replace(b"NaN", b"null")
        assert ours.headers["Content-Type"] == theirs.headers["Content-Type"]
    elif ours.status_code == 200:  # as MLflow answers the same in its own words
        assert ours.content == one.ask_mlflow(body, JSON).content
    else:
        assert "Traceback" not in ours.json()["detail"]


@pytest.mark.parametrize("answer", ["a number", "no rows", "a row too many", "a dict", "a set"])
def test_answers_that_are_not_one_a_row_are_recorded_and_exported(pairs: Pairs, tmp_path: Path, answer: str) -> None:
    body = json.dumps(split(pd.DataFrame({"do": [answer] * 2, "x": [1.0, 2.0]}))).encode()
    answered = pairs.of("told").ask(body, JSON)
    record = pairs.folder_of("told") / "record"
    (entry,) = [each for each in entries(record) if each.record.request_id == answered.headers["X-Request-ID"]]
    assert entry.record.n_rows == 2
    assert (entry.record.answers is None) == (answered.status_code == 500)
    assert export_parquet(record, tmp_path / "all.parquet") >= max(2, len(entry.record.answers or ()))


def test_mlflows_own_client_is_answered(pairs: Pairs) -> None:
    host, _, port = pairs.of("neighbours").server.url.removeprefix("http://").rpartition(":")
    client = ScoringServerClient(host=host, port=int(port))
    client.wait_server_ready()
    answered = client.invoke(pd.DataFrame(POINTS)).get_predictions().to_numpy()[:, 0]
    assert answered.tolist() == neighbours().predict(POINTS).tolist()
