"""The results on disk: results.json, results.md and latency.png."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.data import CLASSES, FEATURES, TREES
from benchmarks.row import Row

RESULTS = Path(__file__).with_name("results")
#: Percentile to milliseconds, by contender, by connections.
Latencies = dict[int, dict[str, dict[float, float]]]


def write(
    folder: Path, rows: list[Row], machine: dict[str, Any], settings: dict[str, Any], latencies: Latencies
) -> None:
    """Write all of them; the plot only where servers were measured."""
    folder.mkdir(parents=True, exist_ok=True)
    result = {
        "machine": machine,
        "settings": settings,
        "results": [row.as_dict() for row in rows],
        "latencies_ms": latencies,
    }
    (folder / "results.json").write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "results.md").write_text(markdown(rows, machine, settings), encoding="utf-8")
    if latencies:
        plot(folder / "latency.png", latencies)


def markdown(rows: list[Row], machine: dict[str, Any], settings: dict[str, Any]) -> str:
    """The result for people: a table of targets, and one of what else was measured."""
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    lines = [
        "# Measured",
        "",
        f"Medians of {settings['rounds']} alternating rounds of {settings['seconds']:g} s a measurement, within one "
        f"process of {settings['blocks']} blocks of calls (least to greatest); ratios are taken round by round. The "
        f"forest has {TREES} trees, {FEATURES} features and {CLASSES} classes. Every server has one worker and its "
        "default settings, and was seen to answer as the estimator does before it was measured. The driver "
        f"({machine['driver']}) runs on the same machine and takes part of it.",
        "",
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}, kernel "
        f"{machine['kernel']}; Python {machine['python']}; {versions}; commit {machine['commit']}. "
        f"Made by `python -m benchmarks{settings['arguments']}`.",
        "",
        "| point | what | target | measured | met |",
        "|---:|---|---|---|---|",
    ]
    met = {True: "yes", False: "**no**"}
    lines += [
        f"| {row.point} | {_named(row)} | {row.target} | {row.measured()} | {met[bool(row.met)]} |"
        for row in sorted(rows, key=lambda row: row.point)
        if row.has_target
    ]
    figures = [row for row in sorted(rows, key=lambda row: row.point) if not row.has_target]
    if figures:
        lines += ["", "What else was measured:", "", "| point | what | measured |", "|---:|---|---|"]
        lines += [f"| {row.point or ''} | {_named(row)} | {row.measured()} |" for row in figures]
    if settings["left_out"]:
        lines += ["", "Left out:", ""]
        lines += [f"- {name}: {reason}" for name, reason in settings["left_out"].items()]
    return "\n".join(lines) + "\n"


def _named(row: Row) -> str:
    return f"{row.what} ({row.note})" if row.note else row.what


def plot(file: Path, latencies: Latencies) -> None:
    """Percentiles of latency on a logarithmic scale, one line a contender, one panel a number of connections."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    names = list(next(iter(latencies.values())))
    colours = {name: f"C{i}" for i, name in enumerate(names)}
    figure, axes = plt.subplots(1, len(latencies), figsize=(6 * len(latencies), 4.6), sharey=True, squeeze=False)
    for ax, (connections, lines) in zip(axes[0], latencies.items(), strict=True):
        for name, line in lines.items():
            places = range(len(line))
            ax.plot(places, list(line.values()), marker="o", markersize=4, label=name, color=colours[name])
            ax.set_xticks(places, [f"p{p:g}" for p in line])
        ax.set_yscale("log")
        ax.set_title(f"{connections} connection{'s' * (connections > 1)}")
        ax.grid(which="major", alpha=0.35)
        ax.grid(which="minor", axis="y", alpha=0.12)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("latency, ms (log scale)")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.suptitle(f"One row a request, a forest of {TREES} trees, one worker each")
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.set_layout_engine("constrained")
    figure.savefig(file, dpi=120)
    plt.close(figure)
