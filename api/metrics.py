"""Prometheus metrics: what models say on each scrape, latencies and outcomes as they occur.

Every app has its own registry. Times are seconds as the API process sees them. Knows no dialect.
"""

from collections.abc import Iterator
from operator import attrgetter
from time import perf_counter
from typing import Final

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.document import TEXT, Operation
from inference import Finished, GenerationEvent, Models, Overloaded, PoolStatus, Started

MAX_HELD: Final = 256 << 20  # bytes
_TOKEN_BUCKETS: Final = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2.5)
_FIRST_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_WHOLE_BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
# Of each model: what it is, and where a `PoolStatus` has it.
_GAUGES: Final = {
    "requests_waiting": ("Requests in the queue", "stats.waiting"),
    "requests_running": ("Requests in the model", "stats.running"),
    "kv_cells_used": ("KV cache cells in use", "stats.cells"),
    "kv_cells_total": ("KV cache cells", "cells"),
}
_COUNTERS: Final = {
    "prompt_tokens": ("Prompt tokens, cached ones included", "stats.prompt_tokens"),
    "cached_tokens": ("Prompt tokens not computed again", "stats.cached_tokens"),
    "completion_tokens": ("Tokens generated", "stats.completion_tokens"),
    "preemptions": ("Times a request gave up its KV cells for a while", "stats.preemptions"),
    "drafted_tokens": ("Tokens guessed (speculation)", "stats.drafted"),
    "accepted_tokens": ("Guessed tokens that were right", "stats.accepted"),
    "worker_restarts": ("Worker processes that had to be started again", "restarts"),
}

router = APIRouter()

OPERATIONS: Final = (Operation("/metrics", "Prometheus metrics", {200: {TEXT: str}}),)


@router.get("/metrics")
async def scrape(http: Request) -> Response:
    metrics: Metrics = http.app.state.metrics
    return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)


class Metrics:
    """The metrics of one app."""

    def __init__(self, models: Models) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_ModelCollector(models))
        self.held = 0
        Gauge(
            "onebox_request_bytes",
            "Bytes of the requests in progress",
            registry=self.registry,
        ).set_function(lambda: self.held)
        self.first_token = self._histogram(
            "time_to_first_token", "From request to first token", _FIRST_BUCKETS
        )
        self.inter_token = self._histogram(
            "inter_token", "Between two deltas of one choice", _TOKEN_BUCKETS
        )
        self.whole = self._histogram("request", "From request to end of answer", _WHOLE_BUCKETS)
        self.outcomes = Counter(
            "onebox_requests",
            "Requests by the HTTP status they had, or would have had: 499 means hung up",
            ("endpoint", "status"),
            registry=self.registry,
        )

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"onebox_{name}_seconds", text, buckets=buckets, registry=self.registry)


class Meter:
    """The record of one request, from now on: `hold` for the bytes it keeps here, `saw` for every
    event, `end` once."""

    def __init__(self, metrics: Metrics, endpoint: str) -> None:
        self._metrics = metrics
        self._endpoint = endpoint
        self._began = perf_counter()
        self._last: dict[int, float] = {}
        self._held = 0

    def hold(self, size: int) -> None:
        """Raises Overloaded where all requests together keep too much."""
        self._held += size
        self._metrics.held += size
        if self._metrics.held > MAX_HELD:
            raise Overloaded("The requests in progress are too large; please try again later.")

    def saw(self, event: GenerationEvent) -> None:
        if isinstance(event, Started | Finished):
            return
        now = perf_counter()
        if last := self._last.get(event.index):
            self._metrics.inter_token.observe(now - last)
        elif not self._last:
            self._metrics.first_token.observe(now - self._began)
        self._last[event.index] = now

    def end(self, status: int) -> None:
        self._metrics.held -= self._held
        self._metrics.outcomes.labels(self._endpoint, str(status)).inc()
        if status == 200:
            self._metrics.whole.observe(perf_counter() - self._began)


class _ModelCollector(Collector):
    """The numbers of every model that is loaded, under its name."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("onebox_ready", "1 if requests are taken", self._models.ready)
        loaded = self._models.loaded()
        for name, (text, place) in _GAUGES.items():
            yield _family(GaugeMetricFamily, name, text, place, loaded)
        for name, (text, place) in _COUNTERS.items():
            yield _family(CounterMetricFamily, name, text, place, loaded)


def _family(
    kind: type[GaugeMetricFamily] | type[CounterMetricFamily],
    name: str,
    text: str,
    place: str,
    loaded: list[PoolStatus],
) -> Metric:
    family = kind(f"onebox_{name}", text, labels=("model",))
    for now in loaded:
        family.add_metric((now.name,), attrgetter(place)(now))
    return family
