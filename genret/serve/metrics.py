"""What the server counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Of one server, so that several can live in one process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter("genret_requests", "Answers", ["route", "method", "status"], registry=registry)
        self.seconds = Histogram(
            "genret_request_seconds", "Time to answer", ["route"], registry=registry, buckets=SECONDS
        )
        self.batch = Histogram("genret_batch_size", "Queries in a model step", registry=registry, buckets=BATCHES)
        self.step = Histogram("genret_step_seconds", "Time of a model step", registry=registry, buckets=SECONDS)
        self.waiting = Gauge("genret_waiting_queries", "Queries that wait for the model", registry=registry)
        self.dropped = Counter(
            "genret_dropped_queries", "Queries whose client left before their step", registry=registry
        )
        self.refused = Counter(
            "genret_refused_queries", "Queries refused because the queue was full", registry=registry
        )
        self.images = Gauge("genret_images", "Pictures in the catalog", registry=registry)

    def text(self) -> bytes:
        return generate_latest(self.registry)
