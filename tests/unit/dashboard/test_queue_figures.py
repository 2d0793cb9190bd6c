"""Queues, topics and dead letters as rows."""

from __future__ import annotations

from typing import Any

from weft.dashboard.pages import queue_figures
from weft.dashboard.pages.queue_figures import done_rate, look


def queue(**more: Any) -> dict[str, Any]:
    """A queue, as the API tells it."""
    return {
        "name": "research",
        "ready": 3,
        "inFlight": 2,
        "delayed": 1,
        "dead": 4,
        "oldestAge": 90.0,
        "enqueuedTotal": 100,
        "arrivalRate": 1.5,
        "serviceTime": 2.0,
        "concurrency": 1,
        "maxLength": 60,
        "desiredWorkers": 3,
        **more,
    }


def test_what_is_done_follows_from_what_came_and_what_is_left() -> None:
    earlier = look(10.0, [queue()])
    now = look(12.0, [queue(enqueuedTotal=110, ready=5, inFlight=2, delayed=1)])
    assert done_rate("research", earlier, now) == 4.0


def test_nothing_is_said_of_what_cannot_be_known() -> None:
    now = look(12.0, [queue()])
    assert done_rate("research", None, now) is None
    assert done_rate("other", look(10.0, [queue()]), now) is None
    assert done_rate("research", look(10.0, [queue(enqueuedTotal=None)]), now) is None
    assert done_rate("research", look(12.0, [queue()]), now) is None
    assert done_rate("research", look(10.0, [queue(enqueuedTotal=900)]), now) is None


def test_a_row_tells_how_deep_a_queue_is() -> None:
    row = queue_figures.queue_row(queue(), 0.5)
    assert (row["depth"], row["running"], row["dead"]) == (4, 2, 4)
    assert (row["full"], row["oldest"], row["done"], row["workers"]) == (0.1, 90.0, 0.5, 3)


def test_a_topic_is_as_far_behind_as_its_slowest_group() -> None:
    topic = {
        "name": "orders",
        "messages": 10,
        "size": 2048,
        "firstSequence": 1,
        "lastSequence": 10,
        "partitions": 0,
        "groups": [
            {"name": "billing", "pending": 1, "inFlight": 2},
            {"name": "shipping", "pending": 7, "inFlight": 0},
        ],
    }
    row = queue_figures.topic_row(topic)
    assert (row["lag"], row["groups"], row["inFlight"], row["size"]) == (7, 2, 2, "2.0 KiB")
    assert [each["group"] for each in queue_figures.group_rows([topic])] == ["shipping", "billing"]


def test_a_dead_event_tells_who_could_not_process_it_and_why() -> None:
    item = {
        "topic": "dead-letters.orders.billing",
        "sequence": 5,
        "publishedAt": 1_790_000_000.0,
        "event": {
            "type": "orders.created",
            "wefttopic": "orders",
            "weftgroup": "billing",
            "weftreason": "ValueError: no price",
        },
    }
    row = queue_figures.dead_event_row(item)
    assert (row["topic"], row["group"], row["reason"]) == ("orders", "billing", "ValueError: no price")
    sealed = queue_figures.dead_event_row({**item, "event": {"id": "1", "encrypted": True}})
    assert (sealed["type"], sealed["group"]) == ("encrypted", "billing")


def test_a_body_is_shown_as_far_as_it_is_text() -> None:
    assert queue_figures.body_text({"body": '{"a": 1}', "bodyBase64": None}) == '{"a": 1}'
    assert queue_figures.body_text({"body": None, "bodyBase64": "AAAA"}) == "3 bytes that are no text"
    assert queue_figures.body_text({"body": "x" * 9000}).endswith("(9,000 characters)")


def test_a_dead_task_tells_its_reason_and_time() -> None:
    row = queue_figures.dead_task_row(
        {"id": "m", "reason": "agent-failed: x", "priority": "low", "sentAt": 1_790_000_000.0}
    )
    assert (row["reason"], row["sent"]) == ("agent-failed: x", 1_790_000_000.0)


def test_the_rate_of_what_is_done_goes_back_some_looks() -> None:
    looks = queue_figures.QueueLooks()
    assert looks.rows([queue()], 0.0)[0]["done"] is None
    rates = [
        looks.rows([queue(enqueuedTotal=100 + 10 * each)], 2.0 * each)[0]["done"] for each in range(1, 9)
    ]
    assert set(rates) == {5.0}
