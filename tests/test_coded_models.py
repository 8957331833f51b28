"""A model whose text and categories are codes answers, and is recorded and counted, as the one without codes."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import requests

import fin_pyfunc
from fin_pyfunc.compiling.job import OUTCOME, Outcome
from fin_pyfunc.model import artifact
from fin_pyfunc.model.backends.native import NativeBackend
from fin_pyfunc.model.classifier import Classifier
from fin_pyfunc.model.decision import Decisions
from fin_pyfunc.model.dispatch import Dispatch
from fin_pyfunc.model.encoders import with_codes, without_codes
from fin_pyfunc.model.features import FeatureSpec, infer
from fin_pyfunc.model.sampling import sample
from fin_pyfunc.serving.compiler import Compiler
from fin_pyfunc.serving.content_types import ARROW, CSV, PARQUET
from fin_pyfunc.serving.hosts.hosted_model import HostedModel
from fin_pyfunc.serving.joiner import stacked
from tests.coded import ROWS, compiled, desk, save
from tests.servers import Serving, serving
from tests.tables import as_arrow, as_csv, as_parquet
from tests.test_artifact import folder as artifact_folder

KEY = b"k" * 40


class Saved(SimpleNamespace):
    """The model with codes, and the estimator itself behind a DataFrame."""

    path: Path
    coded: Classifier
    plain: Classifier


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    path = tmp_path_factory.mktemp("coded") / "model"
    save(path)
    coded, plain = (fin_pyfunc.load_model(str(path), backend=backend) for backend in ("onnx", "native"))
    plain.features = without_codes(plain.features)
    plain.dispatch.backends[0].load()._spec = plain.features
    return Saved(path=path, coded=coded, plain=plain)


def same_answers(one: Any, other: Any) -> None:
    assert one.predictions == other.predictions
    np.testing.assert_allclose(one.scores.probabilities, other.scores.probabilities, rtol=0, atol=1e-6)


def test_codes_are_in_the_manifest_and_a_row_is_a_matrix_where_its_texts_have_one(saved: Saved) -> None:
    assert saved.coded.manifest is not None
    codes = {feature.name: feature.codes for feature in saved.coded.manifest.features.features if feature.codes}
    assert codes == {"venue": ["EBS", "LMAX", "a:b"], "broker": ["a", "b"], "session": [1, 2, 3]}
    assert [isinstance(saved.coded.table([row]), np.ndarray) for row in ROWS] == [True, True, False, False]


def test_each_way_of_asking_gives_the_estimators_own_answers(saved: Saved) -> None:
    for rows in (*([row] for row in ROWS), ROWS, ROWS[:2], ROWS * 30):
        same_answers(saved.coded.decide(rows), saved.plain.decide(rows))
    for frame in (desk().held_out, desk().held_out.assign(venue="nowhere"), desk().held_out.iloc[:1]):
        same_answers(saved.coded.decide_frame(frame), saved.plain.decide_frame(frame))
        answered = mlflow.pyfunc.load_model(str(saved.path)).predict(frame.astype({"session": float}))
        pd.testing.assert_frame_equal(answered, saved.plain.predict(frame), atol=1e-6, rtol=0)


def test_the_estimator_itself_takes_codes_too(saved: Saved) -> None:
    native = fin_pyfunc.load_model(str(saved.path), backend="native")
    assert native.features is not None
    assert native.features.is_coded
    same_answers(native.decide(ROWS[:2]), saved.plain.decide(ROWS[:2]))
    same_answers(native.decide(ROWS), saved.plain.decide(ROWS))


def test_a_row_that_is_too_close_to_call_is_asked_of_the_estimator_with_its_own_text(
    saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    [form] = saved.coded.dispatch.backends
    asked: list[Any] = []
    monkeypatch.setattr(form, "_band", 2.0)  # every row is
    estimator = form._estimator
    monkeypatch.setattr(form, "_estimator", SimpleNamespace(score=lambda t: asked.append(t) or estimator.score(t)))
    same_answers(saved.coded.decide(ROWS), saved.plain.decide(ROWS))
    assert asked[0]["broker"].tolist()[2:] == ["elsewhere", "elsewhere"]


def test_a_model_of_an_earlier_format_has_no_codes_and_answers(saved: Saved, tmp_path: Path) -> None:
    content = json.loads((artifact_folder(saved.path) / artifact.MANIFEST).read_bytes())
    for feature in content["features"]["features"]:
        feature.pop("codes", None)
    folder = tmp_path / "bare"
    folder.mkdir()
    for file in artifact_folder(saved.path).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / artifact.MANIFEST).write_text(json.dumps({**content, "format": 3, "forms": [], "seconds": {}}))
    model = Classifier()
    model.open(folder)
    assert isinstance(model.table(ROWS), pd.DataFrame)
    same_answers(model.decide(ROWS), saved.plain.decide(ROWS))


def test_rows_of_codes_and_of_text_are_joined_as_text(saved: Saved) -> None:
    rows = [saved.coded.table([row]) for row in ROWS]
    together = stacked(rows, saved.coded.features)
    pd.testing.assert_frame_equal(together, saved.plain.table(ROWS))
    assert isinstance(stacked(rows[:2], saved.coded.features), np.ndarray)
    same_answers(saved.coded.decide_table(together), saved.plain.decide(ROWS))


def test_a_sample_of_rows_holds_every_code(saved: Saved) -> None:
    manifest = saved.coded.manifest
    assert manifest is not None
    drawn = sample(manifest.features, manifest.ranges, manifest.example, 200)
    assert isinstance(drawn, np.ndarray)
    assert [sorted(set(drawn[:, i].tolist())) for i in range(3)] == [[0, 1, 2], [0, 1], [0, 1, 2]]
    elsewhere = msgspec.structs.replace(manifest.example, features={**manifest.example.features, "venue": "nowhere"})
    copies = sample(manifest.features, manifest.ranges, elsewhere, 200)
    assert isinstance(copies, pd.DataFrame)
    assert len(copies) == 100


def test_a_model_host_is_sent_text(saved: Saved) -> None:
    """Its environment may have another pandas, which restores otherwise."""
    sent: list[Any] = []

    class Connection:
        opening = SimpleNamespace(device="cpu")

        def ask(self, send: Any, *_: Any) -> Any:
            sent.append(send.keywords["table"])
            return None

        def close(self) -> None:
            pass

    described: Any = SimpleNamespace(features=saved.coded.features, classes=[0, 1], kind="estimator", has_proba=True)
    HostedModel(Connection(), described).score(saved.coded.table(ROWS[:2]))  # type: ignore[arg-type]
    pd.testing.assert_frame_equal(sent[0], saved.plain.table(ROWS[:2]))


# of another's making


def foreign(spec: FeatureSpec) -> Classifier:
    return Classifier.of(spec, Dispatch([NativeBackend(desk().estimator, spec)]))


def job_done(features: FeatureSpec) -> Callable[[Path], int]:
    """Runs a job as if a form computed with these features' codes."""

    def run(folder: Path) -> int:
        done = compiled(features, [-1, 0, 1], folder)
        outcome = Outcome(forms=done.forms, dropped={}, native_seconds=done.native_seconds, features=features)
        (folder / OUTCOME).write_bytes(msgspec.json.encode(outcome))
        return 0

    return run


def test_a_model_of_anothers_making_has_codes_once_it_is_compiled(
    saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = infer(desk().train)
    model, compiler = foreign(spec), Compiler()
    monkeypatch.setattr(compiler, "_run", job_done(with_codes(spec, desk().estimator)))
    thread = compiler.later(model, Path("anywhere"), "pickle")
    assert thread is not None
    thread.join()
    assert model.features is not None
    assert model.features.is_coded
    assert [backend.name for backend in model.dispatch.backends] == ["onnx", "native"]
    for rows in (ROWS[:2], ROWS, desk().held_out.iloc[:0].to_dict("records")):
        same_answers(model.decide(rows), saved.plain.decide(rows))
    for backend in model.dispatch.backends:
        same_answers(
            Decisions(backend.score(model.table(ROWS[:2])), model.thresholds, ""), saved.plain.decide(ROWS[:2])
        )
    compiler.close()


def test_an_outcome_of_other_features_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was written by a process in which a stranger's code has run."""
    spec = infer(desk().train)
    model, compiler = foreign(spec), Compiler()
    coded = with_codes(spec, desk().estimator)
    other = msgspec.structs.replace(coded, features=coded.features[::-1])
    monkeypatch.setattr(compiler, "_run", job_done(other))
    thread = compiler.later(model, Path("anywhere"), "pickle")
    assert thread is not None
    thread.join()
    assert model.features is spec
    assert [backend.name for backend in model.dispatch.backends] == ["native"]
    compiler.close()


# served


@pytest.fixture(scope="module")
def served(saved: Saved, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("served")
    (folder / "record.key").write_bytes(KEY + b"\n")
    env = {
        "FIN_PYFUNC__RECORD__FOLDER": "record",
        "FIN_PYFUNC__RECORD__FEATURES": "digest",
        "FIN_PYFUNC__RECORD__KEY_FILE": "record.key",
    }
    with serving("-m", str(saved.path), folder=folder, env=env) as server:
        yield server


def probabilities(decisions: Any) -> list[dict[str, float]]:
    return [pytest.approx(each, abs=1e-6) for each in decisions.distributions]


@pytest.mark.parametrize("i", range(len(ROWS)))
def test_a_row_is_answered_as_by_the_estimator(served: Serving, saved: Saved, i: int) -> None:
    answered = served.predict(ROWS[i], return_proba=True)
    assert answered.status_code == 200, answered.text
    own = saved.plain.decide([ROWS[i]])
    assert answered.json()["prediction"] == own.predictions[0]
    assert answered.json()["probabilities"] == probabilities(own)[0]


SCHEMA = pa.schema(
    {
        "venue": pa.string(), "broker": pa.dictionary(pa.int32(), pa.string()), "session": pa.int64(),
        "hour": pa.int64(), "is_month_end": pa.bool_(), "return_1": pa.float64(),
    }
)  # fmt: skip
BODIES: dict[str, Callable[[pa.Table], bytes]] = {ARROW: as_arrow, PARQUET: as_parquet, CSV: as_csv}


@pytest.mark.parametrize("rows", [ROWS, ROWS[:2], ROWS * 50], ids=["few", "known", "many"])
@pytest.mark.parametrize("content_type", ["application/json", *BODIES])
def test_a_batch_is_answered_as_by_the_estimator(
    served: Serving, saved: Saved, content_type: str, rows: list[dict[str, Any]]
) -> None:
    table = pa.Table.from_pylist(rows, SCHEMA)
    body = (
        BODIES[content_type](table)
        if content_type in BODIES
        else json.dumps({"features_list": rows, "return_proba": True})
    )
    answered = requests.post(
        f"{served.url}/predict/batch" + ("?return_proba=true" if content_type in BODIES else ""), data=body, timeout=60,
        headers={"Content-Type": content_type, "Accept": "application/json"},
    )  # fmt: skip
    assert answered.status_code == 200, answered.text
    own = saved.plain.decide(rows)
    assert answered.json()["predictions"] == own.predictions
    assert answered.json()["probabilities"] == probabilities(own)


def test_mlflows_own_route_answers_as_by_the_estimator(served: Serving, saved: Saved) -> None:
    frame = desk().held_out.dropna()
    body = json.dumps({"dataframe_records": json.loads(frame.to_json(orient="records"))})
    answered = requests.post(
        f"{served.url}/invocations", data=body, headers={"Content-Type": "application/json"}, timeout=60
    )
    assert answered.status_code == 200, answered.text
    own = saved.plain.decide_frame(frame)
    assert [each["prediction"] for each in answered.json()["predictions"]] == own.predictions


def test_what_is_no_category_is_refused_by_name(served: Serving) -> None:
    for session in (True, "1", 1.5, 4, [1]):
        answered = served.predict({**ROWS[0], "session": session})
        assert answered.status_code == 422
        assert "session" in answered.text
    assert served.predict({**ROWS[0], "venue": None}).json()["errors"][0]["feature"] == "venue"


def test_the_digest_of_a_row_is_of_its_text(served: Serving, saved: Saved) -> None:
    from fin_pyfunc.serving.record.reading import find

    for row in ROWS:
        headers = {"X-Request-ID": f"row-{ROWS.index(row)}", "Content-Type": "application/json"}
        body = json.dumps({"features": row})
        assert requests.post(f"{served.url}/predict", data=body, headers=headers, timeout=60).status_code == 200
        [entry] = find(served._log_file.parent / "record", headers["X-Request-ID"])
        expected = hmac.digest(KEY, msgspec.json.encode(list(row.values())), "sha256").hex()
        assert entry.record.features_hmac_sha256 == [expected]
