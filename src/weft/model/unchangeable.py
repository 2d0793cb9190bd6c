"""What of a resource stays as it was declared first, until it is deleted."""

from __future__ import annotations

from collections.abc import Iterator

from weft.model.contradictions import Contradiction
from weft.model.resource import AnyResource
from weft.model.topic import TopicSpec


def forbidden_changes(before: AnyResource, after: AnyResource) -> Iterator[Contradiction]:
    """Every field of `after` that may not differ from what is declared, `before`, and does."""
    old, new = before.spec, after.spec
    if isinstance(old, TopicSpec) and isinstance(new, TopicSpec) and old.partitions != new.partitions:
        # Publishers would go by the new number while subscribers have the old one, and miss events.
        yield (
            ("spec", "partitions"),
            f"is {old.partitions} for good, since events were published by it: declare another topic, "
            "or delete this one with all it holds",
        )
