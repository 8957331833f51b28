"""Settings from the environment and the command line, and what is said about a mistake in either."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fin_pyfunc.serving.settings import Cors, SettingsError, load
from tests.configs import api, refusal, value_of


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("MLFLOW_TRACKING_URI", "http://m:5000", "mlflow.tracking_uri", "http://m:5000"),
        ("MLFLOW_TRACKING_URI", "", "mlflow.tracking_uri", None),
        ("MLFLOW_EXPERIMENT_NAME", "fx", "mlflow.experiment_name", "fx"),
        ("FIN_PYFUNC__PORT", "9000", "port", 9000),
        ("FIN_PYFUNC_PORT", "tcp://10.0.0.1:8000", "port", 8000),
        ("FIN_PYFUNC__MODEL_URI", "", "model_uri", None),
        ("FIN_PYFUNC__LIMITS__SCORE_THREADS", "2", "limits.score_threads", 2),
        ("FIN_PYFUNC__LIMITS__REQUEST_SECONDS", "5", "limits.request_seconds", 5.0),
        ("FIN_PYFUNC__CORS__ALLOW_ORIGINS", "https://a, https://b", "cors.allow_origins", ("https://a", "https://b")),
        ("FIN_PYFUNC__CORS__ALLOW_ORIGINS", '["https://a,b"]', "cors.allow_origins", ("https://a,b",)),
        ("FIN_PYFUNC__CORS__ALLOW_METHODS", "", "cors.allow_methods", ()),
        *[("FIN_PYFUNC__ENABLED", text, "enabled", True) for text in ("true", "1", "yes", "ON")],
        *[("FIN_PYFUNC__ENABLED", text, "enabled", False) for text in ("False", "0", "no", "off")],
    ],
)
def test_the_environment_sets_a_setting(variable: str, text: str, name: str, value: object) -> None:
    found = value_of(load(environ={variable: text}), name)
    assert found == value
    assert type(found) is type(value)


def test_our_variable_beats_mlflows() -> None:
    environ = {"MLFLOW_TRACKING_URI": "http://a", "FIN_PYFUNC__MLFLOW__TRACKING_URI": "http://b"}
    assert load(environ=environ).mlflow.tracking_uri == "http://b"


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        (
            "FIN_PYFUNC__PROT",
            "1",
            "FIN_PYFUNC__PROT: unknown setting in the environment; did you mean 'FIN_PYFUNC__PORT'?",
        ),
        (
            "FIN_PYFUNC__PORT",
            "tcp://x",
            "deployment.api.port: expected an integer from 0 to 65535, got a string "
            "(from the environment variable FIN_PYFUNC__PORT)",
        ),
        (
            "FIN_PYFUNC__PORT",
            "70000",
            "deployment.api.port: expected an integer from 0 to 65535, got 70000 "
            "(from the environment variable FIN_PYFUNC__PORT)",
        ),
        (
            "FIN_PYFUNC__ENABLED",
            "maybe",
            "deployment.api.enabled: expected a boolean, got a string "
            "(from the environment variable FIN_PYFUNC__ENABLED)",
        ),
        (
            "FIN_PYFUNC__CORS__ALLOW_ORIGINS",
            '["a"',
            "deployment.api.cors.allow_origins: expected items with commas between them, or a JSON list, "
            "got a broken JSON list (from the environment variable FIN_PYFUNC__CORS__ALLOW_ORIGINS)",
        ),
        (
            "FIN_PYFUNC__LIMITS__LOAD_SECONDS",
            "",
            None,
        ),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(variable: str, text: str, said: str | None) -> None:
    message = refusal(environ={variable: text})
    assert variable in message
    assert said is None or message == said


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"prot": 1}, "deployment.api.prot: unknown key; did you mean 'port'? (from the command line)"),
        (
            {"port": "80"},
            "deployment.api.port: expected an integer from 0 to 65535, got a string (from the command line)",
        ),
        (
            {"workers": True},
            "deployment.api.workers: expected an integer of at least 1, got true (from the command line)",
        ),
    ],
)
def test_a_mistake_on_the_command_line_names_the_key(overrides: dict[str, object], said: str) -> None:
    assert refusal(overrides=overrides) == said


def test_an_unset_variable_in_the_file_does_not_matter_where_a_stronger_source_has_the_value(tmp_path: Path) -> None:
    file = api(tmp_path, 'model_uri: "${MODEL_URI}"')
    assert load(file, environ={}, overrides={"model_uri": "models:/m/1"}).model_uri == "models:/m/1"


def test_no_message_repeats_a_text_that_was_set(tmp_path: Path) -> None:
    file = api(tmp_path, "port: hunter2\nbackend: [hunter2]\nlog_level: hunter2")
    environ = {"FIN_PYFUNC__WORKERS": "hunter2", "FIN_PYFUNC__CORS__ALLOW_ORIGINS": "[hunter2"}
    assert "hunter2" not in refusal(file, environ=environ, overrides={"enabled": "hunter2"})


@pytest.mark.parametrize("origins", [["*"], ["https://a", "*"]])
def test_every_origin_with_credentials_is_refused_whichever_sources_say_so(tmp_path: Path, origins: list[str]) -> None:
    file = api(tmp_path, "cors: {allow_credentials: true}")
    message = refusal(file, overrides={"cors.allow_origins": origins})
    assert message.startswith("deployment.api.cors.allow_origins: '*' cannot be combined with")
    assert "list the exact origins instead, or set allow_credentials to false" in message
    with pytest.raises(SettingsError):
        Cors(allow_origins=tuple(origins), allow_credentials=True)


def test_the_process_environment_is_the_default() -> None:
    code = "from fin_pyfunc.serving.settings import load; print(load().port)"
    done = subprocess.run([sys.executable, "-c", code], env={"FIN_PYFUNC__PORT": "9"}, capture_output=True, check=True)
    assert done.stdout.strip() == b"9"
