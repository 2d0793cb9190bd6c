"""Topic: a named stream of messages that every subscriber gets."""

from __future__ import annotations

from weft.model.spec import Spec, Text


class TopicSpec(Spec):
    """A topic; metadata.name is the name under which messages are published and subscribed to."""

    description: Text = ""
    encrypted: bool = False
    """Payloads are sealed by the publisher for those who may subscribe, so the broker cannot read them."""
