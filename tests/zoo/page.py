"""docs/models.md: written from outcomes, and read again."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.zoo.case import Outcome

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
HEAD = """# Models

Written by `make zoo`, which logs each of these models with its default options, serves it, and compares every backend
with the estimator's own `predict` and `predict_proba`: on rows at each threshold, edge and category boundary and the
closest floats beside it, on extreme and missing values, in batches of several sizes and alone. In what is listed here
as served, no answer had another class than the estimator's, or another word of confidence.

- **Served by**: what computes it. `trees`, `program`, `onnx` and `treelite` are compiled forms, which answer one row
  in microseconds; `native` is the estimator itself, in milliseconds. What is compiled can be served natively, too.
  (cloudpickle): it must be logged with `serialization="cloudpickle"`, and only servers that trust pickles load it.
- **Difference**: the greatest difference of a probability from the estimator's own, to the power of ten; rounding is
  about 1e-16. Rows too close to call for a compiled form are answered by the estimator.
- **Data**: what it was trained on, where that is not float64 columns and three classes. "all" stands, of scikit-learn's
  classifiers, for three classes and two, float64 and float32 columns, a NumPy array, and missing values where the
  estimator takes them; of its transformers, for a logistic regression and a random forest behind them.
- A refused model is refused when it is logged, with the sentence that is quoted.
"""
COLUMNS = ("Model", "Data", "Served by", "Difference", "Remark")
#: What most are trained on, which goes without saying.
PLAIN = "numbers"


def page(outcomes: Sequence[Outcome], order: Mapping[str, str], before: str = "") -> str:
    """Write the whole page: a table a heading, a line a model, or a few where its data makes a difference.

    Parameters
    ----------
    outcomes : sequence of Outcome
    order : mapping of str to str
        The headings in their order, each with what is to be said below its table.
    before : str, default ""
        The page as it was: of a heading that nothing was checked of it keeps what it says.
    """
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[outcome.group].append(outcome)
    parts = []
    for group, note in order.items():
        table = f"\n## {group}\n\n{_table(groups[group])}" + (f"\n{note}\n" if note else "")
        parts.append(table if group in groups else section(group, before))
    return HEAD + "".join(parts)


def section(group: str, text: str) -> str:
    """One heading's part of a page; empty where it has none."""
    _, found, rest = text.partition(f"\n## {group}\n")
    return f"{found}{rest.partition(chr(10) + '## ')[0]}" if found else ""


def _table(outcomes: Sequence[Outcome]) -> str:
    names: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        names[outcome.name].append(outcome)
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    for name, of in names.items():
        lines += _lines(name, of)
    return "\n".join(lines) + "\n"


def _lines(name: str, outcomes: Sequence[Outcome]) -> list[str]:
    alike: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        alike[outcome.served_by, _remark(outcome)].append(outcome)
    lines = []
    for (served_by, remark), of in alike.items():
        data = "all" if len(alike) == 1 and len(of) > 1 else "; ".join(outcome.data for outcome in of)
        cells = (name, "" if data == PLAIN else data, served_by, _difference(of), remark)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return lines


def _remark(outcome: Outcome) -> str:
    said = " ".join(outcome.says.split())
    return f"not compiled: {said}" if said and outcome.served_by == "native" else said


def _difference(outcomes: Sequence[Outcome]) -> str:
    if any(outcome.verdict not in ("served", "wrong") for outcome in outcomes):
        return ""
    greatest = max((value for outcome in outcomes for value in outcome.differences.values()), default=0.0)
    return "none" if greatest == 0 else f"1e{math.ceil(math.log10(greatest))}"


def served(text: str) -> dict[tuple[str, str, str], tuple[str, str]]:
    """By heading, model and data, what serves it and the remark, as a page says."""
    found, group = {}, ""
    for line in text.splitlines():
        if line.startswith("## "):
            group = line.removeprefix("## ")
        elif line.startswith("| ") and not line.startswith(f"| {COLUMNS[0]} |"):
            name, data, by, _, remark = (cell.strip() for cell in line.strip("|").replace("\\|", "\0").split("|"))
            for each in (data or PLAIN).split("; "):
                found[group, name.replace("\0", "|"), each] = by, remark.replace("\0", "|")
    return found
