"""A recorded prediction, made again: by the very artifact, on the same backend, and compared to the last bit."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fin_pyfunc.model.artifact import NAME
from fin_pyfunc.model.backends import Backend
from fin_pyfunc.model.backends.native import NativeBackend
from fin_pyfunc.model.backends.pyfunc import PyfuncBackend
from fin_pyfunc.model.classifier import Classifier
from fin_pyfunc.model.decision import Decisions, Scores
from fin_pyfunc.model.errors import FinPyfuncError, ScoringError
from fin_pyfunc.model.features import Table
from fin_pyfunc.serving.compiler import Compiler
from fin_pyfunc.serving.decode import BatchEnvelope, Envelope, read_row, read_rows
from fin_pyfunc.serving.errors import RequestError
from fin_pyfunc.serving.joiner import stacked
from fin_pyfunc.serving.loaded_model import LoadedModel
from fin_pyfunc.serving.loader import load
from fin_pyfunc.serving.mlflow_scoring import pyfunc_decisions
from fin_pyfunc.serving.record import facts
from fin_pyfunc.serving.record.entries import answers
from fin_pyfunc.serving.record.features import Digests
from fin_pyfunc.serving.record.reading import Entry, Joined, Record, entries
from fin_pyfunc.serving.record.verify import RecordError
from fin_pyfunc.serving.resolver import Resolver

#: Differences that are told, at most.
MAX_DIFFERENCES = 10
#: A row that was answered had no more keys than the server took.
MANY_KEYS = sys.maxsize
#: Libraries whose version may decide a bit, besides those that the model itself names.
COMPUTING = ("fin_pyfunc", "numpy", "onnxruntime", "pandas", "python", "scikit-learn", "scipy", "treelite")


@dataclass(frozen=True)
class Replay:
    """What came of it.

    Parameters
    ----------
    model_id : str
    backend : str or None
        None where the model raised.
    n_rows : int
    differences : list of str
        Where it answered otherwise; none: the same classes, and the same probabilities to the last bit.
    elsewhere : list of str
        What is not as it was when the record was written: versions of libraries, and the processor.
    """

    model_id: str
    backend: str | None
    n_rows: int
    differences: list[str]
    elsewhere: list[str]

    @property
    def is_same(self) -> bool:
        """Whether it answered as it did."""
        return not self.differences


def replay(
    entry: Entry,
    tracking_uri: str | None = None,
    folder: Path | None = None,
    features: Path | None = None,
    key_file: Path | None = None,
    model_uri: str | None = None,
) -> Replay:
    """Make a recorded prediction again. Loading a model runs the code in it.

    Parameters
    ----------
    entry : Entry
    tracking_uri : str, optional
        Where the model is; default MLflow's own.
    folder : Path, optional
        Of the record: a row that was computed in one call with others' is replayed with them, if alone it differs.
    features : Path, optional
        JSON with the rows, where the record has digests of them only: a row, a list of rows, or a request's body.
    key_file : Path, optional
        The key of those digests.
    model_uri : str, optional
        Where the model is now, if not where it was.

    Raises
    ------
    RecordError
        It cannot be made again: the artifact is another, the features are not there or not those that were scored.
    ModelNotFoundError, ArtifactError, BackendError, StoreUnavailableError
        The model or its backend cannot be had here.
    """
    record = entry.record
    rows = _rows(record, features)
    resolver, compiler = Resolver(tracking_uri), _AtOnce()
    try:
        loaded = _load(record, resolver, compiler, model_uri)
        table = _table(record, rows, loaded)
        if record.features is None:
            _check_digests(record, table, loaded, key_file)
        differences = _differences(record, lambda: _score(record, table, loaded))
        if differences and record.joined is not None and folder is not None:
            differences = _with_others(record, record.joined, folder, loaded)
    finally:
        compiler.close()
        resolver.close()
    manifest = loaded.model.manifest
    named = set(manifest.libraries) if manifest is not None else {"lightgbm", "xgboost", "xgboost-cpu", "mlflow"}
    return Replay(record.model_id, record.backend, record.n_rows, differences, _elsewhere(entry, named))


class _AtOnce(Compiler):
    """Compiles while its caller waits."""

    def later(self, model: Classifier, path: Path, kind: str) -> threading.Thread | None:
        """As the parent does, and waits for what it starts."""
        thread = super().later(model, path, kind)
        if thread is not None:
            thread.join()
        return thread


def _rows(record: Record, features: Path | None) -> list[msgspec.Raw]:
    if record.features is not None:
        if features is not None:
            raise RecordError("The record has the features itself: leave out the file.")
        return record.features
    if features is None:
        raise RecordError(
            "The record has only digests of the features (record.features: digest), so they must be given to replay "
            "it: name a JSON file with them (--features), and the key of the digests (--key-file)."
        )
    try:
        given = json.loads(features.read_bytes())
    except OSError as e:
        raise RecordError(f"{features} cannot be read ({(e.strerror or str(e)).lower()}).") from e
    except ValueError as e:
        raise RecordError(f"{features} is not JSON: it is to hold a row, a list of rows, or a request's body.") from e
    if isinstance(given, dict):
        given = given.get("features_list", given.get("features", given))
    is_rows = isinstance(given, list) and isinstance(next(iter(given), None), dict | list)
    listed = given if is_rows else [given]
    if len(listed) != record.n_rows:
        raise RecordError(f"{features} holds {len(listed)} rows, and the request had {record.n_rows}.")
    return [msgspec.Raw(json.dumps(row).encode()) for row in listed]


def _load(record: Record, resolver: Resolver, compiler: Compiler, model_uri: str | None) -> LoadedModel:
    """The very artifact, with the backend that answered."""
    by_digest = record.model_id.startswith("sha256:")
    uri = model_uri or (record.model_uri if by_digest else record.model_id)
    resolved = resolver.resolve_argument(uri)
    if by_digest and resolved.model_id != record.model_id:
        raise RecordError(
            f"The model at {uri} is another now: its digest is not the recorded {record.model_id}; name where that "
            "one is with --model-uri."
        )
    is_ours = (resolver.fetch(resolved).path / "artifacts" / NAME).is_dir()
    # one of another's making was compiled after it was loaded, if a compiled form answered
    was_compiled = not is_ours and record.backend not in (None, NativeBackend.name, PyfuncBackend.name)
    loaded = load(resolver, resolved, record.backend if is_ours else None, compiler if was_compiled else None)
    found = loaded.artifact_sha256
    if record.artifact_sha256 is not None and found != record.artifact_sha256:
        raise RecordError(
            f"The artifact of {record.model_id} is not the one that answered: its digest is {found}, and the record "
            f"says {record.artifact_sha256}."
        )
    return loaded


def _table(record: Record, rows: Sequence[msgspec.Raw], loaded: LoadedModel) -> Table:
    """The rows as they were scored: by the code that reads a request."""
    try:
        if record.route == "/predict":
            return read_row(Envelope(features=rows[0]), loaded.model, MANY_KEYS)
        together = msgspec.Raw(b"[" + b",".join(bytes(row) for row in rows) + b"]")
        return read_rows(BatchEnvelope(features_list=together), loaded.model, max(1, len(rows)), MANY_KEYS)
    except (FinPyfuncError, RequestError) as e:
        raise RecordError(f"The rows cannot be read as the model takes them: {e}") from e


def _check_digests(record: Record, table: Table, loaded: LoadedModel, key_file: Path | None) -> None:
    if key_file is None:
        raise RecordError("The digests of the record were made with a key: name its file (--key-file).")
    given = Digests.read(key_file).of(table, loaded.model.features)
    wrong = [i for i, (was, now) in enumerate(zip(record.features_hmac_sha256 or (), given, strict=True)) if was != now]
    if wrong:
        raise RecordError(
            f"These are not the features that were scored, or this is not the key: the digest of row {wrong[0]} "
            "is another."
        )


def _differences(record: Record, score: Callable[[], Decisions]) -> list[str]:
    try:
        decisions = score()
    except ScoringError as e:
        return [] if record.answers is None else [f"the model answered then, and fails now: {e}"]
    if record.answers is None:
        return ["the model failed then, and answers now"]
    if len(record.answers) != len(decisions):
        return [f"the model gave {len(record.answers)} answers then, and gives {len(decisions)} now"]
    found = []
    for i, (was, now) in enumerate(zip(record.answers, answers(decisions), strict=True)):
        for name, before in msgspec.structs.asdict(was).items():
            after = now[name]
            if before != after or type(before) is not type(after):  # True is no 1
                found.append(f"row {i}: {name} was {before}, and is {after}")
    return found[:MAX_DIFFERENCES]


def _with_others(record: Record, joined: Joined, folder: Path, loaded: LoadedModel) -> list[str]:
    """Differences where a row is computed in one call with the rows that it was computed with."""
    call = msgspec.json.encode(joined.call)
    records = [entry.record for entry in entries(folder, call)]
    rows = {
        other.joined.row: other.features[0]
        for other in records
        if other.joined is not None and other.joined.call == joined.call and other.features is not None
    }
    if len(rows) < joined.of:
        return [
            f"it was computed in one call with {joined.of - 1} rows of other requests, on which its last bits may "
            f"depend, and {joined.of - len(rows)} of them are not in the record"
        ]
    table = stacked([_table(record, [rows[i]], loaded) for i in range(joined.of)], loaded.model.features)
    only = slice(joined.row, joined.row + 1)

    def score() -> Decisions:
        of_all = _score(record, table, loaded)
        p = of_all.scores.probabilities
        scores = Scores(
            classes=of_all.scores.classes, index=of_all.scores.index[only], probabilities=None if p is None else p[only]
        )
        return Decisions(scores, of_all.thresholds, of_all.backend)

    return _differences(record, score)


def _score(record: Record, table: Table, loaded: LoadedModel) -> Decisions:
    model = loaded.model
    if record.route == "/invocations" and model.manifest is None:
        try:
            return pyfunc_decisions(loaded.pyfunc.predict(table), model.thresholds)
        except Exception as e:
            raise ScoringError(f"the model raised {type(e).__name__}") from e
    backend: Backend = model.dispatch.backends[0]
    if record.backend is not None:
        chosen = next((b for b in model.dispatch.backends if b.name == record.backend), None)
        if chosen is None:
            raise RecordError(
                f"The backend {record.backend!r}, which answered, cannot be had here: there is "
                f"{', '.join(_names(loaded))}."
            )
        backend = chosen
    return Decisions(backend.score(table), model.thresholds, backend.name)


def _names(loaded: LoadedModel) -> list[str]:
    return [backend.name for backend in loaded.model.dispatch.backends]


def _elsewhere(entry: Entry, named: set[str]) -> list[str]:
    """What may have changed a bit, where one has changed."""
    process = entry.process
    if process is None:
        return ["the first line of the record's segment is damaged: the versions of libraries are not known"]
    then, now = process.libraries, {"python": facts.python(), **facts.installed()}
    found = []
    for name in sorted({facts.spelled(name) for name in (*named, *COMPUTING)}):
        was, is_now = then.get(name), now.get(name)
        if was != is_now:
            found.append(f"{name} was {was or 'not installed'}, and is {is_now or 'not installed'}")
    if process.machine != facts.machine():
        found.append(f"the processor was {process.machine}, and is {facts.machine()}")
    return found
