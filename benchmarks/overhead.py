"""What looking on costs: the same server with nothing that looks on, with metrics, and with JSON logs beside them."""

from __future__ import annotations

from benchmarks import contenders
from benchmarks.bench import Bench
from benchmarks.row import Row
from benchmarks.settings import Windows, beside, medians, side_by_side

CONNECTIONS = 16
#: What is on, by name; the first is what the others are compared with.
WATCHED: dict[str, dict[str, str]] = {
    "nothing": {"FIN_PYFUNC__METRICS__ENABLED": "false"},
    "metrics": {"FIN_PYFUNC__METRICS__ENABLED": "true"},
    "metrics and JSON logs": {"FIN_PYFUNC__METRICS__ENABLED": "true", "FIN_PYFUNC__LOG_FORMAT": "json"},
}
#: How much of the throughput each may cost, of what is left without it.
AT_MOST = {"metrics and JSON logs": 0.08}


def measure(bench: Bench) -> list[Row]:
    """The same server once a way to look on, side by side."""
    uri = bench.models.ours["forest"]
    servers = [contenders.ours(uri, name=name, environ=environ) for name, environ in WATCHED.items()]
    return _rows(side_by_side(bench, servers, CONNECTIONS))


def _rows(found: Windows) -> list[Row]:
    bare, *watched = WATCHED
    lines: list[Row] = []
    for name, of in found.items():
        what = f"at {CONNECTIONS} connections, {name} looking on"
        lines.append(Row(0, f"requests/s {what}", "/s", medians(of, lambda window: window.found.rate)))
        lines.append(Row(0, f"processor time a request {what}", "µs", medians(of, lambda window: window.processor)))
    for name in watched:
        lost = [1 - left for left in beside(found[name], found[bare])]
        more = [ratio - 1 for ratio in beside(found[name], found[bare], lambda window: window.processor)]
        lines.append(Row(0, f"part of the throughput that {name} cost", "", lost, at_most=AT_MOST.get(name)))
        lines.append(Row(0, f"part of the processor time that {name} cost on top", "", more))
    return lines
