"""`weft check --kubernetes`: what an installation on a cluster lacks, in plain words."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Final

from cyclopts import Parameter

from weft.cli import cluster_agent_findings, cluster_findings
from weft.cli.cluster_findings import Installed
from weft.cli.findings import Finding, Level
from weft.errors import MeshError
from weft.kubernetes.controller.cluster import Cluster
from weft.kubernetes.first_keys import DEFAULT_NAME
from weft.kubernetes.installation.setup import DEFAULT_NAMESPACE
from weft.kubernetes.kubeconfig import ClusterAccess, cluster_access, kubeconfig_file

_TIMEOUT: Final = 60.0
"""Seconds that one look at the cluster may take."""

Finder = Callable[[Installed], AsyncIterator[Finding]]

FINDERS: Final[Mapping[str, Finder]] = {
    "Kubernetes": cluster_findings.kubernetes_version,
    "custom resources": cluster_findings.definitions,
    "parts": cluster_findings.parts,
    "reached at": cluster_findings.endpoints,
    "webhooks": cluster_findings.webhooks,
    "roots": cluster_agent_findings.roots,
    "sidecars": cluster_agent_findings.pods,
    "resources": cluster_agent_findings.resources,
    "other APIs": cluster_findings.other_apis,
}
"""All that is looked at, in the order in which it is told, by what it is called where it cannot be."""


@Parameter(name="*")
@dataclass(frozen=True)
class Installation:
    """Which installation on which cluster is meant."""

    name: Annotated[str, Parameter(help="With --kubernetes: of the installation.")] = DEFAULT_NAME
    namespace: Annotated[str, Parameter(help="With --kubernetes: where it is.")] = DEFAULT_NAMESPACE
    kube_context: Annotated[
        str,
        Parameter(help="With --kubernetes: of the kubeconfig (default: the current).", show_default=False),
    ] = ""
    server: Annotated[
        str,
        Parameter(
            help="With --kubernetes: URL of the cluster's API where nobody has to say who it is, such as "
            "`kubectl proxy` offers (default: by the kubeconfig).",
            show_default=False,
        ),
    ] = ""


async def cluster_report(meant: Installation, environ: Mapping[str, str]) -> list[Finding]:
    """Everything that is to be said of an installation. Raises InvalidRequest if no cluster is named."""
    access = _access(meant, environ)
    # Asked once beforehand: a program that tells a token may take a while, and a person's answer.
    await asyncio.to_thread(access.token)
    async with Cluster(access.url, trust=access.trust, token=access.token) as cluster:
        at = Installed(cluster, meant.name, meant.namespace)
        return [each for what, finder in FINDERS.items() for each in await _found(what, finder, at)]


def _access(meant: Installation, environ: Mapping[str, str]) -> ClusterAccess:
    if meant.server:
        return ClusterAccess(meant.server.rstrip("/"), ssl.create_default_context(), lambda: "")
    return cluster_access(kubeconfig_file(environ), meant.kube_context)


async def _found(what: str, finder: Finder, at: Installed) -> list[Finding]:
    found: list[Finding] = []
    try:
        async with asyncio.timeout(_TIMEOUT):
            found.extend([each async for each in finder(at)])
    except MeshError as error:
        found.append(
            Finding(Level.FAIL, what, error.detail, "see that you may ask for it, and of whom you ask")
        )
    except TimeoutError:
        found.append(Finding(Level.FAIL, what, f"could not be looked at within {_TIMEOUT:g} s"))
    return found
