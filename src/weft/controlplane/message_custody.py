"""Who gets the keys of an encrypted topic or queue: whom the AccessPolicies let publish, or consume."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from weft.controlplane.message_keys import MessageKeys
from weft.errors import Denied, InvalidRequest, NotFound
from weft.messaging.channel import Channel, ChannelKind
from weft.messaging.keys import ConsumingKey, PublishingKey
from weft.model.access import Action
from weft.model.decision import AccessRequest, AccessTarget, Decision, TargetKind
from weft.model.queue import QueueSpec
from weft.model.resource import AnyResource
from weft.model.spiffe import SpiffeId
from weft.model.topic import TopicSpec


class MessageCustody:
    """Gives keys out to those who may have them.

    All methods with a channel raise NotFound if it is not declared, InvalidRequest if it is not encrypted,
    and what MessageKeys raises.
    """

    def __init__(
        self,
        keys: MessageKeys,
        declared: Callable[[], Mapping[str, AnyResource]],
        decide: Callable[[SpiffeId, AccessRequest], Decision],
    ) -> None:
        """`declared` gives the resources as they stand now, by key; `decide` what the policies come to."""
        self.keys = keys
        self._declared = declared
        self._decide = decide

    def encrypted(self) -> list[Channel]:
        """All encrypted topics and queues."""
        return [
            Channel(ChannelKind(each.kind.lower()), each.metadata.name)
            for each in self._declared().values()
            if isinstance(each.spec, TopicSpec | QueueSpec) and each.spec.encrypted
        ]

    async def publishing_key(self, caller: SpiffeId, channel: Channel) -> PublishingKey:
        """What `caller` seals with. Raises Denied unless it may publish."""
        self._check_allowed(caller, channel.kind.sending, channel)
        self._check_encrypted(channel)
        return await self.keys.publishing_key(channel)

    async def consuming_keys(self, caller: SpiffeId, channel: Channel) -> tuple[ConsumingKey, ...]:
        """What `caller` opens with. Raises Denied unless it may subscribe or consume."""
        self._check_allowed(caller, channel.kind.receiving, channel)
        self._check_encrypted(channel)
        return await self.keys.consuming_keys(channel)

    async def rotate(self, channel: Channel) -> str:
        """Begin a new epoch, and return its name."""
        self._check_encrypted(channel)
        return (await self.keys.rotate(channel)).epoch

    def _check_allowed(self, caller: SpiffeId, action: str, channel: Channel) -> None:
        target = AccessTarget(TargetKind(channel.kind.value), channel.name)
        decision = self._decide(caller, AccessRequest(Action(action), target))
        if not decision.allowed:
            raise Denied(f"{caller} may not {action} to {channel}: {decision.reason}")

    def _check_encrypted(self, channel: Channel) -> None:
        resource = self._declared().get(f"{channel.kind}.{channel.name}")
        if resource is None:
            raise NotFound(f"there is no {channel}: declare it")
        if not resource.spec.encrypted:
            raise InvalidRequest(f"{channel} is not encrypted, so it has no keys: set spec.encrypted")
