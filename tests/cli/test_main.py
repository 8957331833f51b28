"""The command line: every command has its help and its demo, and every error is one line and a non-zero exit."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import click
import mlflow
import pytest
from click.testing import CliRunner

import fin_pyfunc
from fin_pyfunc_cli.main import cli
from tests.cli.commands import in_a_process, refused
from tests.conftest import free_port


@pytest.mark.parametrize("name", ["", *cli.commands])
def test_every_help_has_an_example(name: str) -> None:
    result = CliRunner().invoke(cli, [*([name] if name else []), "--help"])
    assert result.exit_code == 0
    assert re.search(r"Example: fin-pyfunc \w+", result.output)


@pytest.mark.parametrize("name", ["", *(name for name in cli.commands if isinstance(cli.commands[name], click.Group))])
def test_no_summary_of_a_command_is_cut_short(name: str) -> None:
    result = CliRunner().invoke(cli, [*([name] if name else []), "--help"], terminal_width=80)
    summaries = " ".join(result.output.partition("Commands:\n")[2].split())
    assert "..." not in summaries
    group = cli.commands[name] if name else cli
    assert isinstance(group, click.Group)
    for command in group.commands.values():
        assert command.help is not None
        assert " ".join(command.help.split()).startswith(command.short_help or "?")
        assert command.short_help in summaries


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from fin_pyfunc_cli.main import main; main(['predict', '--help']); main(['--help']);"
        "print(sorted({'mlflow', 'pandas', 'numpy', 'sklearn', 'pyarrow'} & set(sys.modules)), file=sys.stderr)"
    )
    process = in_a_process(code, tmp_path)
    assert process.communicate(timeout=60)[1] == "[]\n"


def test_the_package_runs_as_a_module(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fin_pyfunc_cli"]
    version = subprocess.run([*command, "--version"], cwd=tmp_path, text=True, capture_output=True, check=True)
    assert version.stdout == f"fin-pyfunc, version {fin_pyfunc.__version__}\n"
    wrong = subprocess.run([*command, "predict", "-m", "x", "nope.csv"], cwd=tmp_path, text=True, capture_output=True)
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr == "Error: There is no file nope.csv: name a CSV or Parquet file.\n"
    assert not list(tmp_path.iterdir())


def test_ctrl_c_exits_130_without_a_traceback(tmp_path: Path) -> None:
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from fin_pyfunc_cli.main import main; main(['demo', '--trees', '10000'])"
    )
    process = in_a_process(code, tmp_path, "-u")
    assert process.stderr is not None
    assert "training" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "Traceback" not in err
    assert err.endswith("Aborted.\n")


def test_a_demo_is_made_once(logged: list[str], folder: Path) -> None:
    demo = ["demo", "--if-missing", "--trees", "5", "--mlflow-tracking-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    demo += ["--mlflow-experiment-name", "demo"]
    code = f"from fin_pyfunc_cli.main import main; main({demo}); main({demo})"
    process = in_a_process(code, folder)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out.count("registered models:/eurusd_rf@champion, version 1: accuracy 0.") == 1
    assert out.endswith("\nmodels:/eurusd_rf@champion is there already (version 1)\n")


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["bogus"], "No such command 'bogus'. See 'fin-pyfunc --help'."),
        (["predict", "new.csv"], "Missing option '-m' / '--model-uri'. See 'fin-pyfunc predict --help'."),
        (["models", "--limit", "0"], "0 is not in the range 1<=x<=1000. See 'fin-pyfunc models --help'."),
        (["log", "a.skops", "b.csv", "--alias", "x"], "--alias needs --register. See 'fin-pyfunc log --help'."),
        (["log", "a.skops", "b.csv", "--confidence-high", "2"], "2.0 is not in the range 0<=x<=1."),
    ],
)
def test_wrong_usage_is_one_line_that_names_the_help(args: list[str], expected: str) -> None:
    assert expected in refused(*args, code=2)


def test_a_store_that_does_not_answer_is_one_line(files: Path) -> None:
    there = ("--mlflow-tracking-uri", f"http://127.0.0.1:{free_port()}")
    for command in (
        ("models",),
        ("inspect", "models:/rf@champion"),
        ("log", "forest.skops", "train.csv"),
        ("predict", "-m", "models:/rf@champion", "new.csv"),
    ):
        assert "MLflow does not answer" in refused(*command, *there)
    mlflow.set_tracking_uri(f"sqlite:///{files / 'mlflow.db'}")


def test_a_command_that_reads_makes_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    there = ("--mlflow-tracking-uri", "sqlite:///mlflow.db")
    for command in (("models",), ("inspect", "models:/rf@champion"), ("predict", "-m", "models:/rf@champion", "x.csv")):
        (tmp_path / "x.csv").write_text("a\n1\n")
        assert "There is no MLflow store mlflow.db in" in refused(*command, *there)
    assert not (tmp_path / "mlflow.db").exists()
