"""Queue: a named line of tasks, each of which one worker gets."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from weft.model.duration import Duration, Timeout, between
from weft.model.redelivery import Backoff, MaxDeliveries, Retention, Visibility
from weft.model.spec import Spec, Text

Deadline = Annotated[Duration, AfterValidator(between("1s", "720h"))]


class QueueSpec(Spec):
    """A queue; metadata.name is the name under which tasks are submitted and worked on."""

    description: Text = ""
    encrypted: bool = False
    """Payloads are sealed by the submitter for those who may consume, so the broker cannot read them."""
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 8
    """Tasks that one instance works on at once, unless it says less."""
    max_length: Annotated[int, Field(ge=1, le=100_000_000)] = 1_000_000
    """Tasks that wait or are under way; beyond it submitting is refused with 429."""
    max_deliveries: MaxDeliveries = 5
    """Attempts after which a task has failed, and is among the dead letters."""
    backoff: Backoff = Backoff()
    visibility_timeout: Visibility = 30.0
    """How long a worker may be silent before another gets its task. While it works, its lease is extended."""
    time_limit: Timeout | None = None
    """How long one attempt may take; none: as long as the deadline lets it."""
    deadline: Deadline | None = None
    """How long after its submission a task may be finished, unless the submitter says how long."""
    result_ttl: Retention = 24 * 3600.0
    """How long results are kept, unless the submitter says how long."""
