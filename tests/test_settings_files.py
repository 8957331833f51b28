"""Settings from a configuration file, and what is said about a mistake in one."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fin_pyfunc.serving.settings import MAX_FILE_BYTES, Settings, SettingsError, fields, load
from tests.configs import ALL, api, refusal, value_of, write

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
