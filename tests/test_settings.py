"""Settings: every source, which one wins, and what is said about a mistake in each."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fin_pyfunc.model.errors import FinPyfuncError
from fin_pyfunc.serving.settings import MAX_FILE_BYTES, Cors, Setting, Settings, SettingsError, fields, load

SHIPPED = Path(__file__).parent.parent / "configs" / "deployment" / "api.yaml"
GUIDE = """\
deployment:
  api:
    enabled: true
    host: "0.0.0.0"
    port: 8000
    mlflow:
      tracking_uri: "${MLFLOW_TRACKING_URI:file:./mlruns}"
      experiment_name: "financial_ml"
"""
ALL = {setting.name: setting for setting in fields()}


def write(path: Path, text: str) -> str:
    file = path / "api.yaml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def api(path: Path, text: str) -> str:
    """A file with `text` as its deployment.api section."""
    return write(path, "deployment:\n  api:\n" + "".join(f"    {line}\n" for line in text.splitlines()))


def value_of(settings: Settings, name: str) -> object:
    found: Any = settings
    for part in name.split("."):
        found = getattr(found, part)
    return found


def refusal(*args: Any, **kwargs: Any) -> str:
    kwargs.setdefault("environ", {})
    with pytest.raises(SettingsError) as caught:
        load(*args, **kwargs)
    assert isinstance(caught.value, FinPyfuncError)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- the list of settings ---------------------------------------------------------------------------------------------


def test_without_any_source_every_setting_has_its_default() -> None:
    settings = load(environ={})
    assert settings == Settings()
    assert {name: value_of(settings, name) for name in ALL} == {name: s.default for name, s in ALL.items()}


def test_every_setting_is_described_once_and_its_default_is_valid() -> None:
    listed = list(fields())
    assert len(listed) == len(ALL) == len({s.variable for s in listed})
    for setting in listed:
        assert setting.description.endswith(".")
        assert setting.type
        assert msgspec.convert(setting.default, setting.annotation) == setting.default


def test_a_setting_says_its_key_variable_type_and_default() -> None:
    setting = ALL["cache.max_models"]
    assert setting.key == "deployment.api.cache.max_models"
    assert setting.variable == "FIN_PYFUNC__CACHE__MAX_MODELS"
    assert (setting.type, setting.default) == ("integer of at least 1", 10)
    assert ALL["port"].type == "integer from 0 to 65535"
    assert ALL["log_level"].type == "one of debug, info, warning, error, critical"
    assert ALL["model_uri"].type == "non-empty string or null"
    assert ALL["cors.allow_origins"].type == "list of non-empty strings"
    assert ALL["limits.request_seconds"].type == "number of more than 0, at most 86400"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Settings().port = 1  # type: ignore[misc]  # what is tested


def test_reading_settings_loads_no_mlflow() -> None:
    code = "import sys, fin_pyfunc.serving.settings as s; s.load(environ={}); sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- files ------------------------------------------------------------------------------------------------------------


def test_the_shipped_file_lists_every_setting_exactly_once_in_the_order_of_the_types() -> None:
    def leaves(node: yaml.MappingNode, prefix: str = "") -> list[str]:
        found: list[str] = []
        for key, value in node.value:
            inner = isinstance(value, yaml.MappingNode)
            found += leaves(value, f"{prefix}{key.value}.") if inner else [prefix + key.value]
        return found

    root = yaml.compose(SHIPPED.read_text(encoding="utf-8"))
    assert isinstance(root, yaml.MappingNode)
    assert leaves(root) == [s.key for s in fields()]


def test_the_shipped_file_differs_from_the_defaults_only_in_where_it_listens_and_looks() -> None:
    settings = load(SHIPPED, environ={})
    differing = {name: value_of(settings, name) for name in ALL if value_of(settings, name) != ALL[name].default}
    assert differing == {"host": "0.0.0.0", "mlflow.tracking_uri": "sqlite:///mlflow.db"}


def test_the_guides_file_loads_as_it_stands(tmp_path: Path) -> None:
    file = write(tmp_path, GUIDE)
    settings = load(file, environ={})
    assert (settings.host, settings.port) == ("0.0.0.0", 8000)
    assert settings.mlflow.tracking_uri == "file:./mlruns"
    assert load(file, environ={"MLFLOW_TRACKING_URI": "http://m:5000"}).mlflow.tracking_uri == "http://m:5000"


def test_what_belongs_to_other_programs_is_left_alone(tmp_path: Path) -> None:
    text = "training: {port: x, secret: '${NOT_SET}'}\n" + GUIDE + "  batch: {prot: 1}\n"
    assert load(write(tmp_path, text), environ={}).port == 8000


@pytest.mark.parametrize("text", ["deployment: {api: }", "deployment: {api: {cors: , port: 8000}}"])
def test_an_empty_section_is_a_section_of_defaults(tmp_path: Path, text: str) -> None:
    assert load(write(tmp_path, text), environ={}) == Settings()


def test_references_take_the_type_of_their_setting(tmp_path: Path) -> None:
    file = api(
        tmp_path,
        'port: "${PORT:8000}"\nenabled: "${ON:yes}"\nmodel_uri: "${MODEL:}"\n'
        'cors: {allow_origins: "${ORIGINS:https://a, https://b}", allow_methods: ["${METHOD:GET}", PUT]}\n'
        'mlflow: {tracking_uri: "sqlite:///${DIR:/data}/${FILE}.db"}\nlimits: {request_seconds: "${S:5}"}',
    )
    settings = load(file, environ={"PORT": "9000", "FILE": "${PORT}", "DIR": ""})
    assert (settings.port, settings.enabled, settings.model_uri) == (9000, True, None)
    assert settings.cors.allow_origins == ("https://a", "https://b")
    assert settings.cors.allow_methods == ("GET", "PUT")
    assert settings.mlflow.tracking_uri == "sqlite:////data/${PORT}.db"
    assert settings.limits.request_seconds == 5.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cahce: {}", "deployment.api.cahce: unknown key; did you mean 'cache'? (from {file})"),
        (
            "cache: {max_model: 1}",
            "deployment.api.cache.max_model: unknown key; did you mean 'max_models'? (from {file})",
        ),
        ("max_models: 1", "deployment.api.max_models: unknown key; did you mean 'cache.max_models'? (from {file})"),
        ("zzz: 1", "deployment.api.zzz: unknown key (from {file})"),
        ('"": {"port": 1}', "deployment.api.: unknown key (from {file})"),
        (
            "cache: {max_models: ten}",
            "deployment.api.cache.max_models: expected an integer of at least 1, got a string (from {file})",
        ),
        (
            "cache: {max_models: 0}",
            "deployment.api.cache.max_models: expected an integer of at least 1, got 0 (from {file})",
        ),
        ("cache: 3", "deployment.api.cache: expected a mapping of settings, got 3 (from {file})"),
        ("port: true", "deployment.api.port: expected an integer from 0 to 65535, got true (from {file})"),
        ('port: "8000"', "deployment.api.port: expected an integer from 0 to 65535, got a string (from {file})"),
        ("port:", "deployment.api.port: expected an integer from 0 to 65535, got null (from {file})"),
        ("enabled: 1", "deployment.api.enabled: expected a boolean, got 1 (from {file})"),
        ('host: ""', "deployment.api.host: expected a non-empty string, got an empty string (from {file})"),
        (
            "limits: {request_seconds: .nan}",
            "deployment.api.limits.request_seconds: expected a number of more than 0, at most 86400, "
            "got a number out of range (from {file})",
        ),
        (
            "log_level: loud",
            "deployment.api.log_level: expected one of debug, info, warning, error, critical, got a string "
            "(from {file})",
        ),
        (
            "cors: {allow_origins: https://a}",
            "deployment.api.cors.allow_origins: expected a list of non-empty strings, got a string (from {file})",
        ),
        (
            "cors: {allow_origins: [https://a, 1]}",
            "deployment.api.cors.allow_origins: expected a list of non-empty strings, "
            "got a list that holds 1 (from {file})",
        ),
        (
            "cors: {allow_origins: &a [*a]}",
            "deployment.api.cors.allow_origins: expected a list of non-empty strings, "
            "got a list that holds a list (from {file})",
        ),
        (
            "mlflow: {experiment_name: 2024-01-01}",
            "deployment.api.mlflow.experiment_name: expected a non-empty string, got a date (from {file})",
        ),
        (
            'model_uri: "${MODEL_URI}"',
            "deployment.api.model_uri: needs the environment variable MODEL_URI, which is not set; "
            "set it, or give a default as in ${{MODEL_URI:default}} (from {file})",
        ),
        (
            'port: "${PORT:-8000}"',
            "deployment.api.port: write ${{PORT:default}}, without the '-' that a shell has after the colon "
            "(from {file})",
        ),
        (
            'host: "${HOST"',
            "deployment.api.host: holds a '${{' that is neither ${{NAME}} nor ${{NAME:default}} (from {file})",
        ),
    ],
)
def test_a_mistake_in_a_file_is_named_with_its_full_key(tmp_path: Path, text: str, said: str) -> None:
    file = api(tmp_path, text)
    assert refusal(file) == said.format(file=file)


def test_every_mistake_is_reported_at_once(tmp_path: Path) -> None:
    file = api(tmp_path, "port: x\ncahce: {}\nworkers: 0")
    message = refusal(file, environ={"FIN_PYFUNC__LOG_LEVEL": "loud"}, overrides={"nonsense": 1})
    for key in ("port", "cahce", "workers", "log_level", "nonsense"):
        assert message.count(f"deployment.api.{key}: ") == 1


def test_a_long_list_of_mistakes_is_cut_and_counted(tmp_path: Path) -> None:
    file = api(tmp_path, "\n".join(f"key{i}: 1" for i in range(25)))
    with pytest.raises(SettingsError, match=r"; and 15 more$") as caught:
        load(file, environ={})
    assert len(caught.value.problems) == 25


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"deployment:\n  api:\n    port: [1\n", "{file}: not valid YAML, line 4: "),
        (b"deployment:\n\tapi: 1\n", "{file}: not valid YAML, line 2: found character"),
        (b"deployment:\n  api:\n    port: 1\n    port: 2\n", "line 4: the key 'port' stands there twice"),
        (b"deployment: !!python/object/apply:os.getcwd []\n", "line 1: could not determine a constructor"),
        (b"a: 1\n---\nb: 2\n", "{file}: not valid YAML, line 2: but found another document"),
        (b"deployment: {api: {host: 2024-13-45}}", "{file}: not valid YAML, a character or a scalar"),
        (b"deployment: {api: {port: !!int ''}}", "{file}: not valid YAML, a character or a scalar"),
        (b"\xff\xfe\x00\xd8", "{file}: not valid YAML, a character or a scalar"),
        (b"[" * 100_000, "{file}: not valid YAML, nested too deeply"),
        (b"", "{file}: has no 'deployment.api' section; put the settings under 'deployment: api'"),
        (b"port: 8000", "{file}: has no 'deployment.api' section"),
        (b"deployment: 3", "{file}: has no 'deployment.api' section"),
        (b"deployment: {api: 3}", "deployment.api: expected a mapping of settings, got 3 (from {file})"),
        (b"#" * (MAX_FILE_BYTES + 1), "{file}: a configuration file may have at most 1048576 bytes"),
    ],
)
def test_a_file_that_cannot_be_read_as_configuration_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "api.yaml"
    file.write_bytes(content)
    assert said.format(file=file) in refusal(file)


@given(
    content=st.binary(max_size=200) | st.text(alphabet="{}[]:&*!<#'\"|>-?,% \n\taz09$.~", max_size=60).map(str.encode)
)
def test_no_file_makes_anything_but_settings_or_a_settings_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    for whole in (content, b"deployment: {api: " + content + b"}", b"deployment: {api: {host: " + content + b"}}"):
        file.write_bytes(whole)
        try:
            load(file, environ={})
        except SettingsError as error:
            assert "\n" not in str(error)  # noqa: PT017  either outcome is right


def test_a_merged_mapping_may_override_what_it_merges(tmp_path: Path) -> None:
    text = "base: &base {port: 1, workers: 2}\nmid: &mid {<<: *base, port: 2}\ndeployment: {api: {<<: *mid, port: 3}}\n"
    settings = load(write(tmp_path, text), environ={})
    assert (settings.port, settings.workers) == (3, 2)


@pytest.mark.parametrize("path", ["missing.yaml", ".", "a\0b"])
def test_a_path_that_is_no_file_is_refused(tmp_path: Path, path: str) -> None:
    assert "the configuration file cannot be read (" in refusal(f"{tmp_path}/{path}")


def test_an_unquoted_off_is_off(tmp_path: Path) -> None:
    assert load(api(tmp_path, "auth: {mode: off}"), environ={}).auth.mode == "off"


def test_keys_without_a_key_file_are_refused(tmp_path: Path) -> None:
    said = refusal(api(tmp_path, "auth: {mode: keys}"))
    assert said.startswith("deployment.api.auth.keys_file: ")
    assert "fin-pyfunc keys add" in said


@pytest.mark.parametrize(
    "text", ["100", "100/fortnight", "0/second", "-1/second", "1/second;2/minute", "fast", "9" * 5000 + "/day"]
)
def test_a_rate_that_is_none_is_refused_with_its_key(text: str) -> None:
    said = refusal(overrides={"rate.requests": text})
    assert said.startswith("deployment.api.rate.requests: expected one rate, such as 100/second")
    assert len(said) < 200


@pytest.mark.parametrize("text", ["100/second", "5 per 10 minutes", "1/day"])
def test_a_rate_is_one_of_the_limits_library(text: str) -> None:
    assert load(overrides={"rate.requests": text}, environ={}).rate.requests == text


# --- the environment and the command line -----------------------------------------------------------------------------


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


# --- which source wins ------------------------------------------------------------------------------------------------

TEXT = st.text(alphabet="abcXYZ019 :/=@._-é", min_size=1, max_size=12).filter(lambda s: s.strip() == s)
VALUES: dict[str, Callable[[Setting], st.SearchStrategy[Any]]] = {
    "boolean": lambda s: st.booleans(),
    "integer": lambda s: st.integers(1, 65535),
    "number": lambda s: st.floats(0.001, 86400) | st.integers(1, 86400),
    "one": lambda s: st.sampled_from(s.type.removeprefix("one of ").split(", ")),
    "non-empty": lambda s: TEXT,
    "list": lambda s: st.lists(TEXT, max_size=3),
    # and for settings whose type says less than what they take
    "auth.mode": lambda s: st.sampled_from(("off", "external")),
    "rate.requests": lambda s: st.builds("{}/{}".format, st.integers(1, 10**6), st.sampled_from(("second", "5 hours"))),
}


def as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@st.composite
def sources(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    """For each source, strongest first, what it says about some of the settings."""
    found: dict[str, dict[str, Any]] = {source: {} for source in ("command line", "ours", "mlflow's", "file")}
    for name in draw(st.lists(st.sampled_from(sorted(ALL)), unique=True, max_size=8)):
        for source, said in found.items():
            if draw(st.booleans()) and (source != "mlflow's" or name in MLFLOW):
                said[name] = draw(VALUES[name if name in VALUES else ALL[name].type.split()[0]](ALL[name]))
    return found


MLFLOW = {"mlflow.tracking_uri": "MLFLOW_TRACKING_URI", "mlflow.experiment_name": "MLFLOW_EXPERIMENT_NAME"}


@given(said=sources(), reference=st.booleans())
def test_the_command_line_beats_the_environment_beats_the_file_beats_the_defaults(
    tmp_path_factory: pytest.TempPathFactory, said: dict[str, dict[str, Any]], reference: bool
) -> None:
    section: dict[str, Any] = {}
    for name, value in said["file"].items():
        parent, _, leaf = name.rpartition(".")
        written = f"${{NOT_SET:{as_text(value)}}}" if reference and not as_text(value).startswith("-") else value
        (section.setdefault(parent, {}) if parent else section)[leaf] = written
    file = tmp_path_factory.getbasetemp() / "sources.yaml"
    file.write_text(yaml.safe_dump({"deployment": {"api": section}}, allow_unicode=True), encoding="utf-8")
    environ = {ALL[name].variable: as_text(value) for name, value in said["ours"].items()}
    environ |= {MLFLOW[name]: value for name, value in said["mlflow's"].items()}
    settings = load(file, environ=environ, overrides=dict.fromkeys(ALL) | said["command line"])
    for name, setting in ALL.items():
        expected = next((source[name] for source in said.values() if source.get(name) is not None), setting.default)
        assert value_of(settings, name) == (tuple(expected) if isinstance(expected, list) else expected)
