"""What each identity of the mesh may do in NATS."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Collection

from weft.controlplane.message_grants import NO_MESSAGES, MessageGrant
from weft.errors import Denied, InvalidRequest, MeshError, Unauthenticated
from weft.identity.bundle import TrustBundles
from weft.identity.svid import Svid, parse_svid, verify_svid
from weft.model.names import check_name, check_type
from weft.model.offer import OFFERS_BUCKET
from weft.model.spiffe import Role, SpiffeId
from weft.model.subjects import DRAIN_SIGNALS, identity_subject, inbox_prefix
from weft.model.traffic_report import TRAFFIC_SIGNALS
from weft.registry.registry import BUCKET
from weft.store.nats_accounts import AUDIT, MEMBER_API, MEMBER_SIGNALS, SIGNALS
from weft.store.nats_callout import ConnectingClient, Grant
from weft.store.nats_wire import stream_name, subject

_SILENCE = 300.0
"""Seconds until the same refusal is told again."""
_MAX_TOLD = 1000

Messages = Callable[[SpiffeId], MessageGrant]
"""Which topics and queues somebody may use, now."""


def grant(identity: SpiffeId, *, expires_at: float, messages: MessageGrant = NO_MESSAGES) -> Grant:
    """What the holder of `identity` may do until `expires_at` (seconds since 1970).

    Raises Denied if it is none that the mesh gives out.
    """
    _check(identity)
    if identity.role is Role.CONTROL:
        return Grant(str(identity), (">",), (">",), expires_at, control=True)
    inbox = f"{inbox_prefix(identity)}.>"
    return Grant(
        str(identity),
        # Into its own inbox too: by a message to itself it learns that what it said before has been heard.
        publish=(
            inbox,
            *_registration(identity),
            *_offer(identity),
            *_audit(identity),
            f"{MEMBER_SIGNALS}.{TRAFFIC_SIGNALS}.{identity_subject(identity)}",
            *messages.publish,
        ),
        subscribe=(inbox, *_drain(identity), *messages.subscribe),
        expires_at=expires_at,
    )


class Admission:
    """Decides about connections to NATS: by certificate, and by nothing that a client says."""

    def __init__(
        self,
        bundles: Callable[[], TrustBundles],
        *,
        revoked: Callable[[Svid], bool] = lambda _: False,
        messages: Messages = lambda _: NO_MESSAGES,
        refused: Callable[[ConnectingClient, str], None] = lambda _client, _reason: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`bundles` are what is trusted now; members of other trust domains are refused all the same.

        `refused` is told whom it refused and why: of each, and each way to fail, once in five minutes, since
        who is refused tries again and again. `clock` gives seconds since 1970.
        """
        self._bundles = bundles
        self._revoked = revoked
        self._messages = messages
        self._refused = refused
        self._clock = clock
        self._granted: dict[SpiffeId, tuple[MessageGrant, float]] = {}
        self._told: dict[tuple[str, str], float] = {}

    async def decide(self, client: ConnectingClient) -> Grant:
        """What `client` may do. Raises Denied or Unauthenticated if it may not connect."""
        who = client.host
        try:
            svid = parse_svid(client.chain_pem)
            who = str(svid.id)
            return self._grant(svid)
        except (InvalidRequest, Denied, Unauthenticated) as error:
            if self._is_news(who, error):
                self._refused(client, error.detail)
            raise

    async def outdated(self) -> list[SpiffeId]:
        """Those who were admitted with other topics and queues than they may use now.

        Kick them: they come back, and are granted what they may use. Each is named once.
        """
        now = self._clock()
        self._granted = {who: each for who, each in self._granted.items() if each[1] > now}
        found = []
        for who, granted in list(self._granted.items()):
            if granted[0] != self._messages(who) and self._granted.get(who) is granted:
                del self._granted[who]
                found.append(who)
            await asyncio.sleep(0)  # with many members and topics it takes a while
        return found

    def _grant(self, svid: Svid) -> Grant:
        identity = verify_svid(svid, TrustBundles(self._bundles().own), now=self._clock())
        if self._revoked(svid):
            raise Denied(f"the identity {identity} has been revoked")
        messages = self._messages(identity)
        granted = grant(identity, expires_at=svid.not_after, messages=messages)
        self._granted[identity] = messages, svid.not_after
        return granted

    def _is_news(self, who: str, error: MeshError) -> bool:
        now = self._clock()
        if len(self._told) >= _MAX_TOLD:
            self._told.clear()
        kind = str(getattr(error, "reason", error.code))
        before, self._told[who, kind] = self._told.get((who, kind), -math.inf), now
        if before + _SILENCE > now:
            self._told[who, kind] = before
            return False
        return True


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


def _offer(identity: SpiffeId) -> Collection[str]:
    """To keep what it offers: its key, read by name. What others offer it is told as far as policies say."""
    if identity.role is not Role.AGENT:
        return ()
    _, agent_type, instance = identity.segments
    key = subject(OFFERS_BUCKET, f"{agent_type}.{instance}")
    return (key, f"{MEMBER_API}.DIRECT.GET.{stream_name(OFFERS_BUCKET)}.{key}")


def _drain(identity: SpiffeId) -> Collection[str]:
    """To hear that it is to leave. Nobody but the control plane may send that: no member may publish it."""
    if identity.role is not Role.AGENT:
        return ()
    _, agent_type, instance = identity.segments
    heard = f"{SIGNALS}.*.{DRAIN_SIGNALS}.{agent_type}.{instance}"
    return (heard, f"{heard}.>")


def _audit(identity: SpiffeId) -> Collection[str]:
    return (f"{AUDIT}.{identity_subject(identity)}", f"{MEMBER_API}.STREAM.INFO.{AUDIT}")
