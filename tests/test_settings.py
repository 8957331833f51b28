"""Settings: the list of them, and which source wins."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fin_pyfunc.serving.settings import Setting, Settings, fields, load
from tests.configs import ALL, refusal, value_of


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


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("rate.storage", "redis:/6379", "rate.storage: expected memory://"),
        ("rate.storage", "memcached://127.0.0.1", "rate.storage: expected memory://"),
        ("models.allow", ["*"], "models.allow: expected patterns that begin with runs:/ or models:/"),
        ("models.allow", ["runs:/*", "file:///srv/*"], "models.allow: expected patterns that begin with runs:/"),
        ("rate.trusted_proxies", ["*"], "rate.trusted_proxies: expected addresses and networks"),
        ("rate.trusted_proxies", ["proxy.local"], "rate.trusted_proxies: expected addresses and networks"),
        ("auth.jwks", "http://idp.example.com/keys", "auth.jwks: expected a file or an https:// address"),
        ("auth.jwks", "ftp://127.0.0.1/keys", "auth.jwks: expected a file or an https:// address"),
        ("admin.socket", "admin.sock", "admin.socket: expected auto or an absolute path"),
        ("admin.socket", "null", "admin.socket: expected auto or an absolute path"),
    ],
)
def test_an_address_that_would_be_believed_wrongly_is_refused_with_its_key(name: str, value: object, said: str) -> None:
    assert refusal(overrides={name: value}).startswith(f"deployment.api.{said}")


@pytest.mark.parametrize("mode", ["jwt", "keys+jwt"])
def test_each_setting_that_tokens_need_is_asked_for(mode: str) -> None:
    said = refusal(overrides={"auth.mode": mode, "auth.keys_file": "keys.json"})
    for name in ("jwks", "issuer", "audience"):
        assert f"deployment.api.auth.{name}: deployment.api.auth.mode is {mode}, which needs it" in said


# --- which source wins ------------------------------------------------------------------------------------------------


TEXT = st.text(alphabet="abcXYZ019 :/=@._-é", min_size=1, max_size=12).filter(lambda s: s.strip() == s)


def most(setting: Setting, otherwise: float) -> float:
    """The greatest value that a number may have."""
    found = re.search(r"(?:to|at most) ([\d.]+)", setting.type)
    return float(found[1]) if found else otherwise


def least(setting: Setting) -> int:
    """The least value that an integer may have, but for 0, which is no count."""
    found = re.search(r"at least (\d+)", setting.type)
    return max(1, int(found[1])) if found else 1


VALUES: dict[str, Callable[[Setting], st.SearchStrategy[Any]]] = {
    "boolean": lambda s: st.booleans(),
    "integer": lambda s: st.integers(least(s), int(most(s, 65535))),
    "number": lambda s: st.floats(0.001, most(s, 86400)) | st.just(1),
    "one": lambda s: st.sampled_from(s.type.removeprefix("one of ").split(", ")),
    "non-empty": lambda s: TEXT,
    "list": lambda s: st.lists(TEXT, max_size=3),
    # and for settings whose type says less than what they take
    "auth.mode": lambda s: st.sampled_from(("off", "external")),
    "admin.socket": lambda s: st.sampled_from(("auto", "/run/fin-pyfunc/admin.sock")),
    "record.features": lambda s: st.just("values"),
    "auth.jwks": lambda s: st.sampled_from(("jwks.json", "https://idp.example.com/keys", "http://127.0.0.1:8080/keys")),
    "rate.storage": lambda s: st.sampled_from(("memory://", "redis://127.0.0.1:6379/0", "rediss://user:word@cache/1")),
    "models.allow": lambda s: st.lists(
        st.sampled_from(("runs:/*", "models:/*", "models:/eurusd_*@champion")), max_size=3
    ),
    "rate.trusted_proxies": lambda s: st.lists(st.sampled_from(("10.0.0.1", "10.1.0.0/16", "fd00::/8")), max_size=3),
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
