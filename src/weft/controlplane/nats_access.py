"""What each identity of the mesh may do in NATS."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from weft.errors import Denied, InvalidRequest, Unauthenticated
from weft.identity.bundle import TrustBundles
from weft.identity.svid import Svid, parse_svid, verify_svid
from weft.model.access import Action
from weft.model.decision import AccessPolicies, AccessRequest, AccessTarget, TargetKind, decide
from weft.model.names import check_name, check_type
from weft.model.spiffe import Role, SpiffeId
from weft.model.subjects import identity_subject, inbox_prefix
from weft.registry.registry import BUCKET
from weft.store.nats_accounts import AUDIT, MEMBER_API
from weft.store.nats_callout import ConnectingClient, Decide, Grant
from weft.store.nats_wire import stream_name, subject


@dataclass(frozen=True, slots=True)
class MessageGrant:
    """The subjects of topics and queues that somebody may use."""

    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()


NO_MESSAGES = MessageGrant()

Messages = Callable[[SpiffeId], MessageGrant]
"""Which topics and queues somebody may use, now."""


def grant(identity: SpiffeId, *, expires_at: float, messages: MessageGrant = NO_MESSAGES) -> Grant:
    """What the holder of `identity` may do until `expires_at` (seconds since 1970).

    Raises Denied if it is none that the mesh gives out.
    """
    _check(identity)
    if identity.role is Role.CONTROL:
        return Grant(str(identity), (">",), (">",), expires_at, control=True)
    return Grant(
        str(identity),
        publish=(*_registration(identity), *_audit(identity), *messages.publish),
        subscribe=(f"{inbox_prefix(identity)}.>", *messages.subscribe),
        expires_at=expires_at,
    )


def message_grants(
    policies: AccessPolicies,
    principal: SpiffeId,
    topics: Iterable[str],
    queues: Iterable[str],
    *,
    labels: Mapping[str, str] | None = None,
) -> MessageGrant:
    """The subjects of those of `topics` and `queues`, by name, that the policies let `principal` use.

    `labels` are those that the authority attested to it.
    """
    wanted = [
        *((TargetKind.TOPIC, name, Action.PUBLISH, Action.SUBSCRIBE) for name in topics),
        *((TargetKind.QUEUE, name, Action.SUBMIT, Action.CONSUME) for name in queues),
    ]

    def allowed(action: Action, kind: TargetKind, name: str) -> bool:
        request = AccessRequest(action, AccessTarget(kind, name))
        decision = decide(policies, principal, request, trust_domain=principal.trust_domain, labels=labels)
        return decision.allowed

    return MessageGrant(
        publish=tuple(f"{kind}s.{name}" for kind, name, give, _ in wanted if allowed(give, kind, name)),
        subscribe=tuple(f"{kind}s.{name}" for kind, name, _, take in wanted if allowed(take, kind, name)),
    )


def admission(
    bundles: Callable[[], TrustBundles],
    *,
    revoked: Callable[[Svid], bool] = lambda _: False,
    messages: Messages = lambda _: NO_MESSAGES,
    refused: Callable[[ConnectingClient, str], None] = lambda _client, _reason: None,
    clock: Callable[[], float] = time.time,
) -> Decide:
    """What decides about connections to NATS: by certificate, and by nothing that a client says.

    `bundles` are what is trusted now; members of other trust domains are refused all the same. `refused` is
    told of each refusal and why. `clock` gives seconds since 1970.
    """

    async def decide_on(client: ConnectingClient) -> Grant:
        try:
            svid = parse_svid(client.chain_pem)
            identity = verify_svid(svid, TrustBundles(bundles().own), now=clock())
            _check_not_revoked(svid, revoked)
            return grant(identity, expires_at=svid.not_after, messages=messages(identity))
        except (InvalidRequest, Denied, Unauthenticated) as error:
            refused(client, error.detail)
            raise

    return decide_on


def _check_not_revoked(svid: Svid, revoked: Callable[[Svid], bool]) -> None:
    if revoked(svid):
        raise Denied(f"the identity {svid.id} has been revoked")


def _check(identity: SpiffeId) -> None:
    """Raise Denied unless each part of `identity` is a name: a dot in one would be another subject."""
    try:
        match identity.segments:
            case (Role.AGENT, agent_type, instance):
                check_type(agent_type)
                check_name(instance, "instance")
                return
            case (Role.OPERATOR, operator, instance):
                check_name(operator, "operator")
                check_name(instance, "instance")
                return
            case (Role.CONTROL, replica):
                check_name(replica, "replica")
                return
    except InvalidRequest as error:
        raise Denied(f"{identity} may do nothing in NATS: {error.detail}") from error
    raise Denied(f"{identity} may do nothing in NATS: it is no identity that a mesh gives out")


def _registration(identity: SpiffeId) -> Collection[str]:
    """To keep its own registration: its key, and to read what stands there.

    JetStream takes the key to read in the request's body, where permissions do not look, so the whole bucket
    can be read: it holds what anybody can discover.
    """
    if identity.role is not Role.AGENT:
        return ()
    _, agent_type, instance = identity.segments
    stream = stream_name(BUCKET)
    return (
        subject(BUCKET, f"{agent_type}.{instance}"),
        f"{MEMBER_API}.STREAM.INFO.{stream}",
        f"{MEMBER_API}.STREAM.MSG.GET.{stream}",
    )


def _audit(identity: SpiffeId) -> Collection[str]:
    return (f"{AUDIT}.{identity_subject(identity)}", f"{MEMBER_API}.STREAM.INFO.{AUDIT}")
