"""Who may do what through a gateway.

Callers from outside may use what the Gateway offers and, of that, what their key names; callers from inside
what the mesh's AccessPolicies allow them. Tasks belong to who submitted them: others are told there are none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from weft.errors import Denied, NotFound
from weft.gateway.caller import Caller, Insider
from weft.model.access import Action
from weft.model.gateway import GatewaySpec
from weft.model.inbox import is_inbox
from weft.model.message_subjects import WEBHOOK_QUEUE
from weft.model.spiffe import SpiffeId
from weft.model.task import Task
from weft.model.topic import DEAD_LETTERS

Allowed = Callable[[SpiffeId, Action, str], Awaitable[bool]]
"""Whether the policies let a member of the mesh submit to or consume from the queue of that name, or publish
to the topic. Raises Unavailable where that cannot be told."""


class Rights:
    """Decides for one gateway."""

    def __init__(self, spec: Callable[[], GatewaySpec], allowed: Allowed) -> None:
        self._spec = spec
        self._allowed = allowed

    async def check_submit(self, caller: Caller, queue: str) -> None:
        """Raises NotFound for queues that are not offered here, Denied where `caller` may not submit."""
        if not self._offers(queue):
            raise NotFound(f"there is no queue {queue!r} at this gateway")
        if isinstance(caller, Insider):
            permitted = await self._allowed(caller.id, Action.SUBMIT, queue)
        else:
            permitted = _within(queue, caller.queues)
        if not permitted:
            raise Denied(f"{caller.submitter} may not submit tasks to queue {queue!r}")

    async def check_publish(self, caller: Caller, topic: str) -> None:
        """Raises NotFound for topics not offered here, Denied where `caller` may not publish to it."""
        offered = self._spec().topics
        # What is a dead letter its subscribers say, unless a gateway is declared to be for just that.
        if not _within(topic, offered) or (offered is None and topic == DEAD_LETTERS):
            raise NotFound(f"there is no topic {topic!r} at this gateway")
        if isinstance(caller, Insider):
            permitted = await self._allowed(caller.id, Action.PUBLISH, topic)
        else:
            permitted = _within(topic, caller.topics)
        if not permitted:
            raise Denied(f"{caller.submitter} may not publish to topic {topic!r}")

    def check_call(self, caller: Caller, agent_type: str) -> None:
        """Raises NotFound for agents that are not offered here, Denied where `caller` may not call them."""
        if not _within(agent_type, self._spec().agents):
            raise NotFound(f"there is no agent of type {agent_type!r} at this gateway")
        if not isinstance(caller, Insider) and not _within(agent_type, caller.agents):
            raise Denied(f"{caller.submitter} may not call agents of type {agent_type!r}")

    async def whose(self, caller: Caller, queue: str) -> str:
        """Whose tasks of `queue` the caller sees, as `TaskQuery.submitter` has it.

        Raises NotFound if none, not even its own.
        """
        if not self._offers(queue):
            raise NotFound(f"there is no queue {queue!r} at this gateway")
        if isinstance(caller, Insider):
            return "" if await self._allowed(caller.id, Action.CONSUME, queue) else _kin(caller.id)
        if not _within(queue, caller.queues):
            raise NotFound(f"there is no queue {queue!r} at this gateway")
        return "" if caller.sees_all else caller.submitter

    async def sees(self, caller: Caller, task: Task) -> bool:
        """Whether `caller` may see and cancel `task`."""
        if not self._offers(task.queue):
            return False
        if isinstance(caller, Insider):
            own = task.submitter.startswith(_kin(caller.id))
            return own or await self._allowed(caller.id, Action.CONSUME, task.queue)
        own = task.submitter == caller.submitter
        return _within(task.queue, caller.queues) and (own or caller.sees_all)

    def _offers(self, queue: str) -> bool:
        # The mesh's own queues are nobody's to put tasks into.
        return queue != WEBHOOK_QUEUE and not is_inbox(queue) and _within(queue, self._spec().queues)


def _within(name: str, names: tuple[str, ...] | None) -> bool:
    return names is None or name in names


def _kin(member: SpiffeId) -> str:
    """How the names of all instances of the same agent type begin: what one submits is the others' too."""
    *path, _instance = member.segments or ("",)
    return "/".join((f"spiffe://{member.trust_domain}", *path, ""))
