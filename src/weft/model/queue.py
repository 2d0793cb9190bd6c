"""Queue: a named line of tasks, each of which one consumer gets."""

from __future__ import annotations

from weft.model.spec import Spec, Text


class QueueSpec(Spec):
    """A queue; metadata.name is the name under which tasks are submitted and consumed."""

    description: Text = ""
    encrypted: bool = False
    """Payloads are sealed by the submitter for those who may consume, so the broker cannot read them."""
