"""A server tried out: everything but listening, so that nothing that cannot work takes the place of what does."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import msgspec

from fin_pyfunc.model.errors import FinPyfuncError
from fin_pyfunc.serving.app import create_app
from fin_pyfunc.serving.life.succession import PASSED
from fin_pyfunc.serving.server import Server
from fin_pyfunc.serving.settings import Metrics, Settings, Tracing


def run(settings: Settings) -> None:
    """Start the application as a worker would, wait until its models answer, and say that it went well.

    Raises
    ------
    FinPyfuncError
        It would not answer.
    """
    # what a server does for others to see, a trial does not
    seen_by_nobody = msgspec.structs.replace(settings, metrics=Metrics(enabled=False), tracing=Tracing(enabled=False))
    asyncio.run(_try_out(seen_by_nobody))
    sys.stdout.write(f"{PASSED}\n")  # the answer to whoever started this
    sys.stdout.flush()


async def _try_out(settings: Settings) -> None:
    failed = asyncio.Event()
    started: list[Server] = []

    async def keep(server: Server) -> None:
        started.append(server)

    app = create_app(settings, on_fatal=lambda _: failed.set(), before_serving=keep)
    messages, answers = [{"type": "lifespan.startup"}], asyncio.Queue[str]()
    ended = asyncio.Event()

    async def receive() -> dict[str, str]:
        if messages:
            return messages.pop()
        await ended.wait()
        return {"type": "lifespan.shutdown"}

    async def send(message: dict[str, str]) -> None:
        answers.put_nowait(message["type"])

    application: Any = app  # Starlette's types know no dicts of text
    running = asyncio.create_task(application({"type": "lifespan", "state": {}}, receive, send))
    try:
        if await answers.get() != "lifespan.startup.complete":
            raise FinPyfuncError("the application could not be started; the log says why.")
        while started[0].health.not_ready() is not None and not failed.is_set():
            await asyncio.sleep(0.05)
        if failed.is_set():  # a server that runs goes on without what cannot be loaded, but is not to begin so
            raise FinPyfuncError(started[0].default.fatal or started[0].preload.fatal)
    finally:
        ended.set()
        await running
