"""/docs and /redoc, from files of the package ``fastapi-offline``; nothing is asked of the internet."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

# every address is relative, so that the pages work behind a proxy's prefix too
STATIC = "docs/static"
SPEC = "openapi.json"

#: An image that ReDoc asks its maker's server for; with the address below it goes without.
REDOC_LOGO = b"https://cdn.redoc.ly/redoc/logo-mini.svg"
NO_IMAGE = b"data:,"

SWAGGER_OPTIONS = {
    "url": SPEC,
    "dom_id": "#ui",
    "deepLinking": True,
    "displayRequestDuration": True,
    "tryItOutEnabled": True,
    "defaultModelsExpandDepth": 0,
    "validatorUrl": None,
}
REDOC_OPTIONS = {"nativeScrollbars": True, "expandResponses": "200", "jsonSamplesExpandLevel": "all"}

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<link rel="icon" type="image/png" href="$static/favicon.png">
$style
</head>
<body>
<noscript>This page needs JavaScript; the API is described at <a href="$spec">$spec</a> too.</noscript>
<div id="ui"></div>
<script src="$static/$library"></script>
<script>$start</script>
</body>
</html>
""")


def routes() -> list[BaseRoute]:
    """Routes of the pages that show /openapi.json, for the app to include."""
    swagger = _page(
        "fin-pyfunc API",
        "swagger-ui-bundle.js",
        f"SwaggerUIBundle({json.dumps(SWAGGER_OPTIONS)})",
        style=f'<link rel="stylesheet" href="{STATIC}/swagger-ui.css">',
    )
    redoc = _page(
        "fin-pyfunc API reference",
        "redoc.standalone.js",
        f'Redoc.init("{SPEC}", {json.dumps(REDOC_OPTIONS)}, document.getElementById("ui"))',
        style="<style>body { margin: 0 }</style>",
    )
    return [
        _route("/docs", *swagger),
        _route("/redoc", *redoc),
        Route(f"/{STATIC}/redoc.standalone.js", _redoc_library),
        Mount(f"/{STATIC}", StaticFiles(directory=_static_files())),
    ]


def _page(title: str, library: str, start: str, *, style: str) -> tuple[bytes, dict[str, str]]:
    html = PAGE.substitute(title=title, library=library, start=start, style=style, static=STATIC, spec=SPEC)
    return html.encode(), {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": _policy(start),
    }


def _policy(script: str) -> str:
    """Content security policy: our own files and the one inline `script`, by its digest."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return "; ".join(
        [
            "default-src 'self'",
            f"script-src 'self' 'sha256-{digest}'",
            "style-src 'self' 'unsafe-inline'",  # both pages make their styles as they go
            "img-src 'self' data:",
            "worker-src blob:",  # ReDoc's search
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "object-src 'none'",
        ]
    )


def _route(path: str, body: bytes, headers: dict[str, str]) -> Route:
    async def endpoint(_: Request) -> Response:
        # a new one each time: middleware may add headers to it
        return Response(body, headers=headers)

    return Route(path, endpoint, name=path.strip("/"))


@cache
def _redoc_script() -> bytes:
    return (_static_files() / "redoc.standalone.js").read_bytes().replace(REDOC_LOGO, NO_IMAGE)


def _redoc_library(_: Request) -> Response:
    return Response(_redoc_script(), media_type="text/javascript", headers={"Cache-Control": "max-age=3600"})


def _static_files() -> Path:
    # not imported: that would import FastAPI, half a second for four files
    spec: Any = find_spec("fastapi_offline")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "The package 'fastapi-offline' holds the files of /docs and /redoc; install it with pip."
        )
    return Path(spec.submodule_search_locations[0]) / "static"
