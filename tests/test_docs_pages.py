"""The documentation pages: a valid document, rendered by a real browser, with nothing asked of any other server."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fin_pyfunc import __version__
from fin_pyfunc.serving import openapi as document
from fin_pyfunc.serving import pages
from fin_pyfunc.serving.motion.schemas import (
    LoadedModels,
    ShadowRequest,
    ShadowState,
    StartRequest,
    StopList,
    StopRequest,
)
from fin_pyfunc.serving.schemas import (
    BatchRequest,
    BatchResponse,
    Error,
    Health,
    ModelInfo,
    ModelList,
    PredictRequest,
    PredictResponse,
)

CONTRACT = {
    ("post", "/predict"),
    ("post", "/predict/batch"),
    ("get", "/health"),
    ("get", "/health/live"),
    ("get", "/health/ready"),
    ("get", "/models"),
    ("get", "/models/info"),
    ("get", "/"),
    ("post", "/invocations"),
    ("get", "/ping"),
    ("head", "/ping"),
    ("get", "/version"),
    ("get", "/admin/models"),
    ("post", "/admin/models/stop"),
    ("post", "/admin/models/start"),
    ("post", "/admin/shadow"),
    ("get", "/metrics"),
}
SPEC = document.openapi("1.2.3")
OPERATIONS = {(method, path): op for path, item in SPEC["paths"].items() for method, op in item.items()}


def examples(described: dict[str, Any]) -> list[Any]:
    """Every example of a JSON body; never none."""
    content = described["content"]["application/json"]
    if "example" in content:
        return [content["example"]]
    return [example["value"] for example in content["examples"].values()]


def test_the_document_is_valid_openapi_3_1() -> None:
    validator = pytest.importorskip("openapi_spec_validator")
    assert SPEC["openapi"].startswith("3.1")
    validator.OpenAPIV31SpecValidator(SPEC).validate()


def test_every_route_of_the_contract_is_described_with_words_of_its_own() -> None:
    assert set(OPERATIONS) == CONTRACT
    assert SPEC["info"]["version"] == "1.2.3"
    for op in OPERATIONS.values():
        assert op["summary"]
        assert op["description"]
        assert op["responses"]["200"]["description"]
    ids = [op["operationId"] for op in OPERATIONS.values()]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("method", "path", "body", "answer"),
    [
        ("post", "/predict", PredictRequest, PredictResponse),
        ("post", "/predict/batch", BatchRequest, BatchResponse),
        ("get", "/health", None, Health),
        ("get", "/models", None, ModelList),
        ("get", "/models/info", None, ModelInfo),
        ("get", "/admin/models", None, LoadedModels),
        ("post", "/admin/models/stop", StopRequest, StopList),
        ("post", "/admin/models/start", StartRequest, StopList),
        ("post", "/admin/shadow", ShadowRequest, ShadowState),
    ],
)
def test_every_example_is_taken_by_the_type_that_decodes_it(
    method: str, path: str, body: type | None, answer: type
) -> None:
    op = OPERATIONS[method, path]
    for example in examples(op["responses"]["200"]):
        msgspec.json.decode(json.dumps(example), type=answer)
    if body is not None:
        for example in examples(op["requestBody"]):
            msgspec.json.decode(json.dumps(example), type=body)


def test_errors_carry_the_error_schema_and_tell_when_to_come_back() -> None:
    for status, response in SPEC["components"]["responses"].items():
        assert response["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Error"}
        for example in examples(response):
            assert msgspec.convert(example, Error).detail
        assert ("Retry-After" in response["headers"]) == (status in {"429", "503"})
    documented = {status for op in OPERATIONS.values() for status in op["responses"]}
    assert documented >= {"200", "401", "403", "404", "413", "415", "422", "429", "500", "503", "504"}


def test_lineage_headers_are_documented_on_both_predictions() -> None:
    for path in ("/predict", "/predict/batch"):
        headers = OPERATIONS["post", path]["responses"]["200"]["headers"]
        assert list(headers) == ["X-Request-ID", "X-Model-URI", "X-Model-ID", "X-Model-Backend"]


# --- over HTTP -------------------------------------------------------------------------------------------------------


async def version(_: Request) -> Response:
    return PlainTextResponse("3.17.2", media_type="application/json")


async def described(_: Request) -> Response:
    return Response(msgspec.json.encode(document.openapi(__version__)), media_type="application/json")


class Marking:
    """Appends a header to every answer, as middleware may."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).append("X-Marked", "yes")
            await send(message)

        await self.app(scope, receive, marked)


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    """A real server of these routes, at the root and below a proxy's prefix."""
    listed = [*pages.routes(), Route("/version", version), Route("/openapi.json", described)]
    app = Starlette(routes=[Mount("/behind/proxy", routes=listed), *listed])
    app.add_middleware(Marking)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.02)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/docs/static/redoc.standalone.js"])
def test_one_answers_headers_do_not_leak_into_the_next(origin: str, path: str) -> None:
    for _ in range(3):
        assert requests.get(origin + path, timeout=10).headers["X-Marked"] == "yes"


def test_the_routes_are_made_without_importing_fastapi() -> None:
    code = "import sys; from fin_pyfunc.serving import pages; pages.routes(); print({'fastapi'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_the_page_names_no_other_server_and_its_policy_allows_none(origin: str, path: str) -> None:
    answer = requests.get(origin + path, timeout=10)
    assert answer.status_code == 200
    assert "://" not in answer.text
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy
    assert "unsafe-eval" not in policy


@pytest.mark.parametrize("name", ["swagger-ui-bundle.js", "swagger-ui.css", "redoc.standalone.js", "favicon.png"])
def test_the_pages_files_come_from_this_server(origin: str, name: str) -> None:
    answer = requests.get(f"{origin}/docs/static/{name}", timeout=10)
    assert answer.status_code == 200
    assert len(answer.content) > 1000
    assert pages.REDOC_LOGO not in answer.content


@pytest.mark.parametrize("name", ["..%2f__init__.py", "../__init__.py", "", "nothing.js"])
def test_nothing_else_of_the_package_is_served(origin: str, name: str) -> None:
    url = requests.Request("GET", f"{origin}/docs/static/").prepare()
    url.url = f"{origin}/docs/static/{name}"
    assert requests.Session().send(url, timeout=10).status_code == 404


# --- in a browser ----------------------------------------------------------------------------------------------------

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1600",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no Chromium here (Debian: apt-get install chromium chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield chrome
    chrome.quit()


def wait_for(browser: Any, script: str) -> Any:
    """What `script` returns in the page, as soon as it is truthy."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 60, poll_frequency=0.1).until(lambda page: page.execute_script(f"return {script}"))


def requested(browser: Any) -> list[str]:
    """Every address that the page asked for, allowed or blocked."""
    messages = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def severe(browser: Any) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def keep_picture(browser: Any, name: str) -> None:
    if folder := os.environ.get("SCREENSHOTS"):
        browser.save_screenshot(str(Path(folder) / f"{name}.png"))


def open_page(browser: Any, url: str) -> None:
    browser.get("about:blank")
    browser.get_log("performance")
    browser.get_log("browser")
    browser.get(url)


def assert_stayed_home(browser: Any, origin: str, *, expected: str) -> None:
    asked = requested(browser)
    assert any(url.endswith(expected) for url in asked)
    assert [url for url in asked if not url.startswith((f"{origin}/", "data:", "blob:"))] == []
    assert severe(browser) == []


@pytest.mark.browser
@pytest.mark.parametrize("prefix", ["", "/behind/proxy"])
def test_swagger_ui_lists_every_operation_and_asks_no_other_server(browser: Any, origin: str, prefix: str) -> None:
    open_page(browser, f"{origin}{prefix}/docs")
    wait_for(browser, f"document.querySelectorAll('.opblock').length === {len(CONTRACT)}")
    shown = wait_for(
        browser,
        "[...document.querySelectorAll('.opblock')].map(o => ["
        "o.querySelector('.opblock-summary-method').innerText.toLowerCase(),"
        "o.querySelector('.opblock-summary-path').dataset.path])",
    )
    assert {tuple(pair) for pair in shown} == CONTRACT
    keep_picture(browser, f"docs{prefix.replace('/', '-')}")
    browser.execute_script("document.querySelector('#operations-MLflow-get_version .opblock-summary-control').click()")
    wait_for(browser, "document.querySelector('#operations-MLflow-get_version button.execute')")
    browser.execute_script("document.querySelector('#operations-MLflow-get_version button.execute').click()")
    body = wait_for(browser, "document.querySelector('.live-responses-table .response-col_description pre')?.innerText")
    assert "3.17.2" in body
    keep_picture(browser, f"docs-tried{prefix.replace('/', '-')}")
    assert_stayed_home(browser, origin, expected=f"{prefix}/version")


@pytest.mark.browser
@pytest.mark.parametrize("prefix", ["", "/behind/proxy"])
def test_redoc_lists_every_operation_and_asks_no_other_server(browser: Any, origin: str, prefix: str) -> None:
    open_page(browser, f"{origin}{prefix}/redoc")
    summaries = {op["summary"] for op in OPERATIONS.values()}
    wait_for(browser, f"document.querySelectorAll('[data-section-id*=\"/operation/\"]').length >= {len(CONTRACT)}")
    text = browser.execute_script("return document.body.innerText")
    assert [summary for summary in summaries if summary not in text] == []
    keep_picture(browser, f"redoc{prefix.replace('/', '-')}")
    assert_stayed_home(browser, origin, expected=f"{prefix}/openapi.json")
