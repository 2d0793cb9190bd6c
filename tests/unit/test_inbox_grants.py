"""What an inbox lets its agents do in NATS, and nobody else."""

from __future__ import annotations

from weft.controlplane.message_grants import Declared, MessageGrant, message_grants
from weft.model.inbox import inbox_queue
from weft.model.spiffe import SpiffeId, agent_id, operator_id

EDITOR = agent_id("weft.local", "editor", "editor-1")
AUTHOR = agent_id("weft.local", "author", "author-1")


def granted(principal: SpiffeId) -> MessageGrant:
    return message_grants({}, principal, Declared({}, [], inboxes=["editor"]))


def mentions(grant: MessageGrant) -> list[str]:
    return [each for each in (*grant.publish, *grant.subscribe) if "a2a-" in each]


def test_agents_of_a_type_use_their_inbox_and_keep_what_belongs_to_its_tasks() -> None:
    publish = granted(EDITOR).publish
    queue = inbox_queue("editor")
    assert f"queues.{queue}.*" in publish
    assert f"$KV.tasks.{queue}.*" in publish
    assert "$KV.a2a-tasks.editor.*" in publish
    assert "WEFT.API.DIRECT.GET.KV_a2a-tasks.$KV.a2a-tasks.editor.*" in publish
    assert f"WEFT.API.CONSUMER.MSG.NEXT.QUEUE_{queue}.LANE_1" in publish


def test_nobody_else_is_granted_anything_of_it() -> None:
    assert not mentions(granted(AUTHOR))
    assert not mentions(granted(operator_id("weft.local", "editor", "laptop")))


def test_an_inbox_that_is_declared_as_a_queue_too_is_granted_once() -> None:
    queue = inbox_queue("editor")
    publish = message_grants({}, EDITOR, Declared({}, [queue], inboxes=["editor"])).publish
    assert len(publish) == len(set(publish))
