"""What is written down of tasks, and what they look like on their way and to callers."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest

from weft.errors import InvalidRequest, NotFound
from weft.messaging.message import Message
from weft.model.task import Progress, Task, TaskError, TaskEvent, TaskEventKind, TaskState
from weft.tasks.documents import task_document, task_event_document
from weft.tasks.json_value import MAX_JSON_BYTES, json_value
from weft.tasks.records import MAX_WAIT, TaskCodec, TaskEventCodec, lifetime
from weft.tasks.task_id import check_id, derived_id, new_id
from weft.tasks.webhooks import check_webhook
from weft.tasks.wire import Submission, another_message_id, message_for, submission_in

NOW = 1_763_683_200.5
PLAIN = Task("q.0000000000000000000000000a", TaskState.QUEUED, NOW, "spiffe://weft.local/agent/a/b")
FULL = Task(
    PLAIN.id,
    TaskState.SUCCEEDED,
    NOW,
    "key:ci@gate",
    priority="high",
    not_before=NOW + 1,
    deadline=NOW + 60,
    result_ttl=5.0,
    attempts=3,
    started_at=NOW + 2,
    worker="adder.one",
    finished_at=NOW + 3,
    result={"a": [1, None, "ü"]},
    error=TaskError("internal", "ü"),
    progress=Progress(0.5, "half"),
    webhook="https://example.com/",
    context="c",
    labels={"ü": "é"},
    forgiven=1,
    message=another_message_id(PLAIN.id),
    fingerprint="f",
    enqueued=True,
    announced=True,
)


def test_every_field_of_a_task_is_in_this_test() -> None:
    assert all(getattr(FULL, each.name) != each.default for each in fields(Task))


@pytest.mark.parametrize("task", [PLAIN, FULL])
def test_a_record_reads_as_it_was_written(task: Task) -> None:
    codec = TaskCodec()
    assert codec.decode(codec.encode(task)) == task


def test_fields_of_a_newer_weft_are_ignored() -> None:
    written = json.loads(TaskCodec().encode(FULL))
    written["error"]["new"] = written["new"] = 1
    assert TaskCodec().decode(json.dumps(written).encode()) == FULL


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"[]",
        b"{}",
        b'{"id":"x","state":"queued","submitted_at":1,"submitter":"s"}',
        b'{"id":"q.0000000000000000000000000a","state":"lost","submitted_at":1,"submitter":"s"}',
        b'{"id":"q.0000000000000000000000000a","state":"queued","submitted_at":NaN,"submitter":"s"}',
        b'{"id":"q.0000000000000000000000000a","state":"queued","submitted_at":1,"submitter":"s","attempts":-1}',
        b"[" * 100_000,
    ],
)
def test_garbage_is_no_record(garbage: bytes) -> None:
    with pytest.raises(ValueError, match="record"):
        TaskCodec().decode(garbage)


def test_an_event_reads_as_it_was_written() -> None:
    event = TaskEvent(2, 7, TaskEventKind.PARTIAL, NOW, {"a": 1})
    assert TaskEventCodec().decode(TaskEventCodec().encode(event)) == event
    with pytest.raises(ValueError, match="event"):
        TaskEventCodec().decode(b"{}")


def test_records_are_kept_as_long_as_they_are_needed() -> None:
    assert lifetime(FULL, NOW) == FULL.result_ttl
    assert lifetime(PLAIN, NOW) >= MAX_WAIT + PLAIN.result_ttl
    assert lifetime(replace(PLAIN, deadline=NOW + 60), NOW) == 60 + PLAIN.result_ttl + 1
    assert lifetime(replace(PLAIN, deadline=NOW - 60), NOW) == PLAIN.result_ttl + 1
    assert lifetime(replace(PLAIN, not_before=NOW + 90, deadline=NOW + 60), NOW) == 90 + PLAIN.result_ttl + 1


def test_a_message_says_what_was_submitted() -> None:
    task = replace(FULL, state=TaskState.QUEUED, webhook="https://example.com/ü")
    submission = Submission(task, 17, "text/x", {"traceparent": "00"}, b"\x00", another_message_id(task.id))
    message = message_for(submission)
    assert submission_in(message, "q") == submission


@pytest.mark.parametrize(
    "changed",
    [
        {"weft-task": "{}"},
        {"weft-revision": "-1"},
        {"weft-revision": "1" * 30},
        {"weft-task": TaskCodec().encode(replace(PLAIN, state=TaskState.RUNNING)).decode()},
        {"weft-task": TaskCodec().encode(replace(PLAIN, id="q.0000000000000000000000000b")).decode()},
    ],
)
def test_a_message_that_carries_no_task_of_its_own_is_refused(changed: dict[str, str]) -> None:
    message = message_for(Submission(PLAIN, 1, "text/x", {}, b"", PLAIN.id))
    with pytest.raises(InvalidRequest, match="carries"):
        submission_in(Message(message.id, b"", {**message.headers, **changed}), "q")
    with pytest.raises(InvalidRequest, match="carries"):
        submission_in(message, "another")


def test_later_ids_sort_behind_earlier_ones() -> None:
    ids = [new_id("q", NOW + n) for n in range(100)]
    assert ids == sorted(ids)
    assert len({new_id("q", NOW) for _ in range(1000)}) == 1000
    assert all(check_id(each) for each in ids)


def test_a_derived_id_is_of_queue_submitter_and_key() -> None:
    one = derived_id("q", "s", "k")
    assert check_id(one) == derived_id("q", "s", "k")
    others = {derived_id("p", "s", "k"), derived_id("q", "t", "k"), derived_id("q", "s", "l")}
    assert one not in others
    assert derived_id("q", "a", "bc") != derived_id("q", "ab", "c")
    for key in ("", "x" * 257, "\n"):
        with pytest.raises(InvalidRequest):
            derived_id("q", "s", key)


@pytest.mark.parametrize(
    "text", ["", "q", "q.a", "Q.0000000000000000000000000a", "q.0000000000000000000000000z", "q.>"]
)
def test_what_has_not_the_form_of_an_id_is_not_found(text: str) -> None:
    with pytest.raises(NotFound):
        check_id(text)


def test_values_are_json_of_a_limited_size_and_depth() -> None:
    assert json_value({"a": (1, 2)}, "it") == {"a": [1, 2]}
    assert json_value(float("nan"), "it") is None
    nested: list[object] = []
    for _ in range(1000):
        nested = [nested]
    for wrong in (object(), nested, "x" * MAX_JSON_BYTES):
        with pytest.raises(InvalidRequest, match="it "):
            json_value(wrong, "it")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a/",
        "https://",
        "https:///x",
        "http://a b/",
        "http://a:x/",
        "http://a/\n",
        "x" * 3000,
        "http://ü/",
    ],
)
def test_what_is_no_url_is_no_webhook(url: str) -> None:
    with pytest.raises(InvalidRequest, match="webhook"):
        check_webhook(url)


def test_a_document_has_what_callers_may_know() -> None:
    assert task_document(PLAIN) == {
        "id": PLAIN.id,
        "queue": "q",
        "state": "queued",
        "priority": "normal",
        "submitter": "spiffe://weft.local/agent/a/b",
        "submittedAt": "2025-11-21T00:00:00.500Z",
        "attempts": 0,
        "resultTtl": 86400.0,
    }
    document = task_document(FULL)
    assert document["result"] == FULL.result
    assert document["error"] == {"code": "internal", "detail": "ü"}
    assert document["progress"] == {"fraction": 0.5, "message": "half"}
    assert document["deadline"] == "2025-11-21T00:01:00.500Z"
    assert not {"fingerprint", "message", "forgiven"} & set(document)
    event = TaskEvent(1, 2, TaskEventKind.PARTIAL, NOW, [1])
    assert task_event_document(event) == {
        "attempt": 1,
        "number": 2,
        "kind": "partial",
        "at": "2025-11-21T00:00:00.500Z",
        "data": [1],
    }
