"""Figures of tasks, for Prometheus.

| metric | kind | what |
|---|---|---|
| `weft_tasks_submitted_total{queue}` | counter | tasks that this process has put into queues |
| `weft_tasks_resubmitted_total{queue}` | counter | submissions that turned out to be repetitions |
| `weft_tasks_finished_total{queue,state}` | counter | tasks brought to an end here: `succeeded`, `failed` |
| `weft_task_attempts_total{queue,outcome}` | counter | attempts by what became of them, see below |
| `weft_task_wait_seconds{queue}` | histogram | from when a task could start to its first attempt |
| `weft_task_run_seconds{queue}` | histogram | one attempt |

Outcomes of attempts are `succeeded`, `failed` (for good), `retried`, `handed-back`, `cancelled` and `lost`
(its lease, to another worker).
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

_WAIT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)
_RUN_BUCKETS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 900, 3600)


class SubmissionMetrics:
    """The metrics of who submits, registered with `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Raises ValueError if `registry` has them already."""
        self._submitted = Counter(
            "weft_tasks_submitted_total", "Tasks submitted.", ["queue"], registry=registry
        )
        self._repeated = Counter(
            "weft_tasks_resubmitted_total", "Submissions that were repetitions.", ["queue"], registry=registry
        )

    def note(self, queue: str, *, created: bool) -> None:
        """A task was submitted."""
        (self._submitted if created else self._repeated).labels(queue).inc()


class WorkerMetrics:
    """The metrics of workers, registered with `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Raises ValueError if `registry` has them already."""
        self._finished = Counter(
            "weft_tasks_finished_total", "Tasks that came to an end.", ["queue", "state"], registry=registry
        )
        self._attempts = Counter(
            "weft_task_attempts_total", "Attempts at tasks.", ["queue", "outcome"], registry=registry
        )
        self._wait = Histogram(
            "weft_task_wait_seconds",
            "Seconds from when a task could start to its first attempt.",
            ["queue"],
            buckets=_WAIT_BUCKETS,
            registry=registry,
        )
        self._run = Histogram(
            "weft_task_run_seconds",
            "Seconds that an attempt took.",
            ["queue"],
            buckets=_RUN_BUCKETS,
            registry=registry,
        )

    def note_start(self, queue: str, waited: float) -> None:
        """The first attempt at a task begins, so many seconds after it could have."""
        self._wait.labels(queue).observe(max(0.0, waited))

    def note_attempt(self, queue: str, outcome: str, seconds: float) -> None:
        """An attempt is over."""
        self._attempts.labels(queue, outcome).inc()
        self._run.labels(queue).observe(max(0.0, seconds))

    def note_end(self, queue: str, state: str) -> None:
        """A task came to an end here."""
        self._finished.labels(queue, state).inc()
