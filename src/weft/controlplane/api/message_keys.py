"""The keys of encrypted topics and queues over HTTP, for the processes of the mesh that may have them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response

from weft.controlplane.api.access import requires
from weft.controlplane.api.authentication import Caller, CurrentCaller, Peer
from weft.controlplane.api.body import Body
from weft.controlplane.api.context import Audited, Context, CurrentAccess
from weft.controlplane.api.recorder import Recorder
from weft.controlplane.message_custody import MessageCustody
from weft.errors import Denied, Unavailable
from weft.messaging.channel import Channel, ChannelKind
from weft.messaging.keys import consuming_keys_document, publishing_key_document
from weft.model.names import MAX_NAME_LENGTH
from weft.model.operator import Scope
from weft.model.spiffe import Role, SpiffeId

_PEERS_ONLY = requires(Scope.ADMIN, peers=[Role.AGENT, Role.OPERATOR])
"""Whom a token admits, `_Asking` refuses all the same: who operates the mesh need not read its messages."""

ChannelName = Annotated[str, Path(max_length=MAX_NAME_LENGTH)]


class PublishingKeyOut(Body):
    """What publishers seal with."""

    epoch: str
    """Name of the epoch: 16 hexadecimal digits."""
    public_key: str
    """X25519, in base64."""
    publish_until: float
    """Seconds since 1970 after which nobody may seal with it."""


class ConsumingKeyOut(Body):
    """What consumers open the messages of one epoch with."""

    epoch: str
    """Name of the epoch: 16 hexadecimal digits."""
    private_key: str
    """X25519, in base64."""
    keep_until: float
    """Seconds since 1970 after which no message of the epoch can be under way."""


class ConsumingKeyList(Body):
    """The keys of all epochs of which messages may be under way, oldest first."""

    keys: list[ConsumingKeyOut]


class EpochOut(Body):
    """The epoch that began."""

    epoch: str
    """Its name: 16 hexadecimal digits."""


def _custody(context: Context) -> MessageCustody:
    if context.messages is None:
        raise Unavailable("this control plane was started without keys of messages")
    return context.messages


Custody = Annotated[MessageCustody, Depends(_custody)]
"""An endpoint's parameter of this type gets the MessageCustody."""


@dataclass(frozen=True, slots=True)
class _Asking:
    """Who asks for keys."""

    caller: Caller
    recorder: Recorder

    @contextmanager
    def to(self, action: str, channel: Channel) -> Iterator[SpiffeId]:
        """The identity of who asks for keys in order to `action`; a denial goes to the audit."""
        try:
            yield _process(self.caller, channel)
        except Denied as error:
            self.recorder.denied(self.caller.who, f"{action} with key", str(channel), error.detail)
            raise


def _process(caller: Caller, channel: Channel) -> SpiffeId:
    if not isinstance(caller, Peer):
        raise Denied(
            f"the keys of {channel} are for processes of the mesh, which show a certificate: no token will do"
        )
    return caller.id


def _asking(caller: CurrentCaller, access: CurrentAccess) -> _Asking:
    return _Asking(caller, access.recorder)


Asking = Annotated[_Asking, Depends(_asking)]


def _endpoints(kind: ChannelKind) -> APIRouter:
    router = APIRouter(prefix=f"/v1/{kind}s", tags=["messages"])

    @router.get("/{name}/publishing-key", dependencies=[Depends(_PEERS_ONLY)])
    async def publishing_key(
        custody: Custody, asking: Asking, response: Response, name: ChannelName
    ) -> PublishingKeyOut:
        """What to seal payloads with now; for processes of the mesh that may publish or submit."""
        channel = Channel(kind, name)
        with asking.to(kind.sending, channel) as caller:
            key = await custody.publishing_key(caller, channel)
        response.headers["cache-control"] = "no-store"
        return PublishingKeyOut.model_validate(publishing_key_document(key))

    @router.get("/{name}/consuming-keys", dependencies=[Depends(_PEERS_ONLY)])
    async def consuming_keys(
        custody: Custody, asking: Asking, response: Response, name: ChannelName
    ) -> ConsumingKeyList:
        """What to open payloads with; for processes of the mesh that may subscribe or consume."""
        channel = Channel(kind, name)
        with asking.to(kind.receiving, channel) as caller:
            keys = await custody.consuming_keys(caller, channel)
        response.headers["cache-control"] = "no-store"
        return ConsumingKeyList.model_validate(consuming_keys_document(keys))

    @router.post("/{name}/rotate-keys", dependencies=[Depends(requires(Scope.OPERATOR))])
    async def rotate_keys(custody: Custody, changes: Audited, name: ChannelName) -> EpochOut:
        """Begin a new epoch now. Publishers take it up within a minute; what is under way still opens."""
        channel = Channel(kind, name)
        epoch = await custody.rotate(channel)
        changes.note("rotate keys", str(channel), epoch=epoch)
        return EpochOut(epoch=epoch)

    return router


routers = tuple(_endpoints(kind) for kind in ChannelKind)
"""For topics, and for queues."""
