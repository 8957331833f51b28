"""YAML of strangers: the values that PyYAML's safe loader reads, or an error at once."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from fin_pyfunc.model import yaml_text

MERGES = "a0: &a0 {k: v}\n" + "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 41))
HOSTILE = {
    "flow mappings in each other": "a: " + "{a: " * 100_000,
    "flow sequences in each other": "[" * 4_000_000,
    "block sequences in each other": "- " * 4_000_000,
    "keys in each other": "? " * 4_000_000,
    "merges of merges": MERGES,
    "a merge": "a: &a {k: v}\nb: {<<: *a}\n",
    "a million keys": "{" + ",".join(f"k{i}" for i in range(1_000_000)) + "}",
    "a number to the base of 60": "a: 1" + ":1" * 1_000_000,
    "the same, by its tag": "a: !!int '1" + ":1" * 1_000_000 + "'",
    "a fraction to the base of 60": "a: 1" + ":1" * 1_000_000 + ".0",
    "a date that there is not": "d: 2020-99-99",
    "two documents": "a: 1\n---\nb: 2\n",
    "an object of Python": "a: !!python/object/apply:os.system ['true']",
    "a name of Python": "a: !!python/name:os.system",
    "a list as a key": "? [a, b]\n: 1\n",
    "no end": "a: [",
    "no text": "\x00\x01",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_text_is_an_error_at_once(name: str) -> None:
    started = time.thread_time()
    with pytest.raises(ValueError, match=r"it is no YAML|nested too deep|digits|month must be"):
        yaml_text.parse(HOSTILE[name].encode())
    assert time.thread_time() - started < 5


def test_a_nesting_that_ends_pyyaml_s_process_does_not_end_this_one() -> None:
    """The reason for looking first: where PyYAML itself learns to bear it, the look can go."""
    program = "import yaml; yaml.load('{a: ' * 200_000, yaml.CSafeLoader)"
    if not yaml.__with_libyaml__:
        pytest.skip("PyYAML was installed without libyaml")
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode < 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: [1, 2.5, 0x1f, 1e3, 190:20:30, true, null, ~, 2020-01-02, 'text', \"\\u00e9\", !!str 3]",
        "a: &x [1]\nb: *x\nc: &y {d: *x}\n",
        "a: &x [*x]\n",
        "'<': '<-'\n",
        "a: |\n  two\n  lines\nb: >\n  folded\n",
        "a: " + "[" * 48 + "]" * 48,
    ],
)
def test_any_other_text_has_the_values_that_pyyaml_reads(text: str) -> None:
    assert repr(yaml_text.parse(text.encode())) == repr(yaml.safe_load(text))


def test_the_mlmodel_of_earlier_versions_is_read(tmp_path: Path) -> None:
    for file in (Path(__file__).with_name("fixtures")).glob("*/MLmodel"):
        assert yaml_text.parse(file.read_bytes()) == yaml.safe_load(file.read_bytes())
