"""A row that a foreign model has to answer before it is ready, by the way of a request to `/predict`."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from fin_pyfunc.model.backends.pyfunc import NO_CLASSIFIER
from fin_pyfunc.model.errors import ArtifactError, DeviceError, FeatureError, ScoringError
from fin_pyfunc.model.feature import NUMERIC, Feature
from fin_pyfunc.model.features import FeatureSpec
from fin_pyfunc.serving.decode import open_envelope, read_row
from fin_pyfunc.serving.errors import RequestError
from fin_pyfunc.serving.http import encode
from fin_pyfunc.serving.loaded_model import LoadedModel

logger = logging.getLogger("fin_pyfunc.server")

#: The input example of a model as MLflow's scoring server takes it, and the most bytes of it that are read.
EXAMPLE, MAX_EXAMPLE_BYTES = "serving_input_example.json", 1 << 20
#: Numbers of the rows that are tried where there is no example; no estimator takes all of them for the same class.
_NUMBERS = (0.7371, 1.0, -1.2913, 0.0, 104.25)
_INTEGERS = (1, 2, 0, 3, 10)
_TIME = "2026-01-05T09:30:00"


def try_out(loaded: LoadedModel) -> None:
    """Have a foreign model answer a row: the first of its input example, else one that is made for its features.

    Parameters
    ----------
    loaded : LoadedModel
        One that was logged by this project has answered its own example already.

    Raises
    ------
    ArtifactError
        It answers none. Only where its features may be text, and nothing says which texts it knows, is it left alone.
    ModelUnavailableError
    """
    model = loaded.model
    if model.manifest is not None or model.answered is not None:
        return
    refusal: Exception | None = None
    for row in (*_example(loaded.folder.path), *_made(model.features)):
        try:
            envelope = open_envelope(msgspec.json.encode({"features": row}))
            table = read_row(envelope, model, sys.maxsize)
            encode(model.decide_table(table).one())
        except DeviceError:
            raise
        except (FeatureError, RequestError, ScoringError) as e:
            refusal = refusal or e
            if NO_CLASSIFIER in str(e):
                break
        else:
            model.answered = table
            return
    is_told = refusal is not None and (NO_CLASSIFIER in str(refusal) or not _is_guess(model.features))
    if is_told:
        raise ArtifactError(
            f"The model does not answer /predict ({str(refusal).rstrip('.')}): log it with an input_example that it "
            "can score, or with fin_pyfunc.log_model."
        ) from refusal
    logger.warning(
        "%s is not tried out: nothing says which values its features may have; log it with a signature and an "
        "input_example",
        loaded.resolved.uri,
    )


def _example(folder: Path) -> Iterator[Any]:
    """The first row of a model's input example, if there is one."""
    file = folder / EXAMPLE
    try:
        if not folder.is_dir() or file.stat().st_size > MAX_EXAMPLE_BYTES:
            return
        example = json.loads(file.read_bytes())
        split = example.get("dataframe_split")
        if split is not None:
            first = split["data"][0]
            yield dict(zip(map(str, split["columns"]), first, strict=True)) if "columns" in split else first
        elif isinstance(inputs := example.get("inputs"), dict):
            yield {name: values[0] for name, values in inputs.items()}
        elif isinstance(inputs, list):
            yield inputs[0]
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return


def _made(spec: FeatureSpec | None) -> Iterator[Any]:
    """Rows that are made for features."""
    if spec is None:
        return
    for number, integer in zip(_NUMBERS, _INTEGERS, strict=True):
        row = {feature.name: _value(feature, number, integer) for feature in spec.features}
        yield list(row.values()) if spec.naming == "positions" else row


def _value(feature: Feature, number: float, integer: int) -> Any:
    if known := feature.known or feature.categories:
        return known[0]
    if feature.kind == "boolean":
        return bool(integer % 2)
    if feature.kind == "datetime":
        return _TIME if feature.zone is None else f"{_TIME}Z"
    if feature.kind == "category":
        return None
    return "a" if feature.kind == "string" else integer if feature.kind == "integer" else number


def _is_guess(spec: FeatureSpec | None) -> bool:
    """Whether a made row may be none that the model could answer."""
    if spec is None:
        return True
    return any(
        feature.kind not in (*NUMERIC, "datetime", "category") and not feature.known for feature in spec.features
    )
