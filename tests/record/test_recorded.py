"""What a real server writes down of each prediction, and that it can be shown, exported and made again."""

from __future__ import annotations

import hashlib
import hmac
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import requests
from sklearn.gaussian_process import GaussianProcessClassifier

import fin_pyfunc
from fin_pyfunc.model import artifact
from fin_pyfunc.model.errors import FinPyfuncError
from fin_pyfunc.serving.callers.keys import KeyFile
from fin_pyfunc.serving.callers.principal import Scope
from fin_pyfunc.serving.content_types import ARROW, CSV, PARQUET
from fin_pyfunc.serving.record.reading import Entry, entries, find, shown, was_changed
from fin_pyfunc.serving.record.replay import replay
from fin_pyfunc.serving.record.verify import verify
from tests.cli.commands import run
from tests.models import bars, bars_with_gaps, labels
from tests.servers import Serving, serving
from tests.shelf import IDENTIFIER, Shelf
from tests.tables import as_arrow, as_csv, as_parquet
from tests.test_api import row

KEY = b"k" * 40


class Recording:
    """A server that records, asked with a key and an id of the caller's for each request."""

    def __init__(self, server: Serving, folder: Path, token: str, shelf: Shelf) -> None:
        self.server, self.folder, self.token, self.shelf = server, folder, token, shelf
        self.count = 0

    def ask(self, path: str, body: Any, content_type: str = "application/json", **headers: str) -> requests.Response:
        self.count += 1
        headers = {
            "X-API-Key": self.token, "X-Request-ID": f"caller-{self.count}", "Content-Type": content_type, **headers,
        }  # fmt: skip
        data = body if isinstance(body, bytes | str) else json.dumps(body)
        return requests.post(self.server.url + path, data=data, headers=headers, timeout=60)

    def recorded(self, answered: requests.Response) -> Entry:
        """The one record of an answer."""
        [entry] = find(self.folder, answered.headers["X-Request-ID"])
        return entry

    def replays(self, answered: requests.Response, **options: Any) -> None:
        found = replay(self.recorded(answered), self.shelf.tracking_uri, **options)
        assert found.is_same, found.differences
        assert found.elsewhere == []


@contextmanager
def recording_server(features: str, folder: Path, shelf: Shelf) -> Iterator[Recording]:
    token = KeyFile(folder / "keys.json").add("desk", [Scope.PREDICT])
    (folder / "record.key").write_bytes(KEY + b"\n")
    env = {
        "MLFLOW_TRACKING_URI": shelf.tracking_uri,
        "FIN_PYFUNC__AUTH__MODE": "keys",
        "FIN_PYFUNC__AUTH__KEYS_FILE": str(folder / "keys.json"),
        "FIN_PYFUNC__RECORD__FOLDER": "record",
        "FIN_PYFUNC__RECORD__FEATURES": features,
        "FIN_PYFUNC__RECORD__KEY_FILE": "record.key",
    }
    with serving("-m", "models:/eurusd_rf@champion", folder=folder, env=env) as server:
        yield Recording(server, folder / "record", token, shelf)
    for report in verify(folder / "record"):
        assert report.problems == []
        assert report.unconfirmed == 0
        assert not report.is_written


@pytest.fixture(scope="module")
def values(shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recording]:
    """A server that keeps features as they were sent."""
    with recording_server("values", tmp_path_factory.mktemp("values"), shelf) as recording:
        yield recording


@pytest.fixture(scope="module")
def digests(shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recording]:
    """A server that keeps digests of features."""
    with recording_server("digest", tmp_path_factory.mktemp("digests"), shelf) as recording:
        yield recording


def test_each_member_of_a_record_says_what_was(values: Recording, shelf: Shelf) -> None:
    before = datetime.now(UTC)
    sent = {IDENTIFIER: 12345, **row(3)}
    answered = values.ask("/predict", {"features": sent, "return_proba": True})
    entry = values.recorded(answered)
    record = entry.record
    assert answered.status_code == record.status == 200
    assert before <= record.received <= record.decided <= datetime.now(UTC)
    assert record.client_request_id == answered.headers["X-Request-ID"]
    assert len(record.request_id) == 32
    assert record.request_id != record.client_request_id
    [key] = KeyFile(values.folder.parent / "keys.json").list()
    assert record.principal == key.id
    assert (record.route, record.model_uri, record.default_model) == ("/predict", "models:/eurusd_rf@champion", True)
    assert record.model_id == answered.headers["X-Model-ID"]
    assert record.run_id == shelf.run_ids["forest"]
    assert record.backend == answered.headers["X-Model-Backend"]
    names = list(bars().columns)
    assert record.feature_order_sha256 == hashlib.sha256(json.dumps(names, separators=(",", ":")).encode()).hexdigest()
    assert (record.thresholds.high, record.thresholds.medium) == (0.8, 0.6)
    assert record.features is not None
    assert json.loads(bytes(record.features[0])) == sent
    assert record.answers is not None
    assert [msgspec.structs.asdict(answer) for answer in record.answers] == [answered.json()]
    [manifest] = [path for path in shelf.folder.rglob(artifact.MANIFEST) if record.artifact_sha256 == _sha256(path)]
    assert artifact.read(manifest.parent).estimator.endswith("RandomForestClassifier")
    assert entry.process is not None
    assert entry.process.libraries["scikit-learn"]
    assert entry.process.libraries["fin-pyfunc"]


def test_an_id_that_the_caller_did_not_send_is_ours(values: Recording) -> None:
    answered = requests.post(
        values.server.url + "/predict", json={"features": row()}, headers={"X-API-Key": values.token}, timeout=60
    )
    record = values.recorded(answered).record
    assert record.request_id == answered.headers["X-Request-ID"]
    assert record.client_request_id is None


def test_an_id_that_was_used_twice_leads_to_both(values: Recording) -> None:
    for _ in range(2):
        values.ask("/predict", {"features": row()}, **{"X-Request-ID": "twice"})
    assert len(find(values.folder, "twice")) == 2
    with pytest.raises(FinPyfuncError, match="no record of this request id"):
        find(values.folder, "twic")


@pytest.mark.parametrize(
    "kind", ["forest", "words", "margin", "gaps", "strict", "artifact", "sklearn", "unsigned", "echo"]
)
def test_a_row_is_replayed_to_the_last_bit(values: Recording, kind: str) -> None:
    frame = bars_with_gaps() if kind == "gaps" else bars()
    for i in (7,) if kind in ("sklearn", "unsigned") else (0, 7, 11):  # those may have to be compiled again
        answered = values.ask("/predict", {"features": row(i, frame), "model_uri": values.shelf.uris[kind]})
        assert answered.status_code == 200, answered.text
        values.replays(answered)


@pytest.mark.parametrize("kind", ["forest", "gaps", "echo"])
def test_a_row_is_replayed_from_its_digest_and_the_features(digests: Recording, kind: str, tmp_path: Path) -> None:
    frame = bars_with_gaps() if kind == "gaps" else bars()
    sent = {"features": row(7, frame), "model_uri": digests.shelf.uris[kind]}
    (tmp_path / "features.json").write_text(json.dumps(sent))
    (tmp_path / "key").write_bytes(KEY)
    answered = digests.ask("/predict", sent)
    digests.replays(answered, features=tmp_path / "features.json", key_file=tmp_path / "key")


@pytest.mark.parametrize("content_type", ["application/json", ARROW, PARQUET, CSV])
def test_a_batch_is_one_record_with_each_row_in_it(values: Recording, content_type: str) -> None:
    frame = bars().head(40).assign(**{IDENTIFIER: [2**60 + i for i in range(40)]})
    write = {
        "application/json": lambda t: json.dumps({"features_list": t.to_pylist(), "return_proba": True}).encode(),
        ARROW: as_arrow, PARQUET: as_parquet, CSV: as_csv,
    }[content_type]  # fmt: skip
    query = "" if content_type == "application/json" else "?return_proba=true"
    answered = values.ask("/predict/batch" + query, write(pa.Table.from_pandas(frame)), content_type)
    assert answered.status_code == 200, answered.text
    entry = values.recorded(answered)
    body, record = answered.json(), entry.record
    assert record.n_rows == 40
    assert record.answers is not None
    assert [answer.prediction for answer in record.answers] == body["predictions"]
    assert [answer.probabilities for answer in record.answers] == body["probabilities"]
    assert [answer.confidence for answer in record.answers] == body["confidences"]
    assert record.features is not None
    rows = [json.loads(bytes(each)) for each in record.features]
    assert [int(each[IDENTIFIER]) for each in rows] == frame[IDENTIFIER].tolist()
    assert [each["return_1"] for each in rows] == frame["return_1"].tolist()
    one = shown(entry, 7)
    assert one["features"] == [rows[7]]
    assert one["answers"][0]["prediction"] == body["predictions"][7]
    with pytest.raises(FinPyfuncError, match="rows 0 to 39"):
        shown(entry, 40)
    values.replays(answered)


@pytest.mark.parametrize("content_type", ["application/json", "text/csv"])
def test_what_mlflows_own_route_answers_is_recorded(values: Recording, content_type: str) -> None:
    frame = bars().head(3).assign(**{IDENTIFIER: [11, 12, 13]})
    body = frame.to_csv(index=False) if content_type == "text/csv" else {"dataframe_records": frame.to_dict("records")}
    answered = values.ask("/invocations", body, content_type)
    assert answered.status_code == 200, answered.text
    record = values.recorded(answered).record
    assert (record.route, record.n_rows) == ("/invocations", 3)
    assert record.answers is not None
    assert [each.prediction for each in record.answers] == [
        each["prediction"] for each in answered.json()["predictions"]
    ]
    assert record.features is not None
    assert [json.loads(bytes(each))[IDENTIFIER] for each in record.features] == [11, 12, 13]
    values.replays(answered)


def test_a_model_that_raised_is_recorded_and_a_request_that_was_refused_is_not(values: Recording) -> None:
    sent = {"features": {**row(), "spread": 200.0}, "model_uri": values.shelf.uris["fails"]}
    answered = values.ask("/predict", sent)
    assert answered.status_code == 500
    record = values.recorded(answered).record
    assert (record.status, record.answers, record.backend) == (500, None, None)
    assert record.error == "the estimator raised ValueError"
    batch = values.ask("/predict/batch", {"features_list": [sent["features"]], "model_uri": sent["model_uri"]})
    assert batch.status_code == 500
    assert values.recorded(batch).record.status == 500
    refused = values.ask("/predict", {"features": {"spread": "wide"}})
    assert refused.status_code == 422
    with pytest.raises(FinPyfuncError):
        values.recorded(refused)


def test_rows_as_a_client_may_write_them_stay_one_line(values: Recording) -> None:
    features = ", ".join(f'\r\n  "{name}" : {value!r}' for name, value in row().items())
    for extra in (b"", ', "ort": "Zürich\\n\\u2028"'.encode(), b', "junk": "\xff\xfe"'):
        body = b'{"features": {' + features.encode() + extra + b"\n}}"
        answered = values.ask("/predict", body)
        assert answered.status_code == 200, answered.text
        values.replays(answered)
    assert [report.problems for report in verify(values.folder)] == [[]]


def test_the_digest_of_a_row_is_of_its_values_in_the_models_order(digests: Recording) -> None:
    sent = {IDENTIFIER: 77, **row(5)}
    answered = digests.ask("/predict", {"features": dict(reversed(sent.items()))})
    record = digests.recorded(answered).record
    canonical = json.dumps([row(5)[name] for name in bars().columns], separators=(",", ":")).encode()
    assert record.features is None
    assert record.features_hmac_sha256 == [hmac.digest(KEY, msgspec.json.encode(json.loads(canonical)), "sha256").hex()]
    assert record.identifiers == [{IDENTIFIER: 77}]
    kept = b"".join(path.read_bytes() for path in digests.folder.rglob("*.jsonl"))
    assert str(row(5)["return_1"]).encode() not in kept


def test_without_the_very_features_digests_are_not_replayed(digests: Recording, tmp_path: Path) -> None:
    answered = digests.ask("/predict", {"features": row(2)})
    entry = digests.recorded(answered)
    (tmp_path / "key").write_bytes(KEY)
    given, key = tmp_path / "features.json", tmp_path / "key"

    def refusal(**options: Any) -> str:
        with pytest.raises(FinPyfuncError) as caught:
            replay(entry, digests.shelf.tracking_uri, **options)
        return str(caught.value)

    assert "only digests of the features" in refusal()
    given.write_text(json.dumps([row(2), row(3)]))
    assert "2 rows, and the request had 1" in refusal(features=given, key_file=key)
    given.write_text(json.dumps(row(3)))
    assert "not the features that were scored" in refusal(features=given, key_file=key)
    given.write_text(json.dumps({"features": row(2)}))
    assert "made with a key" in refusal(features=given)
    (tmp_path / "other").write_bytes(b"z" * 40)
    assert "not the key" in refusal(features=given, key_file=tmp_path / "other")
    assert replay(entry, digests.shelf.tracking_uri, features=given, key_file=key).is_same


def test_a_replay_says_what_is_not_as_it_was(values: Recording) -> None:
    answered = values.ask("/predict", {"features": row(2)})
    entry = values.recorded(answered)
    assert entry.process is not None
    assert entry.record.answers is not None
    libraries = {**entry.process.libraries, "numpy": "1.0", "click": "0.1"}
    process = msgspec.structs.replace(entry.process, libraries=libraries, machine="another")
    found = replay(entry._replace(process=process), values.shelf.tracking_uri)
    assert found.is_same
    assert [said.partition(" was ")[0] for said in found.elsewhere] == ["numpy", "the processor"]
    was = entry.record.answers[0]
    assert was.probabilities is not None
    other = msgspec.structs.replace(
        was, probabilities={name: np.nextafter(p, 1) for name, p in was.probabilities.items()}
    )
    record = msgspec.structs.replace(entry.record, answers=[other])
    [said] = replay(entry._replace(record=record), values.shelf.tracking_uri).differences
    assert said.startswith("row 0: probabilities was")
    record = msgspec.structs.replace(entry.record, artifact_sha256="0" * 64)
    with pytest.raises(FinPyfuncError, match="not the one that answered"):
        replay(entry._replace(record=record), values.shelf.tracking_uri)


def test_the_record_is_for_the_servers_user_alone(values: Recording) -> None:
    values.ask("/predict", {"features": row()})
    for path in (values.folder, *values.folder.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


def test_the_command_line_verifies_shows_replays_and_exports(values: Recording, tmp_path: Path) -> None:
    answered = values.ask("/predict", {"features": row(4)})
    batch = values.ask("/predict/batch", {"features_list": [row(i) for i in range(5)]})
    folder = ("--folder", str(values.folder))
    request_id = batch.headers["X-Request-ID"]
    said = run("record", "verify", *folder, "--heads", str(tmp_path / "heads.json"))
    assert "the record is whole" in said.out
    assert "being written" in said.out
    assert "the record is whole" in run("record", "verify", *folder, "--heads", str(tmp_path / "heads.json")).out
    [one] = json.loads(run("record", "show", request_id, "--row", "3", *folder).out)
    assert one["features"] == [row(3)]
    store = ("--mlflow-tracking-uri", values.shelf.tracking_uri)
    done = run("record", "replay", answered.headers["X-Request-ID"], *folder, *store)
    assert done.out.startswith("the same to the last bit")
    run("record", "export", *folder, "--parquet", str(tmp_path / "record.parquet"))
    frame = pd.read_parquet(tmp_path / "record.parquet")
    assert len(frame) == sum(entry.record.n_rows for entry in entries(values.folder))
    rows = frame[frame["client_request_id"] == request_id]
    assert rows["row"].tolist() == list(range(5))
    assert [json.loads(each) for each in rows["prediction"]] == batch.json()["predictions"]
    assert [json.loads(each) for each in rows["features"]] == [row(i) for i in range(5)]
    assert (rows["decided"] >= rows["received"]).all()


def test_a_record_that_was_changed_is_told_by_its_replay_although_the_answer_is_the_same(
    values: Recording, tmp_path: Path
) -> None:
    answered = values.ask("/predict", {"features": row(6)})
    values.ask("/predict", {"features": row(7)})
    values.recorded(answered)
    copy = tmp_path / "copy"
    shutil.copytree(values.folder, copy)
    [entry] = find(copy, answered.headers["X-Request-ID"])
    assert not was_changed(copy, entry)
    [path] = copy.glob(f"chain-*{entry.place.chain}/{entry.place.segment:08d}.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    lines[entry.place.line - 1] = lines[entry.place.line - 1].replace(b'"received":"20', b'"received":"19')
    path.write_bytes(b"".join(lines))
    store = ("--mlflow-tracking-uri", values.shelf.tracking_uri)
    done = run("record", "replay", answered.headers["X-Request-ID"], "--folder", str(copy), *store)
    assert done.code == 1
    assert done.out.startswith("the same to the last bit")
    assert "changed since it was written" in done.err


def test_a_line_that_cannot_be_read_any_more_is_told_by_whoever_wants_it(values: Recording, tmp_path: Path) -> None:
    answered = values.ask("/predict", {"features": row(8)})
    values.ask("/predict", {"features": row(9)})
    values.recorded(answered)
    copy, request_id = tmp_path / "copy", answered.headers["X-Request-ID"]
    shutil.copytree(values.folder, copy)
    [entry] = find(copy, request_id)
    [path] = copy.glob(f"chain-*{entry.place.chain}/{entry.place.segment:08d}.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    lines[entry.place.line - 1] = b"!" + lines[entry.place.line - 1]
    path.write_bytes(b"".join(lines))
    total = sum(each.record.n_rows for each in entries(copy))
    exported = run("record", "export", "--folder", str(copy), "--parquet", str(tmp_path / "all.parquet"))
    assert exported.code == 1
    assert f"1 left out of it that cannot be read any more (the first: {entry.place})" in exported.err
    assert len(pd.read_parquet(tmp_path / "all.parquet")) == total
    shown = run("record", "show", request_id, "--folder", str(copy))
    assert shown.code == 1
    assert f"cannot be read any more ({entry.place}): 'fin-pyfunc record verify' says more." in shown.err


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_row_that_was_joined_with_others_is_replayed_with_them(tmp_path: Path) -> None:
    # whose last bits depend on how many rows a call has
    estimator = GaussianProcessClassifier(random_state=0).fit(bars(), labels(-1, 0, 1))
    fin_pyfunc.save_model(estimator, bars(), tmp_path / "model")
    env = {"FIN_PYFUNC__RECORD__FOLDER": "record"}
    with serving("-m", str(tmp_path / "model"), folder=tmp_path, env=env) as server, ThreadPoolExecutor(16) as pool:
        answered = list(pool.map(lambda i: server.predict(row(i)), range(64)))
    assert {one.status_code for one in answered} == {200}
    found = [find(tmp_path / "record", one.headers["X-Request-ID"])[0] for one in answered]
    joined = [entry for entry in found if entry.record.joined is not None]
    assert joined
    for entry in joined[:8]:
        again = replay(entry, folder=tmp_path / "record")
        assert again.is_same, again.differences
    other = msgspec.structs.replace(joined[0].record.joined, call="0" * 16)
    record = msgspec.structs.replace(joined[0].record, joined=other)
    differences = replay(joined[0]._replace(record=record), folder=tmp_path / "record").differences
    assert not differences or "are not in the record" in differences[0]
