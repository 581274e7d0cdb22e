"""The metrics of a server in Prometheus' text format."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from groundglass.apps.service.job_states import JobStatus
from groundglass.apps.service.jobs import JobStore

_BUCKETS_S = (1, 2, 5, 10, 20, 40, 80, 160, 320, 640)


class ServiceMetrics:
    """Counters of one server; none of them names a scan."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._jobs = Gauge("groundglass_jobs", "Stored jobs by status", ["status"], registry=self._registry)
        self._ended = Counter("groundglass_jobs_ended", "Jobs done or failed", ["status"], registry=self._registry)
        self._seconds = Histogram(
            "groundglass_job_seconds", "Processing time of a job", buckets=_BUCKETS_S, registry=self._registry
        )
        self._received = Counter("groundglass_received_bytes", "Bytes of accepted scans", registry=self._registry)
        self._refused = Counter("groundglass_refused", "Refused uploads", ["status"], registry=self._registry)
        for status in (JobStatus.DONE, JobStatus.FAILED):
            self._ended.labels(status.value)

    def record_job_end(self, status: JobStatus, seconds: float) -> None:
        """Count a job that is done or failed, with its processing time."""
        self._ended.labels(status.value).inc()
        self._seconds.observe(seconds)

    def record_received(self, size_bytes: int) -> None:
        """Count the bytes of an accepted upload."""
        self._received.inc(size_bytes)

    def record_refused(self, status: int) -> None:
        """Count a refused upload under its HTTP status."""
        self._refused.labels(str(status)).inc()

    def text(self, jobs: JobStore) -> bytes:
        """Return all metrics in Prometheus' text format."""
        for status, count in jobs.count_by_status().items():
            self._jobs.labels(status).set(count)
        return generate_latest(self._registry)
