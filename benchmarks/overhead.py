"""What looking on costs: the same server with nothing that looks on, with metrics, and with JSON logs beside them."""

from __future__ import annotations

from benchmarks import contenders
from benchmarks.bench import Bench
from benchmarks.row import Row
from benchmarks.settings import side_by_side

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
    return _rows({name: [one.rate for one in of] for name, of in side_by_side(bench, servers, CONNECTIONS).items()})


def _rows(rates: dict[str, list[float]]) -> list[Row]:
    bare, *watched = WATCHED
    lines = [
        Row(0, f"requests/s at {CONNECTIONS} connections, {name} looking on", "/s", rates[name]) for name in WATCHED
    ]
    for name in watched:
        lost = [1 - with_it / without for with_it, without in zip(rates[name], rates[bare], strict=True)]
        lines.append(Row(0, f"part of the throughput that {name} cost", "", lost, at_most=AT_MOST.get(name)))
    return lines
