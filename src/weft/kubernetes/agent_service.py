"""Services of Kubernetes, as far as they stand for agents: of which type, and of which version."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from weft.errors import InvalidRequest
from weft.kubernetes.agent_in_pod import PREFIX
from weft.kubernetes.injection import AGENT_LABEL
from weft.model.names import check_type

TYPE_ANNOTATION: Final = f"{PREFIX}type"
"""Of a Service: the type of agent it stands for, where that is not its name."""
VERSION_ANNOTATION: Final = f"{PREFIX}version"
"""Of a Service: the version of agents it stands for, where its selector does not say."""

DISCOVER_LABEL: Final = f"{PREFIX}discover"
"""Of a Service: `"true"` for one without sidecars behind it, which the mesh is to know all the same."""

_VERSION_LABEL: Final = "app.kubernetes.io/version"
_MANAGED_LABEL: Final = "app.kubernetes.io/managed-by"

ServiceKey = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True, slots=True)
class AgentService:
    """A Service, as the mesh has to do with it."""

    namespace: str
    name: str
    type: str
    """Of the agents behind it."""
    version: str | None = None
    """Of those it stands for; None: of all."""
    ports: tuple[tuple[str, int], ...] = ()
    """Name and number of each."""
    headless: bool = False
    external: bool = False
    """It is only another name of a host elsewhere."""
    of_mesh: bool = True
    """Whether it is known to stand for agents of the mesh."""

    @property
    def key(self) -> ServiceKey:
        """Namespace and name."""
        return self.namespace, self.name

    @property
    def type_problem(self) -> str | None:
        """Why no agent is of that type; None if one may be."""
        try:
            check_type(self.type)
        except InvalidRequest as error:
            return error.detail
        return None


def agent_service(document: Mapping[str, Any], meshed: Collection[str] = ()) -> AgentService:
    """What a Service says of the agents behind it.

    The type is what its annotation says, or its selector, or else its name. It is the mesh's if one of the
    first two is there, if it is to be discovered, if Weft made it, or if its namespace is in `meshed`: one
    whose pods get sidecars.
    """
    metadata, spec = document.get("metadata") or {}, document.get("spec") or {}
    annotations, selector = metadata.get("annotations") or {}, spec.get("selector") or {}
    named = annotations.get(TYPE_ANNOTATION) or selector.get(AGENT_LABEL)
    labels = metadata.get("labels") or {}
    marked = labels.get(_MANAGED_LABEL) == "weft" or labels.get(DISCOVER_LABEL) == "true"
    namespace = metadata.get("namespace") or ""
    return AgentService(
        namespace,
        metadata.get("name") or "",
        named or metadata.get("name") or "",
        annotations.get(VERSION_ANNOTATION) or selector.get(_VERSION_LABEL),
        tuple((each.get("name") or "", each["port"]) for each in spec.get("ports") or ()),
        headless=spec.get("clusterIP") == "None",
        external=spec.get("type") == "ExternalName",
        of_mesh=bool(named) or marked or namespace in meshed,
    )
