"""What an inbox lets its agents do in NATS, and nobody else."""

from __future__ import annotations

from weft.controlplane.message_grants import NO_MESSAGES, Declared, inbox_grant, message_grants
from weft.model.inbox import inbox_queue
from weft.model.spiffe import agent_id, operator_id

EDITOR = agent_id("weft.local", "editor", "editor-1")
AUTHOR = agent_id("weft.local", "author", "author-1")
QUEUE = inbox_queue("editor")


def test_agents_use_the_inbox_of_their_type_and_keep_what_belongs_to_its_tasks() -> None:
    grant = inbox_grant(EDITOR)
    assert f"queues.{QUEUE}.*" in grant.publish
    assert f"$KV.tasks.{QUEUE}.*" in grant.publish
    assert "$KV.a2a-tasks.editor.*" in grant.publish
    assert "WEFT.API.DIRECT.GET.KV_a2a-tasks.$KV.a2a-tasks.editor.*" in grant.publish
    assert f"WEFT.API.CONSUMER.MSG.NEXT.QUEUE_{QUEUE}.LANE_1" in grant.publish
    assert f"signals.*.tasks.{QUEUE}.>" in grant.subscribe
    assert f"signals.*.cancellations.{QUEUE}.>" in grant.subscribe


def test_nobody_else_is_granted_anything_of_it() -> None:
    assert inbox_grant(operator_id("weft.local", "editor", "laptop")) == NO_MESSAGES
    author = inbox_grant(AUTHOR)
    assert not [each for each in (*author.publish, *author.subscribe) if "editor" in each]


def test_nobody_else_is_granted_anything_of_one_that_is_declared_as_a_queue() -> None:
    for who in (AUTHOR, operator_id("weft.local", "ops", "laptop"), agent_id("weft.local", "door", "door-1")):
        grant = message_grants({}, who, Declared({}, [QUEUE, "work"], ["door"]))
        assert "queues.work.*" in grant.publish
        assert not [each for each in (*grant.publish, *grant.subscribe) if QUEUE in each]
