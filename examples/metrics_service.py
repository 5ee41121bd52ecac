"""aiohttp_service.py with GET /metrics for Prometheus: through OpenTelemetry, from the client's own statistics too.

It needs `pika_async[otel]`, opentelemetry-sdk and opentelemetry-exporter-prometheus. Alert on a `pika_stopped` above 0
and on a `pika_jobs{state="unknown"}` that grows: those jobs are in doubt and wait for a person.
"""

from collections.abc import Iterable

from aiohttp import web
from aiohttp_service import PIKA, create_app, main
from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

STATES = ("planned", "submitting", "in_flight", "unknown", "timed_out")


async def scrape(_: web.Request) -> web.Response:
    return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def create_metered_app() -> web.Application:
    metrics.set_meter_provider(MeterProvider([PrometheusMetricReader()]))  # before the client is opened
    app = create_app()
    app.add_routes([web.get("/metrics", scrape)])

    def count_jobs(_: metrics.CallbackOptions) -> Iterable[metrics.Observation]:
        stats = app[PIKA].stats()
        return [metrics.Observation(getattr(stats, state), {"state": state}) for state in STATES]

    def is_stopped(_: metrics.CallbackOptions) -> Iterable[metrics.Observation]:
        return [metrics.Observation(int(app[PIKA].stats().stopped is not None))]

    meter = metrics.get_meter("metrics_service")
    meter.create_observable_gauge("pika.jobs", [count_jobs])
    meter.create_observable_gauge("pika.stopped", [is_stopped])
    return app


if __name__ == "__main__":
    main(create_metered_app)
