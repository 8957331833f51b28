"""Writes docs/configuration.md from the settings themselves; a test says whether it is up to date."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from fin_pyfunc.serving.settings import fields

HEAD = """# Configuration

Written by `make docs` from the settings themselves; do not edit by hand.

`fin-pyfunc serve --config FILE` reads YAML, and `configs/deployment/api.yaml` is such a file with every setting in it.
`${NAME:default}` and `${NAME}` stand for environment variables. Command-line options beat environment variables, those
beat the file, that beats the defaults. `MLFLOW_TRACKING_URI`, `MLFLOW_EXPERIMENT_NAME` and `FIN_PYFUNC_BACKEND` are
read too; the variable of a setting beats them. In a variable, a list is `a,b` or a JSON list, and an empty text is null
or an empty list. An unknown key, or a value that does not fit, stops the start with the key's full name.

"""


def reference() -> str:
    """The whole page."""
    lines = ["| setting | type | default | environment variable | meaning |", "|---|---|---|---|---|"]
    for setting in fields():
        default = msgspec.json.encode(setting.default).decode()
        cells = (f"`{setting.key}`", setting.type, f"`{default}`", f"`{setting.variable}`", setting.description)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return HEAD + "\n".join(lines) + "\n"


def main() -> None:
    """Write the page."""
    (Path(__file__).parent / "configuration.md").write_text(reference(), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
