"""What of the catalogue one caller sees: what AccessPolicies let it call."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from weft.model.access import TOOLS_CALL, Action
from weft.model.decision import (
    AccessPolicies,
    AccessRequest,
    AccessTarget,
    RpcCall,
    concerns,
    decide,
)
from weft.model.mcp_catalogue import (
    McpCatalogue,
    McpServer,
    PublishedPrompt,
    PublishedResource,
    PublishedTemplate,
    PublishedTool,
)
from weft.model.spiffe import DEFAULT_TRUST_DOMAIN, SpiffeId

PROMPTS_GET: Final = "prompts/get"
RESOURCES_READ: Final = "resources/read"

Targets = Mapping[str, Collection[AccessTarget]]
"""What the instances of each server's type are to policies."""

_Entry = PublishedTool | PublishedPrompt | PublishedResource | PublishedTemplate


@dataclass(frozen=True, slots=True)
class Asking:
    """Who asks, and what counts for that."""

    caller: SpiffeId
    policies: AccessPolicies
    labels: Mapping[str, str] = field(default_factory=dict)
    """What the authority attested of the caller."""
    trust_domain: str = DEFAULT_TRUST_DOMAIN
    revoked: bool = False


def visible(catalogue: McpCatalogue, targets: Targets, asking: Asking) -> McpCatalogue:
    """What of `catalogue` the caller may call on some instance of its server; without notes."""
    rights = _Rights(targets, asking)
    tools = [it for it in catalogue.tools if rights.admit(it.server, RpcCall(TOOLS_CALL, it.original))]
    prompts = [it for it in catalogue.prompts if rights.admit(it.server, RpcCall(PROMPTS_GET, it.original))]
    read = RpcCall(RESOURCES_READ)
    resources = [it for it in catalogue.resources if rights.admit(it.server, read)]
    templates = [it for it in catalogue.templates if rights.admit(it.server, read)]
    entries: list[_Entry] = [*tools, *prompts, *resources, *templates]
    shown = {each.server for each in entries}
    return McpCatalogue(
        servers=tuple(each for each in catalogue.servers if each in shown),
        tools=tuple(tools),
        resources=tuple(resources),
        templates=tuple(templates),
        prompts=tuple(prompts),
    )


class _Rights:
    """Decides about calls, and once about those that no policy tells apart."""

    def __init__(self, targets: Targets, asking: Asking) -> None:
        self._targets = targets
        self._asking = asking
        self._concerned: dict[str, Sequence[tuple[AccessTarget, AccessPolicies, bool]]] = {}
        self._decided: dict[tuple[AccessTarget, str], bool] = {}

    def admit(self, server: McpServer, call: RpcCall) -> bool:
        """Whether any instance of `server` takes the call from who asks."""
        return any(
            self._decide(target, policies, server.path, call)
            if by_body
            else self._decide_once(target, policies, server.path, call)
            for target, policies, by_body in self._about(server)
        )

    def _about(self, server: McpServer) -> Sequence[tuple[AccessTarget, AccessPolicies, bool]]:
        """For each kind of instance, the policies about it, and whether any of them reads bodies."""
        if server.type not in self._concerned:
            self._concerned[server.type] = [
                (target, policies, _reads_bodies(policies))
                for target in self._targets.get(server.type, ())
                for policies in [_about(self._asking.policies, target)]
            ]
        return self._concerned[server.type]

    def _decide_once(self, target: AccessTarget, policies: AccessPolicies, path: str, call: RpcCall) -> bool:
        place = (target, path)
        if place not in self._decided:
            self._decided[place] = self._decide(target, policies, path, call)
        return self._decided[place]

    def _decide(self, target: AccessTarget, policies: AccessPolicies, path: str, call: RpcCall) -> bool:
        asking = self._asking
        request = AccessRequest(Action.CALL, target, "POST", path.partition("?")[0], call)
        revoked = (str(asking.caller),) if asking.revoked else ()
        return decide(
            policies,
            asking.caller,
            request,
            trust_domain=asking.trust_domain,
            labels=asking.labels,
            revoked=revoked,
        ).allowed


def _about(policies: AccessPolicies, target: AccessTarget) -> AccessPolicies:
    return {name: spec for name, spec in policies.items() if concerns(spec, target)}


def _reads_bodies(policies: AccessPolicies) -> bool:
    return any(rule.reads_bodies for spec in policies.values() for rule in spec.rules)
