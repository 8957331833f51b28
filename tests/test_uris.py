"""The grammar of model URIs: what is one comes back as it was, and nothing else gets through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fin_pyfunc.model.errors import ModelUriError
from fin_pyfunc.serving.uris import MAX_LENGTH, ModelUri, parse

ID = "0123456789abcdef" * 2

# what a segment may hold: printable, and nothing that a reader of URLs or paths takes for more than itself
characters = st.characters(exclude_characters="/\\%#?;:@", exclude_categories=("C", "Z"))
segments = st.text(characters, min_size=1, max_size=20).filter(lambda s: s not in (".", "..") and s.isprintable())
hexes = st.text("0123456789abcdef", min_size=32, max_size=32)
paths = st.lists(segments, min_size=1, max_size=4).map("/".join)
model_uris = st.one_of(
    st.builds(ModelUri, kind=st.just("run"), run_id=hexes, name=paths),
    st.builds(ModelUri, kind=st.just("version"), name=segments, version=st.integers(1, 999_999_999)),
    st.builds(ModelUri, kind=st.just("alias"), name=segments, alias=st.text("abcXYZ019_-", min_size=1, max_size=30)),
    st.builds(ModelUri, kind=st.just("latest"), name=segments),
    st.builds(ModelUri, kind=st.just("logged"), model_id=hexes.map("m-{}".format)),
    st.builds(ModelUri, kind=st.just("file"), path=paths.map("/{}".format)),
)


@given(model_uris)
def test_a_model_uri_reads_back_as_itself(uri: ModelUri) -> None:
    assert parse(str(uri)) == uri


@given(st.one_of(st.text(), model_uris.map(str), st.from_regex(r"(runs|models|file)://?.*", fullmatch=True)), st.data())
def test_whatever_is_sent_is_either_a_uri_that_writes_itself_or_one_kind_of_error(
    text: str, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(text)))
    text = text[:cut] + data.draw(st.text("./%\\#?;@:\x00\n \ud800", max_size=3)) + text[cut:]
    try:
        uri = parse(text)
    except ModelUriError:
        return
    assert str(uri) == text
    assert ".." not in text.split("/")
    assert not set("%\\#?;") & set(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("runs:/abc123def456/model", ModelUri(kind="run", run_id="abc123def456", name="model")),
        (f"runs:/{ID}/deep/er/model", ModelUri(kind="run", run_id=ID, name="deep/er/model")),
        ("models:/eurusd_rf/1", ModelUri(kind="version", name="eurusd_rf", version=1)),
        ("models:/EUR USD/12", ModelUri(kind="version", name="EUR USD", version=12)),
        ("models:/eurusd_rf@champion", ModelUri(kind="alias", name="eurusd_rf", alias="champion")),
        ("models:/eurusd_rf/latest", ModelUri(kind="latest", name="eurusd_rf")),
        (f"models:/m-{ID}", ModelUri(kind="logged", model_id=f"m-{ID}")),
        ("file:///app/models/model.pkl", ModelUri(kind="file", path="/app/models/model.pkl")),
        ("file:///app/models", ModelUri(kind="file", path="/app/models")),
    ],
)
def test_the_forms_of_the_contract(text: str, expected: ModelUri) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "runs:/abc",
        "runs:/abc/",
        "runs:/../model",
        "runs:/abc/../other/model",
        "runs:/abc/./model",
        "runs:/abc//model",
        "runs:/abc/model/",
        "runs://host/abc/model",
        "runs:/abc/mo%2e%2e",
        "runs:/abc/model?x=1",
        "runs:/abc/model#x",
        "runs:/abc/model;x",
        "runs:/abc/a\\..\\b",
        "runs:/abc/model\n",
        "runs:/abc/ model",
        "runs:/a'b/model",
        "RUNS:/abc/model",
        "models:/eurusd_rf",
        "models:/eurusd_rf/0",
        "models:/eurusd_rf/01",
        "models:/eurusd_rf/-1",
        "models:/eurusd_rf/١",
        "models:/eurusd_rf/99999999999",
        "models:/eurusd_rf/Production",
        "models:/eurusd_rf/Latest",
        "models:/eurusd_rf/1/sub",
        "models:/eurusd_rf@",
        "models:/@champion",
        "models:/../1",
        "models://host/eurusd_rf/1",
        "models:/m-123",
        f"models:/m-{ID}/sub",
        "file:/app/models/model.pkl",
        "file://host/app/model.pkl",
        "file:///",
        "file:///app/../etc/passwd",
        "file:///app//model.pkl",
        "file:///app/model.pkl\x00.onnx",
        "s3://bucket/model",
        "http://127.0.0.1/model",
        "mlflow-artifacts:/1/models",
        "/app/model",
        "./model",
        "runs:/abc/" + "m" * MAX_LENGTH,
    ],
)
def test_anything_else_is_refused_with_the_forms_and_without_the_text(text: str) -> None:
    with pytest.raises(ModelUriError) as caught:
        parse(text)
    message = str(caught.value)
    assert "runs:/<run_id>/<name>" in message
    assert "models:/<name>@<alias>" in message
    assert len(text) <= len("file:///") or text not in message


def test_the_longest_uri_that_is_read() -> None:
    text = "runs:/abc/" + "m" * (MAX_LENGTH - len("runs:/abc/"))
    assert str(parse(text)) == text
