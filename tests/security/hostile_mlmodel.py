"""Hostile models whose MLmodel leads a reader elsewhere, or is no plain text of data."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.security.hostile import DATA, FOLDERS, PAYLOADS, SUFFIXES, Case, Change, Hostile


def edit(change: Callable[[dict[str, Any], dict[str, Any], dict[str, Any]], None]) -> Change:
    """Change an MLmodel: the whole, its python_function, and its other flavor (its python_function where none)."""

    def apply(folder: Path, hostile: Hostile) -> None:
        file = folder / "MLmodel"
        whole = yaml.safe_load(file.read_text())
        flavors = whole["flavors"]
        function = flavors["python_function"]
        change(whole, function, next((of for name, of in flavors.items() if name != "python_function"), function))
        file.write_text(yaml.safe_dump(whole))

    return apply


# --- keys of MLmodel that lead to a payload

Lead = Callable[[dict[str, Any], dict[str, Any], dict[str, Any], str], None]


def _set(where: str, **values: Any) -> Lead:
    """Set keys, "{}" standing for the payload's path."""

    def lead(whole: dict[str, Any], function: dict[str, Any], flavor: dict[str, Any], path: str) -> None:
        target = {"whole": whole, "function": function, "flavor": flavor}[where]
        target.update(filled(values, path))

    return lead


def filled(value: Any, path: str) -> Any:
    if isinstance(value, dict):
        return {key: filled(of, path) for key, of in value.items()}
    if isinstance(value, list):
        return [filled(of, path) for of in value]
    if isinstance(value, str):
        return value.replace("{}", path).replace("{module}", Path(path).stem)
    return value


def _all_files(whole: dict[str, Any], function: dict[str, Any], flavor: dict[str, Any], path: str) -> None:
    """Lead every reader to the same payload."""
    for of, key in itertools.product((function, flavor), ("data", "model_path", "pickled_model", "python_model")):
        if key in of:
            of[key] = path


def _added_flavor(name: str, **values: Any) -> Lead:
    def lead(whole: dict[str, Any], function: dict[str, Any], flavor: dict[str, Any], path: str) -> None:
        whole["flavors"][name] = filled(values, path)

    return lead


def _removed_flavors(whole: dict[str, Any], function: dict[str, Any], flavor: dict[str, Any], path: str) -> None:
    whole["flavors"] = {"python_function": {**function, "data": path}}


LEADS: dict[str, Lead] = {
    "data": _set("function", data="{}"),
    "model_path": _set("function", model_path="{}"),
    "python_model": _set("function", python_model="{}", loader_module="mlflow.pyfunc.model"),
    "model_code_path": _set("function", model_code_path="{}", loader_module="mlflow.pyfunc.loaders.code_model"),
    "model_code_path alone": _set("function", model_code_path="{}"),
    "loader_module": _set("function", loader_module="mlflow.xgboost", data="{}"),
    "a loader module of its own": _set("function", loader_module="{module}", code="code"),
    "a loader module of Python's": _set("function", loader_module="pickle", data="{}"),
    "the flavor's file": _set("flavor", pickled_model="{}", data="{}"),
    "every file": _all_files,
    "artifacts": _set("function", artifacts={"fin_pyfunc": {"path": "{}", "uri": "{}"}}),
    "further artifacts": _set("function", artifacts={"m": {"path": "{}", "uri": "{}"}}),
    "config": _set("function", config={"backend": "{}", "path": "{}"}),
    "config that is a path": _set("function", config="{}"),
    "env": _set("function", env={"conda": "{}", "virtualenv": "{}"}),
    "predict_fn": _set("function", predict_fn="__reduce__"),
    "code": _set("function", code="{}"),
    "the flavor's code": _set("flavor", code="code"),
    "serialization_format": _set("flavor", serialization_format="pickle", pickled_model="{}"),
    "skops_trusted_types": _set("flavor", skops_trusted_types=["os.system", "posix.system", "builtins.str"]),
    "an sklearn flavor": _added_flavor("sklearn", pickled_model="{}", serialization_format="skops"),
    "an onnx flavor": _added_flavor("onnx", data="{}"),
    "a flavor that unpickles": _added_flavor("pytorch", model_data="{}", pickle_module_name="pickle"),
    "no flavor": _removed_flavors,
    "metadata": _set("whole", metadata={"fin_pyfunc": {"manifest_sha256": "0" * 64, "path": "{}"}}),
    "an input example": _set(
        "whole", saved_input_example_info={"artifact_path": "{}", "serving_input_path": "{}", "type": "json_object"}
    ),
    "a signature that is a path": _set("whole", signature="{}"),
    "a signature of paths": _set("whole", signature={"inputs": "{}", "outputs": "{}", "params": "{}"}),
    "resources": _set("whole", resources={"api_version": "1", "databricks": {"x": [{"name": "{}"}]}}, auth_policy="{}"),
    "env_vars": _set("whole", env_vars=["{}"], prompts=["{}"], model_id="{}", run_id="{}", artifact_path="{}"),
}


def led_elsewhere() -> Iterator[Case]:
    """Forms × keys × payloads; the payloads of a form and a key take turns at where they lie."""
    places = ("planted", "sub/planted", "code/planted", "artifacts/fin_pyfunc/planted")
    for (form, key, kind), place in zip(
        itertools.product(FOLDERS, LEADS, PAYLOADS), itertools.cycle(places), strict=False
    ):
        path = f"{place}{SUFFIXES.get(kind, '.pkl')}"

        def change(folder: Path, hostile: Hostile, key: str = key, kind: str = kind, path: str = path) -> None:
            hostile.payload(kind, folder / path)
            edit(lambda whole, function, flavor: LEADS[key](whole, function, flavor, path))(folder, hostile)

        yield Case(f"{form}: {key} leads to {kind} at {path}", form, change)


def led_out() -> Iterator[Case]:
    """Forms × keys × paths out of the folder."""
    paths = (
        "{c}/secret",
        "{c}/model",
        "../../../../../../../..{c}/model/model.pkl",
        "file://{c}/model",
        "{c}",
        "/dev/zero",
    )
    for form, key, out in itertools.product(DATA, LEADS, paths):

        def change(folder: Path, hostile: Hostile, key: str = key, out: str = out) -> None:
            path = out.format(c=hostile.canary.folder)
            edit(lambda whole, function, flavor: LEADS[key](whole, function, flavor, path))(folder, hostile)

        yield Case(f"{form}: {key} leads to {out}", form, change)


# --- the text of MLmodel

TEXTS: dict[str, Callable[[str, Hostile], str]] = {
    "an object of Python": lambda text, h: text + f"x: !!python/object/apply:os.system ['touch {h.canary.marker}']\n",
    "a name of Python": lambda text, h: text + "x: !!python/name:os.system\n",
    "a module of Python": lambda text, h: text + "x: !!python/module:antigravity\n",
    "two documents": lambda text, h: text + "---\n" + text,
    "another document first": lambda text, h: "flavors: {}\n---\n" + text,
    "flavors twice": lambda text, h: (
        text + "flavors: {python_function: {loader_module: pickle, data: e.pkl}, x: {data: e.pkl}}\n"
    ),
    "a merge": lambda text, h: (
        "base: &b {loader_module: pickle}\n" + text.replace("python_function:\n", "python_function:\n    <<: *b\n")
    ),
    "an anchor": lambda text, h: text + "a: &a [1, 2]\nb: *a\n",
    "an anchor to itself": lambda text, h: text + "a: &a [*a]\nb: &b {b: *b}\n",
    "merges of merges": lambda text, h: (
        text + "a0: &a0 {k: v}\n" + "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 40))
    ),
    "nested": lambda text, h: text + "x: " + "{a: " * 100_000,
    "nested, and closed": lambda text, h: text + "x: " + "[" * 900 + "]" * 900 + "\n",
    "a long number": lambda text, h: text + "x: 1" + ":1" * 500_000 + "\n",
    "a date that there is not": lambda text, h: text + "x: 2020-99-99\n",
    "a binary": lambda text, h: text + "x: !!binary Z2ltbWU=\ny: !!set {a, b}\nz: !!timestamp 2020-01-01\n",
    "UTF-16": lambda text, h: text.encode("utf-16").decode("utf-16-le"),
    "a byte order mark": lambda text, h: "\ufeff" + text,
    "carriage returns": lambda text, h: text.replace("\n", "\r\n"),
    "tabs": lambda text, h: text.replace("    ", "\t"),
    "nothing": lambda text, h: "",
    "a list": lambda text, h: "[1, 2]\n",
    "a scalar": lambda text, h: "text\n",
    "JSON": lambda text, h: yaml.safe_dump(yaml.safe_load(text), default_flow_style=True, width=10**9),
    "nulls": lambda text, h: "flavors: {python_function: null, sklearn: null}\n",
    "flavors that are lists": lambda text, h: "flavors: [python_function, sklearn]\n",
    "keys that are no text": lambda text, h: text.replace("flavors:\n", "flavors:\n  1: {}\n  2.5: {}\n"),
    "odd keys": lambda text, h: text + "? !!null x\n: 1\n? [a]\n: 2\n",
    "9 MiB": lambda text, h: text + "# " + "x" * (9 << 20) + "\n",
    "a directive": lambda text, h: (
        "%YAML 1.1\n%TAG !py! tag:yaml.org,2002:python/\n---\n"
        + text
        + f"x: !py!object/apply:os.system ['touch {h.canary.marker}']\n"
    ),
}


def rewritten() -> Iterator[Case]:
    for form, name in itertools.product(DATA, TEXTS):

        def change(folder: Path, hostile: Hostile, name: str = name) -> None:
            file = folder / "MLmodel"
            text = TEXTS[name](file.read_text(), hostile)
            file.write_bytes(text.encode("utf-16" if name == "UTF-16" else "utf-8", "surrogatepass"))
            (folder / "e.pkl").write_bytes(hostile.canary.pickle)

        yield Case(f"{form}: MLmodel with {name}", form, change)


# --- signatures

SCHEMAS: dict[str, Any] = {
    "other names": '[{"name": "__class__", "type": "double"}, {"name": "a b", "type": "double"}]',
    "an unknown type": '[{"name": "return_1", "type": "os.system"}]',
    "a tensor": '[{"type": "tensor", "tensor-spec": {"dtype": "object", "shape": [-1, 2]}}]',
    "a tensor of nothing": '[{"type": "tensor", "tensor-spec": {"dtype": "O8", "shape": [99999999999, 99999999999]}}]',
    "nested": "[" * 50_000 + "]" * 50_000,
    "an object": '[{"name": "return_1", "type": "object", "properties": {"a": {"type": "double"}}}]',
    "an array of arrays": '[{"name": "return_1", "type": "array", "items": {"type": "array"}}]',
    "no JSON": "{'a': 1}",
    "a number": "3",
    "null": "null",
    "a name twice": '[{"name": "return_1", "type": "double"}, {"name": "return_1", "type": "double"}]',
    "names that are numbers": '[{"name": 1, "type": "double"}]',
    "a Spark type": '[{"name": "return_1", "type": "sparkvector"}]',
    "very many columns": "[" + ",".join('{"name": "c%d", "type": "double"}' % i for i in range(20_000)) + "]",  # noqa: UP031
}
PARAMS = (
    '[{"name": "return_proba", "type": "boolean", "default": "x", "shape": null}]',
    '[{"name": "__class__", "type": "object", "default": {"a": 1}, "shape": [-1]}]',
    '[{"name": "p", "dtype": "datetime", "default": "9999-99-99", "shape": null}]',
    '{"a": 1}',
)


def signed() -> Iterator[Case]:
    for form, (name, schema) in itertools.product(DATA, SCHEMAS.items()):
        for part in ("inputs", "outputs"):
            values = {"inputs": None, "outputs": None, "params": None, part: schema}
            change = edit(lambda whole, function, flavor, values=values: whole.update(signature=copy.copy(values)))  # type: ignore[misc]
            yield Case(f"{form}: signature whose {part} are {name}", form, change)
    for form, params in itertools.product(DATA, PARAMS):
        values = {"inputs": None, "outputs": None, "params": params}
        change = edit(lambda whole, function, flavor, values=values: whole.update(signature=copy.copy(values)))  # type: ignore[misc]
        yield Case(f"{form}: signature with the parameters {params}", form, change)
