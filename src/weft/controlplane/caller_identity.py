"""As whom a sidecar calls: what is decided for a caller in advance is decided about its identity."""

from __future__ import annotations

from collections.abc import Iterable

from weft.model.node import Node
from weft.model.spiffe import Role, SpiffeId, agent_id, operator_id, parse_spiffe_id

_NOBODY = "nobody"


def caller_identities(node: Node, known: Iterable[str], trust_domain: str) -> list[SpiffeId]:
    """Who `node` may be, of those who have an identity (`known`, SPIFFE IDs).

    A Node without an agent does not say in whose name it runs; the authority knows. Until that is heard here
    it is nobody in particular, whom a policy may allow only if it allows anyone.
    """
    if node.inbound is not None:
        return [agent_id(trust_domain, node.inbound.type, node.id)]
    found = [
        identity
        for each in known
        if each.endswith(f"/{node.id}")
        and (identity := parse_spiffe_id(each)).role is Role.OPERATOR
        and identity.segments[-1] == node.id
    ]
    return found or [operator_id(trust_domain, _NOBODY, node.id)]
