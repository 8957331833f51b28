"""A key given twice is refused wherever it stands, and nothing else is refused for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

import fin_pyfunc
from fin_pyfunc.model.errors import FeatureError
from fin_pyfunc.serving.errors import RequestError
from fin_pyfunc.serving.json_keys import decode_unique, require_unique, require_unique_rows
from tests.models import bars, labels
from tests.servers import Serving, serving

NAMES = st.sampled_from(["a", "b", "a:b", 'q"', "\\", "é", "", "b\\u003a"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["x", ":", '":', "2024-01-01T00:00:00", "\\"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=4,
)
PAIRS = st.lists(st.tuples(NAMES, VALUES), max_size=5)


def written(pairs: list[tuple[str, Any]], blank: str, ascii_only: bool) -> bytes:
    def text(value: Any) -> str:
        return json.dumps(value, ensure_ascii=ascii_only)

    return ("{" + ",".join(f"{text(name)}{blank}:{blank}{text(value)}" for name, value in pairs) + "}").encode()


@given(pairs=PAIRS, blank=st.sampled_from(["", " ", "\n"]), ascii_only=st.booleans())
def test_a_row_is_refused_just_when_a_key_is_in_it_twice(
    pairs: list[tuple[str, Any]], blank: str, ascii_only: bool
) -> None:
    names = [name for name, _ in pairs]
    row = written(pairs, blank, ascii_only)
    if len(set(names)) == len(names):
        require_unique_rows([b"{}", row], 100)
        assert decode_unique(row, 100) == json.loads(row)
        if not any(":" in name for name in names):  # a body's own keys have no colon
            require_unique(row)
        return
    with pytest.raises(FeatureError) as caught:
        require_unique_rows([b"{}", row], 100)
    assert {(p.row, p.feature) for p in caught.value.problems} == {(1, n) for n in names if names.count(n) > 1}
    with pytest.raises(RequestError, match="more than once"):
        decode_unique(b"[%s]" % row, 100)
    if not any(":" in name for name in names):
        with pytest.raises(RequestError, match="more than once"):
            require_unique(row)


@given(n=st.integers(0, 12))
def test_a_row_has_at_most_as_many_keys_as_it_may(n: int) -> None:
    row = json.dumps({f"k{i}": "::::::::::::" for i in range(n)}).encode()
    for check in (lambda: require_unique_rows([row], 6), lambda: decode_unique(row, 6)):
        if n <= 6:
            check()
        else:
            with pytest.raises(RequestError, match="max_row_keys"):
                check()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("twice")
    rows = bars().assign(bar_id=range(len(bars())))
    estimator = LogisticRegression().fit(bars(), labels(-1, 0, 1))
    fin_pyfunc.save_model(estimator, rows, folder / "model", identifiers=["bar_id"])
    with serving("-m", str(folder / "model"), folder=folder) as server:
        yield server


def ask(server: Serving, path: str, body: str) -> requests.Response:
    return requests.post(server.url + path, body.encode(), headers={"Content-Type": "application/json"}, timeout=60)


def test_a_key_given_twice_is_422_on_every_route_that_reads_json(server: Serving) -> None:
    row = ", ".join(f'"{name}": {float(value)!r}' for name, value in bars().iloc[0].items())
    first = next(iter(bars().columns))
    doubled = f'{row}, "{first}": 1'
    uri = '"model_uri": "models:/a/1"'
    wrong = [
        ("/predict", f'{{"features": {{{doubled}}}}}'),
        ("/predict", f'{{"features": {{"bar_id": 1, "bar_id": 2, {row}}}}}'),
        ("/predict", f'{{"features": {{"extra": 1, {row}, "extra": 2}}}}'),
        ("/predict", f'{{"features": {{{row}}}, "features": {{{row}}}}}'),
        ("/predict", f'{{{uri}, {uri}, "features": {{{row}}}}}'),
        ("/predict", f'{{"return_proba": true, "features": {{{row}}}, "return_proba": false}}'),
        ("/predict/batch", f'{{"features_list": [{{{row}}}, {{{doubled}}}]}}'),
        ("/predict/batch", f'{{"features_list": [{{{row}}}], "features_list": [{{{row}}}]}}'),
        ("/predict/batch", f'{{{uri}, "features_list": [{{{row}}}], {uri}}}'),
        ("/invocations", f'{{"dataframe_records": [{{{doubled}}}]}}'),
        ("/invocations", f'{{"dataframe_records": [{{{row}}}], "dataframe_records": [{{{row}}}]}}'),
    ]
    for path, body in wrong:
        answered = ask(server, path, body)
        assert answered.status_code == 422, body
        assert "more than once" in answered.json()["detail"]
    named = ask(server, *wrong[6]).json()["errors"]
    assert named == [{"row": 1, "feature": first, "problem": "given more than once"}]


def test_each_way_to_write_a_row_once_is_answered(server: Serving) -> None:
    row = {name: float(value) for name, value in bars().iloc[0].items()}
    bodies = [
        {"features": row},
        {"features": row | {"bar_id": 7}},
        {"features": row | {"time": "2024-01-01T00:00:00", "a:b": ":", "nested": {"a": {"a": 1}}}},
        {"model_uri": None, "features": row, "return_proba": False},
        {"return_proba": True, "features": row},
    ]
    for body in bodies:
        for indent in (None, 2):
            assert ask(server, "/predict", json.dumps(body, indent=indent)).status_code == 200
            many = {name: value for name, value in body.items() if name != "features"}
            many["features_list"] = [row, body["features"]]
            assert ask(server, "/predict/batch", json.dumps(many, indent=indent)).status_code == 200


def test_a_row_may_have_its_models_features_whatever_the_limit(tmp_path: Path) -> None:
    fin_pyfunc.save_model(LogisticRegression().fit(bars(), labels(-1, 0, 1)), bars(), tmp_path / "model")
    env = {"FIN_PYFUNC__LIMITS__MAX_ROW_KEYS": "1"}
    good = {name: float(value) for name, value in bars().iloc[0].items()}
    many = {**good, **{f"k{i}": 1.0 for i in range(len(good) + 1)}}
    with serving("-m", str(tmp_path / "model"), folder=tmp_path, env=env) as server:
        for path, key in (
            ("/predict", "features"),
            ("/predict/batch", "features_list"),
            ("/invocations", "dataframe_records"),
        ):
            for row, status in ((good, 200), (many, 422)):
                answered = ask(server, path, json.dumps({key: row if key == "features" else [row]}))
                assert answered.status_code == status
                assert ("max_row_keys" in answered.text) == (status == 422)
