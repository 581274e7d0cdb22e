"""What Prometheus reads of a server."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from groundglass.apps.service.jobs import Jobs, JobStatus

_BUCKETS = (1, 2, 5, 10, 20, 40, 80, 160, 320, 640)


class Metrics:
    """Counters of this server; none of them names a scan."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._jobs = Gauge("groundglass_jobs", "Jobs kept, by status", ["status"], registry=self._registry)
        self._ended = Counter("groundglass_jobs_ended", "Jobs that ended", ["status"], registry=self._registry)
        self._seconds = Histogram("groundglass_job_seconds", "Time of a job", buckets=_BUCKETS, registry=self._registry)
        self._received = Counter("groundglass_received_bytes", "Bytes of scans accepted", registry=self._registry)
        self._refused = Counter("groundglass_refused", "Scans not accepted", ["status"], registry=self._registry)
        for status in (JobStatus.DONE, JobStatus.FAILED):
            self._ended.labels(status.value)

    def ended(self, status: JobStatus, seconds: float) -> None:
        """A job ended."""
        self._ended.labels(status.value).inc()
        self._seconds.observe(seconds)

    def received(self, size: int) -> None:
        """A scan of so many bytes was accepted."""
        self._received.inc(size)

    def refused(self, status: int) -> None:
        """A scan was not accepted, with this HTTP status."""
        self._refused.labels(str(status)).inc()

    def text(self, jobs: Jobs) -> bytes:
        """All of them, in Prometheus' text format."""
        for status, count in jobs.counts().items():
            self._jobs.labels(status).set(count)
        return generate_latest(self._registry)
