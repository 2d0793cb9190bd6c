"""What there is to say of a mesh that runs."""

from __future__ import annotations

from weft.cli.external_agents import external_findings
from weft.cli.findings import Finding
from weft.cli.options import ControlPlane
from weft.cli.trust_findings import trust_findings


async def mesh_findings(where: ControlPlane) -> list[Finding]:
    """Whether its processes can believe each other, and what is declared but not in force."""
    return [*await trust_findings(where), *await external_findings(where)]
