"""What the API's endpoints work on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from weft.controlplane.api.access import Access
from weft.controlplane.api.authentication import Caller, CurrentCaller
from weft.controlplane.api.recorder import Recorder
from weft.controlplane.contexts import TenantContexts
from weft.controlplane.dashboard_codes import DashboardCodes
from weft.controlplane.draining import Draining
from weft.controlplane.llm.standing import Standing
from weft.controlplane.mcp.virtual_server import VirtualServer
from weft.controlplane.membership import Membership
from weft.controlplane.message_custody import MessageCustody
from weft.controlplane.messaging import Messaging
from weft.controlplane.offers import OfferView
from weft.controlplane.replicas import Replicas
from weft.controlplane.sidecars import Sidecars
from weft.controlplane.telemetry.opening import Telemetry
from weft.errors import MeshError, Unavailable
from weft.registry.view import View
from weft.resources.store import Resources
from weft.resources.view import ResourceView


@dataclass(frozen=True, slots=True)
class ApiContext:
    """The parts of this replica that the API speaks for."""

    instances: View
    resources: Resources
    declared: ResourceView
    sidecars: Sidecars
    access: Access
    """Who may call what, and where it is written down."""
    membership: Membership | None = None
    """Who has an identity, and who gives it. None: nobody can join here."""
    messages: MessageCustody | None = None
    """The keys of encrypted topics and queues. None: there are none to be had here."""
    messaging: Messaging | None = None
    """Topics, queues and tasks. None: there are none here."""
    contexts: TenantContexts | None = None
    """What is kept of conversations. None: nothing is, here."""
    standing: Standing | None = None
    """How calls to models stand, and what they used. None: nothing is known of it here."""
    offers: OfferView | None = None
    """What running agents offer. None: nothing is known of it here."""
    tools: VirtualServer | None = None
    """The tools of MCP servers. None: there are none here."""
    dashboard_codes: DashboardCodes | None = None
    """Codes to sign in at the dashboard. None: there are none to be had here."""
    telemetry: Telemetry | None = None
    """What is observed of the mesh. None: nothing is, here."""
    replicas: Replicas | None = None
    """The control plane's replicas. None: nothing is known of them here."""
    draining: Draining | None = None
    """By which instances are made to leave. None: they cannot be told here."""
    settled: Callable[[], bool] = lambda: True
    """Whether the sidecars connected to this replica have taken over all that it knows."""


@dataclass(frozen=True, slots=True)
class Changes:
    """Writes down what one request's caller changes."""

    caller: Caller
    recorder: Recorder

    def note(self, action: str, target: str, *, reason: str = "", **details: str) -> None:
        """The caller did `action` (verb and noun) to `target`."""
        self.recorder.done(self.caller.who, action, target, reason=reason, **details)


def _context(request: Request) -> ApiContext:
    return cast(ApiContext, request.app.state.context)


Context = Annotated[ApiContext, Depends(_context)]
"""An endpoint's parameter of this type gets the ApiContext."""


def _membership(context: Context) -> Membership:
    if context.membership is None:
        raise Unavailable("this control plane was started without a certificate authority")
    return context.membership


CurrentMembership = Annotated[Membership, Depends(_membership)]
"""An endpoint's parameter of this type gets the Membership."""


def _messaging(context: Context) -> Messaging:
    if context.messaging is None:
        raise Unavailable("this control plane was started without topics and queues")
    return context.messaging


CurrentMessaging = Annotated[Messaging, Depends(_messaging)]
"""An endpoint's parameter of this type gets the Messaging."""


def _standing(context: Context) -> Standing:
    if context.standing is None:
        raise Unavailable("this control plane was started without scheduling of calls to models")
    return context.standing


CurrentStanding = Annotated[Standing, Depends(_standing)]
"""An endpoint's parameter of this type gets the Standing."""


def _tools(context: Context) -> VirtualServer:
    if context.tools is None:
        raise Unavailable("this control plane was started without tools")
    return context.tools


CurrentTools = Annotated[VirtualServer, Depends(_tools)]
"""An endpoint's parameter of this type gets the VirtualServer of all tools."""


def _telemetry(context: Context) -> Telemetry:
    if context.telemetry is None:
        raise Unavailable("this control plane was started without telemetry")
    return context.telemetry


CurrentTelemetry = Annotated[Telemetry, Depends(_telemetry)]
"""An endpoint's parameter of this type gets the Telemetry."""


def _access(context: Context) -> Access:
    return context.access


CurrentAccess = Annotated[Access, Depends(_access)]
"""An endpoint's parameter of this type gets the Access."""


def _changes(caller: CurrentCaller, context: Context) -> Changes:
    return Changes(caller, context.access.recorder)


Audited = Annotated[Changes, Depends(_changes)]
"""An endpoint's parameter of this type writes down what the caller changes."""


def _admitted(request: Request, caller: CurrentCaller, context: Context) -> Callable[[], bool]:
    def admitted() -> bool:
        try:
            return context.access.authentication.caller(request.scope) == caller
        except MeshError:
            return False

    return admitted


Admitted = Annotated[Callable[[], bool], Depends(_admitted)]
"""An endpoint's parameter of this type tells, while a long answer goes on, whether its caller is good yet."""
