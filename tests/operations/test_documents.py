"""What is written about metrics, logs and signals, and what Prometheus and Grafana are told, is what there is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from fin_pyfunc.serving.logs.lines import Line
from fin_pyfunc.serving.metrics import definitions as m
from fin_pyfunc.serving.settings import fields
from tests.documentation.blocks import ROOT, read

PROMETHEUS, GRAFANA = ROOT / "deploy" / "prometheus", ROOT / "deploy" / "grafana"
OPERATIONS = "docs/operations.md"
ALERTS = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((GRAFANA / "dashboards" / "fin-pyfunc.json").read_text())
NAMES = {metric.exposed for metric in m.ALL}
SERIES = NAMES | {f"{x.name}{end}" for x in m.ALL if x.kind == "histogram" for end in ("_bucket", "_sum", "_count")}


def section(title: str) -> str:
    return read(OPERATIONS).partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def table(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in re.findall(r"^\| .*$", text, re.M)]


def asked(expression: str) -> set[str]:
    return set(re.findall(r"fin_pyfunc_\w+", expression))


def panels() -> list[tuple[str, str]]:
    return [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]


def test_every_metric_is_documented_as_it_is() -> None:
    rows = {row[0].strip("`"): row[1:] for row in table(section("Metrics"))[1:]}
    assert set(rows) == NAMES
    for metric in m.ALL:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        assert rows[metric.exposed] == [metric.kind, labels, metric.help]


def test_every_field_of_the_log_is_documented_in_its_order() -> None:
    assert [row[0].strip("`") for row in table(section("Logs"))[1:]] == list(Line.__struct_fields__)


def test_every_name_in_the_page_exists() -> None:
    """Metrics, settings and alerts in the sections that are about them."""
    text = "".join(section(title) for title in ("Metrics", "Logs", "Traces", "Signals", "Runbook"))
    families = {metric.name for metric in m.ALL if metric.kind == "histogram"}
    assert asked(text) <= SERIES | families
    alerts = {rule["alert"] for rule in ALERTS}
    assert set(re.findall(r"FinPyfunc[A-Z]\w+", text)) == alerts  # and every alert is in the runbook
    settings = {setting.name for setting in fields()}
    sections = {name.partition(".")[0] for name in settings if "." in name}
    dotted = re.findall(r"`((?:\w+)\.(?:\w+))(?:: \w+)?`", text)
    assert {name for name in dotted if name.partition(".")[0] in sections} <= settings
    plain = {"log_format", "log_level", "log_requests", "drain_seconds", "model_uri", "preload", "workers"}
    assert plain <= settings
    assert all(f"`{name}" in text for name in plain)


def test_every_signal_that_is_handled_is_documented() -> None:
    from fin_pyfunc.serving.life.arbiter import ReplacingArbiter

    handled = {f"SIG{name.removeprefix('handle_').upper()}" for name in dir(ReplacingArbiter) if "handle_" in name}
    handled -= {"SIGCHLD", "SIGCLD", "SIGWINCH"}  # of children, and of daemons, which this server is not
    handled = {name for name in handled if re.fullmatch(r"SIG[A-Z]+\d?", name)}
    documented = {name for row in table(section("Signals"))[1:] for name in re.findall(r"SIG\w+", row[0])}
    assert documented == handled


def test_the_runbook_has_ten_entries() -> None:
    assert [row[0].partition(".")[0] for row in table(section("Runbook"))[1:]] == [str(i) for i in range(1, 11)]


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_asks_for_metrics_and_labels_that_exist(rule: dict[str, Any]) -> None:
    assert asked(rule["expr"]) <= SERIES
    assert rule["labels"]["severity"] in ("page", "ticket")
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert f"## {anchor.capitalize()}\n" in read(page)
    for name, selector in re.findall(r"(fin_pyfunc_\w+)\{([^}]*)\}", rule["expr"]):
        metric = next(x for x in m.ALL if name.startswith(x.name))
        assert set(re.findall(r"(\w+)=", selector)) <= {*metric.labels, "le", "instance"}


@pytest.mark.parametrize(("title", "expression"), panels())
def test_every_panel_asks_for_metrics_that_exist(title: str, expression: str) -> None:
    assert asked(expression) <= SERIES, title
    assert asked(expression)


def test_the_dashboard_shows_every_metric() -> None:
    shown = set().union(*(asked(expression) for _, expression in panels()))
    missing = {x.exposed for x in m.ALL if not any(name.startswith(x.name) for name in shown)}
    assert not missing


def test_provisioning_leads_to_the_dashboard_and_the_data_source() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert compose["grafana"]["profiles"] == compose["prometheus"]["profiles"] == ["monitoring"]
    mounted = {volume.split(":")[1]: ROOT / volume.split(":")[0] for volume in compose["grafana"]["volumes"][:2]}
    provider = yaml.safe_load((GRAFANA / "provisioning/dashboards/fin-pyfunc.yml").read_text())["providers"][0]
    folder = mounted[provider["options"]["path"]]
    assert list(folder.glob("*.json")) == [GRAFANA / "dashboards" / "fin-pyfunc.json"]
    source = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"][0]
    assert source["url"] == "http://prometheus:9090"
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    assert config["scrape_configs"][0]["static_configs"][0]["targets"] == ["api:8000"]  # as compose.yaml names it
    assert "api" in compose


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "prometheus.yml"), ("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")],
)
def test_promtool_finds_nothing_wrong_and_each_alert_is_tripped(arguments: tuple[str, ...], tmp_path: Path) -> None:
    shutil.copytree(PROMETHEUS, tmp_path / "prometheus")
    done = subprocess.run(
        ["promtool", *arguments], cwd=tmp_path / "prometheus", capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    tests = (PROMETHEUS / "alerts_test.yml").read_text()
    assert all(f'alertname="{rule["alert"]}"' in tests for rule in ALERTS)


@pytest.mark.skipif(
    shutil.which("docker") is None
    or subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode != 0,
    reason="docker compose is not installed",
)
def test_docker_compose_reads_the_monitoring_profile() -> None:
    command = ["docker", "compose", "--profile", "monitoring", "config", "--services"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert {"api", "mlflow", "prometheus", "grafana"} <= set(done.stdout.split())
