"""Requests as OpenTelemetry's spans: the caller's trace goes on here, with a span for each step of a prediction."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fin_pyfunc.serving.http import header, request_id
from fin_pyfunc.serving.metrics.values import OTHER
from fin_pyfunc.serving.prediction import Prediction

#: The longest that the end of a worker waits for its last spans to be sent.
CLOSE_SECONDS = 2.0


class Tracer:
    """Makes spans and sends them, by OTLP over HTTP, where ``OTEL_EXPORTER_OTLP_ENDPOINT`` says.

    OpenTelemetry is imported when it is started, in the worker: it runs a thread, which no fork may cross.
    """

    def __init__(self) -> None:
        self._provider: Any = None
        self._tracer: Any = None

    def start(self) -> None:
        """Open it, as the ``OTEL_…`` variables say."""
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        named = Resource.create()
        if str(named.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
            named = named.merge(Resource({SERVICE_NAME: "fin-pyfunc"}))
        self._provider = TracerProvider(resource=named, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("fin_pyfunc")

    def begin(self, scope: Scope, route: str) -> Any:
        """The span of a request, below the one that its `traceparent` names."""
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier = {}
        for name in ("traceparent", "tracestate"):
            if (sent := header(scope, name.encode())) is not None:
                carrier[name] = sent.decode("latin-1")
        context = TraceContextTextMapPropagator().extract(carrier)
        return self._tracer.start_span(
            f"{scope['method']} {route}",
            context=context,
            kind=SpanKind.SERVER,
            attributes={
                "http.request.method": scope["method"],
                "http.route": route,
                "fin_pyfunc.request_id": request_id(scope),
            },
        )

    def end(self, span: Any, status: int, prediction: Prediction | None) -> None:
        """End a request's span, with one below it for each step of its prediction."""
        from opentelemetry.trace import StatusCode, set_span_in_context

        if status:
            span.set_attribute("http.response.status_code", status)
        if status >= 500:
            span.set_status(StatusCode.ERROR)
        if prediction is not None and span.is_recording():
            span.set_attribute("fin_pyfunc.model_id", prediction.loaded.resolved.model_id)
            span.set_attribute("fin_pyfunc.backend", prediction.decisions.backend)
            span.set_attribute("fin_pyfunc.rows", len(prediction.decisions))
            context, now, clock = set_span_in_context(span), time.time_ns(), time.perf_counter()
            for name, start, stop in _steps(prediction):
                # steps are timed by a clock that nobody sets, and spans by that of the day
                began, ended = (now - int(1e9 * (clock - at)) for at in (start, stop))
                self._tracer.start_span(name, context=context, start_time=began).end(ended)
        span.end()

    def close(self) -> None:
        """Send what is waiting, and stop; a collector that does not answer is not waited for."""
        if self._provider is not None:
            closing = threading.Thread(target=self._provider.shutdown, name="close-traces", daemon=True)
            closing.start()
            closing.join(CLOSE_SECONDS)


class Traced:
    """Traces the requests to an application.

    Parameters
    ----------
    app : ASGI application
    tracer : Tracer
        Started before the first request.
    routes : collection of str
        Every path there is; any other one is "other".
    """

    def __init__(self, app: ASGIApp, tracer: Tracer, routes: Collection[str]) -> None:
        self._app, self._tracer, self._routes = app, tracer, frozenset(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; anything but HTTP passes through."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        span = self._tracer.begin(scope, scope["path"] if scope["path"] in self._routes else OTHER)
        state = scope.setdefault("state", {})
        state["trace_id"] = f"{span.get_span_context().trace_id:032x}"
        status = 0

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            self._tracer.end(span, status, state.get("prediction"))
        return None


def _steps(prediction: Prediction) -> list[tuple[str, float, float]]:
    p = prediction
    return [
        ("load", p.entered, p.found),
        ("decode", p.began, p.decoded),
        ("score", p.started, p.scored),
        ("encode", p.scored, p.encoded),
    ]
