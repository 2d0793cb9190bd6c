"""What AccessPolicies and revocations come to beyond Envoy: rights in NATS, keys of messages, streams."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection

from weft.controlplane.brokerage import Decide
from weft.controlplane.changes import LONGEST_REST, Followed, any_of
from weft.controlplane.message_grants import Declared, MessageGrant, inbox_grant, message_grants
from weft.controlplane.nats_access import Admission
from weft.controlplane.security import Security
from weft.controlplane.xds.server import AdsServer
from weft.errors import MeshError
from weft.model.decision import AccessRequest, Decision, access_policies, decide
from weft.model.gateway import GatewaySpec
from weft.model.queue import QueueSpec
from weft.model.resource import AnyResource
from weft.model.spiffe import SpiffeId
from weft.model.topic import TopicSpec
from weft.resources.view import ResourceView
from weft.store.nats_callout import Callout

logger = logging.getLogger(__name__)

_AT_ONCE = 32
"""Members that are sent away from NATS together: what is declared anew concerns all of them as a rule, and to
find the connections of one takes half a second."""


async def revoke(security: Security, ads: AdsServer, callout: Callout | None) -> None:
    """Cut off those whose identities are taken back: what is open now would else stay open."""
    _, revocations = security.identities.followed
    known: frozenset[str] = frozenset()
    while True:
        generation = revocations.generation
        revoked = frozenset(each.spiffe_id for each in security.identities.revoked)
        for identity in revoked - known:
            ads.drop(identity)
            if callout is not None:
                await _kick(callout, identity)
        known = revoked
        await revocations.changed_since(generation)


async def regrant(security: Security, declared: ResourceView, admission: Admission, callout: Callout) -> None:
    """Have those connect to NATS anew who may use other topics or queues than when they connected."""
    followed: list[Followed] = [declared, *security.identities.followed]
    while True:
        seen = [each.generation for each in followed]
        outdated = [str(each) for each in await admission.outdated()]
        for start in range(0, len(outdated), _AT_ONCE):
            await asyncio.gather(*(_kick(callout, each) for each in outdated[start : start + _AT_ONCE]))
        await asyncio.sleep(LONGEST_REST)
        changes = [each.changed_since(number) for each, number in zip(followed, seen, strict=True)]
        await any_of(*changes)


async def _kick(callout: Callout, identity: str) -> None:
    try:
        await callout.kick(identity)
    except MeshError as error:
        logger.warning("%s keeps its old rights in NATS until its identity ends: %s", identity, error.detail)


def admission_to_nats(security: Security, declared: ResourceView) -> Admission:
    """What each identity may do in NATS."""

    def messages(identity: SpiffeId) -> MessageGrant:
        resources = declared.resources.values()
        labels = security.identities.labels.get(str(identity))
        allowed = message_grants(access_policies(resources), identity, _declared(resources), labels=labels)
        own = inbox_grant(identity)
        return MessageGrant((*own.publish, *allowed.publish), (*own.subscribe, *allowed.subscribe))

    return Admission(
        lambda: security.authority.bundles,
        revoked=lambda svid: security.identities.is_revoked(str(svid.id)),
        messages=messages,
        refused=security.note_refused_client,
    )


def _declared(resources: Collection[AnyResource]) -> Declared:
    return Declared(
        {each.metadata.name: each.spec for each in resources if isinstance(each.spec, TopicSpec)},
        [each.metadata.name for each in resources if isinstance(each.spec, QueueSpec)],
        [each.metadata.name for each in resources if isinstance(each.spec, GatewaySpec)],
    )


def deciding(declared: ResourceView, security: Security) -> Decide:
    """What the policies, as they are now, come to for somebody."""

    def decide_now(caller: SpiffeId, request: AccessRequest) -> Decision:
        return decide(
            access_policies(declared.resources.values()),
            caller,
            request,
            trust_domain=security.authority.trust_domain,
            labels=security.identities.labels.get(str(caller)),
            revoked=[each.spiffe_id for each in security.identities.revoked],
        )

    return decide_now
