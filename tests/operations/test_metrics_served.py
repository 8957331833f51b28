"""`GET /metrics` of a real server with two workers, and a real Prometheus that scrapes it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import requests
import yaml

import fin_pyfunc
from fin_pyfunc.serving.metrics import definitions as m
from fin_pyfunc.serving.metrics.values import OTHER
from tests.conftest import free_port
from tests.documentation.blocks import ROOT
from tests.models import bars, logistic
from tests.operations.exposition import Numbers, scrape, total, wait_for
from tests.servers import Serving, serving
from tests.shelf import Shelf
from tests.test_api import row

CHAMPION = "models:/eurusd_rf@champion"


@pytest.fixture(scope="module")
def served(shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    env = {"MLFLOW_TRACKING_URI": shelf.tracking_uri, "FIN_PYFUNC__PRELOAD": shelf.uris["gaps"]}
    folder = tmp_path_factory.mktemp("metrics")
    with serving("-m", CHAMPION, "--workers", "2", folder=folder, env=env) as server:
        wait_for(server.url, lambda n: total(n, "fin_pyfunc_workers_ready") == 2)
        yield server


def test_requests_are_counted_by_route_status_and_model_over_all_workers(served: Serving) -> None:
    before = scrape(served.url)
    model = served.predict(row()).headers["X-Model-ID"]

    def ask(i: int) -> int:  # each over a connection of its own, so that both workers are asked
        return served.predict(row(i % 100)).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(200))) == {200}
    for _ in range(3):
        assert served.predict({"spread": 1.0}).status_code == 422
    assert requests.get(served.url + "/no/such/route", timeout=10).status_code == 404
    labels = {"route": "/predict", "status": "200", "model": model}
    wanted = total(before, "fin_pyfunc_requests_total", **labels) + 201
    # what was refused is told of the model that refused it
    refused = {"route": "/predict", "status": "422", "model": model}
    unknown = {"route": OTHER, "status": "404", "model": ""}

    def all_are_told(n: Numbers) -> bool:  # by whichever worker had them, each in its own time
        least = ((labels, wanted), (refused, 3), (unknown, 1))
        return all(total(n, "fin_pyfunc_requests_total", **of) >= count for of, count in least)

    after = wait_for(served.url, all_are_told)
    assert total(after, "fin_pyfunc_requests_total", **labels) == wanted
    assert total(after, "fin_pyfunc_requests_total", **refused) == 3
    for step in ("request", "decode", "score", "encode", "queue", "load_wait"):
        name = f"fin_pyfunc_{step}_seconds"
        assert total(after, f"{name}_count", route="/predict") >= 201, step
        assert total(after, f"{name}_bucket", route="/predict", le="+Inf") == total(
            after, f"{name}_count", route="/predict"
        )


def test_predictions_are_counted_by_class_confidence_and_backend_and_batches_by_size(
    served: Serving, shelf: Shelf
) -> None:
    before = scrape(served.url)
    rows = [row(i) for i in range(60)]
    answered = served.predict_batch(rows, return_proba=True)
    model, body = answered.headers["X-Model-ID"], answered.json()
    count = total(before, "fin_pyfunc_rows_count", route="/predict/batch") + 1
    after = wait_for(served.url, lambda n: total(n, "fin_pyfunc_rows_count", route="/predict/batch") == count)

    def more(name: str, **labels: str) -> float:
        return total(after, name, model=model, **labels) - total(before, name, model=model, **labels)

    for label in (-1, 0, 1):
        assert more("fin_pyfunc_predictions_total", **{"class": str(label)}) == body["predictions"].count(label)
    for word in ("high", "medium", "low"):
        assert more("fin_pyfunc_confidences_total", confidence=word) == body["confidences"].count(word)
    assert more("fin_pyfunc_backend_rows_total", backend=answered.headers["X-Model-Backend"]) == 60
    assert total(after, "fin_pyfunc_rows_sum", route="/predict/batch") == 60 * count


def test_features_that_are_missing_null_or_beyond_training_are_counted(served: Serving, shelf: Shelf) -> None:
    time.sleep(1)  # what other tests had refused is written
    before = scrape(served.url)
    model = served.predict(row()).headers["X-Model-ID"]
    missing = {name: value for name, value in row().items() if name != "spread"}
    assert served.predict(missing).status_code == 422
    assert served.predict({**row(), "spread": None}).status_code == 422
    assert served.predict({**row(), "spread": "wide"}).status_code == 422
    greatest = float(bars()["spread"].max())
    assert served.predict({**row(), "spread": 2 * greatest}).status_code == 200
    assert served.predict({**row(), "spread": greatest}).status_code == 200
    gaps = served.predict({**row(), "spread": None}, shelf.uris["gaps"])
    assert gaps.status_code == 200

    def is_counted(n: Numbers) -> bool:
        nulls = total(n, "fin_pyfunc_features_null_total", model=gaps.headers["X-Model-ID"], feature="spread")
        beyond = total(n, "fin_pyfunc_features_out_of_range_total", model=model, feature="spread")
        refused = [
            total(each, "fin_pyfunc_features_refused_total", feature="spread", reason=reason)
            for reason in ("missing", "null", "type")
            for each in (n, before)
        ]
        return (nulls, beyond) == (1, 1) and [refused[i] - refused[i + 1] for i in (0, 2, 4)] == [1, 1, 1]

    wait_for(served.url, is_counted)


def test_models_are_counted_as_they_are_loaded(served: Serving, shelf: Shelf) -> None:
    before = scrape(served.url)
    assert total(before, "fin_pyfunc_models_in_memory") == 4  # the default and the preloaded one, in each worker
    assert total(before, "fin_pyfunc_model_load_seconds_count") == 4
    assert total(before, "fin_pyfunc_cache_misses_total") == 4
    assert total(before, "fin_pyfunc_model_bytes") > 10_000
    assert total(before, "fin_pyfunc_model_info", uri=CHAMPION) == 1
    assert total(before, "fin_pyfunc_model_info", uri=shelf.uris["gaps"]) == 1
    assert total(before, "fin_pyfunc_mlflow_up") == 1
    assert served.predict(row(), "models:/nobody/1").status_code == 404


def test_nothing_that_a_client_sends_becomes_a_label(served: Serving) -> None:
    before = len(scrape(served.url))
    for i in range(50):
        requests.get(f"{served.url}/made-up-{i}", timeout=10)
        served.predict(row(), f"models:/made-up-{i}/1")
        served.predict({**row(), "spread": f"no number {i}"})
        requests.request(f"VERB{i}", served.url + "/predict", timeout=10)
    time.sleep(0.5)
    text = requests.get(served.url + "/metrics", timeout=10).text
    assert "made-up" not in text
    assert "VERB" not in text
    assert len(scrape(served.url)) < before + 100


def test_sums_stay_right_when_a_worker_is_killed(served: Serving) -> None:
    labels = {"route": "/predict"}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: served.predict(row(i % 100)), range(100)))
    time.sleep(1)  # what is not written yet dies with its worker
    before = total(scrape(served.url), "fin_pyfunc_requests_total", **labels)
    victim = psutil.Process(served.process.pid).children()[0]
    os.kill(victim.pid, signal.SIGKILL)
    after = wait_for(served.url, lambda n: total(n, "fin_pyfunc_worker_exits_total", reason="died") == 1)
    assert total(after, "fin_pyfunc_requests_total", **labels) == before
    after = wait_for(served.url, lambda n: total(n, "fin_pyfunc_workers_ready") == 2)
    assert total(after, "fin_pyfunc_requests_total", **labels) == before
    assert str(victim.pid) not in {value for _, having in after for name, value in having if name == "pid"}


def test_every_metric_shown_is_defined_and_has_its_labels(served: Serving) -> None:
    defined = {metric.exposed: metric for metric in m.ALL}
    endings = {"_bucket": {"le"}, "_sum": set[str](), "_count": set[str]()}
    for name, having in scrape(served.url):
        labels = {label for label, _ in having}
        for ending, more in endings.items():
            if name not in defined and name.endswith(ending):
                name, labels = name.removesuffix(ending), labels - more
        assert name in defined, name
        extra = {"pid"} if defined[name].merge == "liveall" else set()
        assert labels == set(defined[name].labels) | extra


def test_openmetrics_is_spoken_to_whoever_asks_for_it(served: Serving) -> None:
    asked = requests.get(served.url + "/metrics", headers={"Accept": "application/openmetrics-text"}, timeout=10)
    assert asked.headers["Content-Type"].startswith("application/openmetrics-text")
    assert asked.text.endswith("# EOF\n")
    assert requests.post(served.url + "/metrics", timeout=10).status_code == 405


def test_a_row_of_a_model_that_is_not_compiled_is_one_hit(tmp_path: Path) -> None:
    fin_pyfunc.save_model(logistic().estimator, logistic().train, tmp_path / "model")
    with serving("-m", str(tmp_path / "model"), "--backend", "native", folder=tmp_path) as server:
        before = total(scrape(server.url), "fin_pyfunc_cache_hits_total")
        for _ in range(5):
            assert server.predict(logistic().train.iloc[0].to_dict()).headers["X-Model-Backend"] == "native"
        assert total(scrape(server.url), "fin_pyfunc_cache_hits_total") == before + 5


def test_without_metrics_there_is_no_route_and_no_file(shelf: Shelf, tmp_path: Path) -> None:
    env = {"MLFLOW_TRACKING_URI": shelf.tracking_uri, "FIN_PYFUNC__METRICS__ENABLED": "false", "TMPDIR": str(tmp_path)}
    with serving("-m", CHAMPION, folder=tmp_path, env=env) as server:
        assert server.predict(row()).status_code == 200
        assert requests.get(server.url + "/metrics", timeout=10).status_code == 404
        assert not list(tmp_path.rglob("*.db"))


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="Prometheus is not installed")
def test_a_real_prometheus_scrapes_it_and_knows_every_rule(served: Serving, tmp_path: Path) -> None:
    for file in ("prometheus.yml", "alerts.yml"):
        shutil.copy(ROOT / "deploy" / "prometheus" / file, tmp_path)
    config = yaml.safe_load((tmp_path / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [served.url.removeprefix("http://")]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = ["prometheus", "--config.file=prometheus.yml", f"--web.listen-address=127.0.0.1:{port}"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--storage.tsdb.path=data"], cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT
        )
    url = f"http://127.0.0.1:{port}/api/v1"
    try:
        served.predict(row())

        def asked(query: str) -> list[dict[str, object]]:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                try:
                    answer = requests.get(f"{url}/query", params={"query": query}, timeout=10).json()
                    if found := answer["data"]["result"]:
                        return list(found)
                except (requests.ConnectionError, requests.JSONDecodeError, KeyError):
                    pass
                time.sleep(0.2)
            raise AssertionError(f"{query} is nothing:\n{(tmp_path / 'log').read_text()}")

        assert asked('up{job="fin-pyfunc"} == 1')
        assert asked('sum(fin_pyfunc_requests_total{route="/predict",status="200"}) > 0')
        assert asked('fin_pyfunc_request_seconds_bucket{route="/predict",le="0.0001"}')
        assert asked("histogram_quantile(0.99, sum by (le) (fin_pyfunc_request_seconds_bucket)) > 0")
        for panel in json.loads((ROOT / "deploy/grafana/dashboards/fin-pyfunc.json").read_text())["panels"]:
            for target in panel.get("targets", []):
                query = target["expr"].replace("$instance", ".*").replace("$__rate_interval", "1m")
                answer = requests.get(f"{url}/query", params={"query": query}, timeout=10).json()
                assert answer["status"] == "success", (query, answer)
        rules = requests.get(f"{url}/rules", timeout=10).json()["data"]["groups"][0]["rules"]
        assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
    finally:
        process.terminate()
        process.wait(30)
